"""`lungseg setup`: the parts that pip does not install."""

from __future__ import annotations

from collections.abc import Callable

import typer

from lungseg.cli.console import EXIT_INCOMPLETE, busy, out, print_error
from lungseg.config import Settings
from lungseg.errors import LungSegError


def setup() -> None:
    """Install the viewer's browser bundle and the demo scan; what is there already is kept.

    The parts stand alone: where one fails, the others are still installed, and the exit code is 1.
    """
    from lungseg.services import demo, viewer_bundle
    from lungseg.services.home import open_home

    settings = Settings.from_environment()
    open_home(settings)
    parts: dict[str, Callable[[], object]] = {
        "viewer bundle": lambda: viewer_bundle.install(settings),
        "demo scan": lambda: demo.prepare_demo(settings),
    }
    is_complete = True
    for name, install in parts.items():
        try:
            with busy(f"installing the {name}"):
                install()
            out.print(f"{name}: ready")
        except LungSegError as error:
            print_error(error)
            is_complete = False
    if not is_complete:
        raise typer.Exit(EXIT_INCOMPLETE)
