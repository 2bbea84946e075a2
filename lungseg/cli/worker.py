"""`lungseg worker`: the process that segments what is queued."""

from __future__ import annotations

from typing import Annotated

import typer

from lungseg.cli.console import log_to_stderr
from lungseg.config import Settings

LEAVES_S = 30.0
"""How long a worker may take to put its run back when its server is gone."""


def worker(
    once: Annotated[bool, typer.Option("--once", help="Leave when the queue is empty instead of waiting.")] = False,
) -> None:
    """Work through the queue; one worker at a time for each LUNGSEG_HOME."""
    log_to_stderr()
    from lungseg.processes import end_with_server

    end_with_server(LEAVES_S)
    from lungseg.jobs.worker import work

    work(Settings.from_environment(), once=once)
