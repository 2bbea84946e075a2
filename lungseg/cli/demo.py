"""`lungseg demo`: the demo case, from the package index to the queue."""

from __future__ import annotations

from lungseg.cli.console import busy, out
from lungseg.cli.installation import opened_installation
from lungseg.config import Settings


def demo() -> None:
    """Fetch the demo scan with its reference mask, make a case of it and queue its segmentation; safe to repeat."""
    from lungseg.services import demo as service

    settings = Settings.from_environment()
    with opened_installation(settings) as installation, busy("preparing the demo scan") as tell:
        service.prepare_demo(settings, on_step=tell)
        tell("making the demo case")
        case = service.add_case(installation)
    out.print(f"{case.name} is case {case.id}; `lungseg serve` shows it, the worker segments it.", soft_wrap=True)
