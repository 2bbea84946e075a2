"""`lungseg worker`: the process that segments what is queued."""

from __future__ import annotations

from typing import Annotated

import typer

from lungseg.config import Settings


def worker(
    once: Annotated[bool, typer.Option("--once", help="Leave when the queue is empty instead of waiting.")] = False,
) -> None:
    """Work through the queue; one worker at a time for each LUNGSEG_HOME."""
    from lungseg.worker import work

    work(Settings.from_environment(), once=once)
