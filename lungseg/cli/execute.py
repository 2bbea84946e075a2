"""`lungseg execute`: the child process of a run; the worker calls it, nobody else."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from lungseg.cli.console import log_to_stderr
from lungseg.config import Settings

NICENESS = 5
"""Beside processes that do other work a scan gets three quarters of each processor even before they stand aside; where
nothing competes with them they lose nothing."""


def execute(
    run: Annotated[str, typer.Argument(help="Id of the run; without one, the worker names an intake later.")] = "",
    attempt: Annotated[int, typer.Option(help="The start of the run that this process carries out.")] = 0,
) -> None:
    """Carry a claimed run out as the child of a worker."""
    log_to_stderr()
    from lungseg.jobs import process
    from lungseg.processes import end_with_stdin, keep_freed_memory

    os.nice(NICENESS)
    keep_freed_memory()
    if not run:
        process.stand_by(Settings.from_environment())
        return
    end_with_stdin()
    process.execute(Settings.from_environment(), run, attempt)
