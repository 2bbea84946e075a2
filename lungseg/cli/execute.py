"""`lungseg execute`: the child process of a run; the worker calls it, nobody else."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from lungseg.config import Settings


def execute(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    attempt: Annotated[int, typer.Option(help="The start of the run that this process carries out.")],
) -> None:
    """Carry a claimed run out as the child of a worker."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("lungseg").setLevel(logging.INFO)
    from lungseg.jobs import process
    from lungseg.jobs.right_of_way import let_scans_go_first
    from lungseg.processes import end_with_stdin, keep_freed_memory

    let_scans_go_first()
    keep_freed_memory()
    end_with_stdin()
    process.execute(Settings.from_environment(), run, attempt)
