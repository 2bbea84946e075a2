"""The `lungseg` command: one module per command, each a thin cover over a service or the pipeline.

A command imports torch and other heavy libraries inside its function, so that `lungseg --help` answers at once.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

import lungseg
from lungseg.cli import (
    average,
    calibrate,
    demo,
    doctor,
    evaluate,
    evaluate_nodules,
    execute,
    export,
    film,
    identity,
    lint,
    listen,
    pacs_query,
    prepare,
    presets,
    promote,
    recover,
    scores,
    segment,
    serve,
    setup,
    stats,
    train,
    worker,
)
from lungseg.cli.console import EXIT_INTERRUPTED, EXIT_REFUSED, print_error
from lungseg.config import share_processors
from lungseg.errors import LungSegError, RunCancelledError, StorageError

app = typer.Typer(
    help="Lung tumour segmentation in CT. Research use only: not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(segment.segment)
app.command()(evaluate.evaluate)
app.command()(evaluate_nodules.evaluate_nodules)
app.command()(scores.scores)
app.command()(export.export)
app.command()(film.film)
app.command()(serve.serve)
app.command()(worker.worker)
app.command()(listen.listen)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(recover.recover)
app.command()(identity.identity)
app.command()(setup.setup)
app.command()(lint.lint)
app.command()(stats.stats)
app.command()(prepare.prepare)
app.command()(train.train)
app.command()(presets.presets)
app.command()(promote.promote)
app.command()(average.average)
app.command()(calibrate.calibrate)
app.command(hidden=True)(execute.execute)
app.command(hidden=True)(pacs_query.pacs_query)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Print the version where it is asked for."""
    if version:
        typer.echo(lungseg.__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; an error of ours or of the system becomes a message and exit code 2, never a traceback."""
    share_processors()
    _print_any_name()
    try:
        app()
    except LungSegError as error:
        print_error(error)
        sys.exit(EXIT_INTERRUPTED if isinstance(error, RunCancelledError) else EXIT_REFUSED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        print_error(_refused_by_the_system(error))
        sys.exit(EXIT_REFUSED)


def _print_any_name() -> None:
    """Let names be printed that the terminal's encoding does not hold, or that are not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _refused_by_the_system(error: OSError) -> StorageError:
    """Say which file the system refused."""
    return StorageError(
        f"{error.filename or 'A file'} can't be used ({error.strerror or error}).",
        "Check that it exists and its rights, and that its disk has room and is not read-only.",
    )
