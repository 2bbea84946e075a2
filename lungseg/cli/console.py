"""What all commands share on the terminal: two consoles, the look of an error, the bar of a run's progress.

Names of files and cases are anybody's: neither console takes a text for markup or emoji, in lines, tables or bars.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from lungseg.errors import LungSegError
from lungseg.records.run_states import Failure
from lungseg.records.run_states import Progress as RunProgress

EXIT_INCOMPLETE = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)


def print_error(error: LungSegError | Failure) -> None:
    """Say on stderr what was found and what to do, one line each."""
    err.print(Text.assemble((f"{error.code}: ", "bold red"), error.found), soft_wrap=True)
    err.print(Text.assemble(("what to do: ", "bold"), error.remedy), soft_wrap=True)


def show_written(path: Path, more: str = "") -> None:
    """Say on stderr that a file was written, on one line, with its name as it is."""
    err.print(f"{path} written{more}.", style="dim", soft_wrap=True, highlight=False)


def warn(text: str) -> None:
    """Say on stderr what the user should know though the command goes on."""
    err.print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[RunProgress], None]]:
    """Show how far a run has come, where stderr is a terminal; yields a function that takes each step."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda step: bar.update(task, description=step.stage, completed=step.done, total=step.total or None)


@contextmanager
def busy(text: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done, where stderr is a terminal; yields a function that takes each step."""
    with err.status(Text(text)) as status:
        yield lambda step: status.update(Text(step))


@contextmanager
def log_shown(name: str, *, but: str = "") -> Iterator[None]:
    """Show on stderr what a part of the package logs, one line each, without what the logger `but` logs.

    Errors are shown by whoever catches them.
    """
    logger = logging.getLogger(name)
    before, handler = logger.level, _OnTerminal()
    handler.addFilter(lambda record: record.name != but and record.levelno < logging.ERROR)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def log_to_stderr() -> None:
    """Let a process that nobody watches write its log to stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("lungseg").setLevel(logging.INFO)


class _OnTerminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        err.print(record.getMessage(), soft_wrap=True, highlight=False)
