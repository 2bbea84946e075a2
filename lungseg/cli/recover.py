"""`lungseg recover`: cases made again from the files of an installation whose database was lost."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer
from rich.text import Text

from lungseg.cli.console import EXIT_INCOMPLETE, busy, out, warn
from lungseg.config import Settings
from lungseg.wording import counted


def recover(
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take over a database that belongs to another LUNGSEG_HOME.")
    ] = False,
) -> None:
    """Make cases, masks and runs again from the files in LUNGSEG_HOME that the database does not know."""
    from lungseg.db import open_database
    from lungseg.services.installation import Installation
    from lungseg.services.recovery import recover as service

    settings = Settings.from_environment()
    with closing(open_database(settings.database_url)) as database, busy("looking at the files") as tell:
        result = service(Installation(settings, database), adopt=adopt, on_step=tell)
    out.print(
        Text(
            f"Back: {counted(result.cases, 'case')}, {counted(result.masks, 'mask')}, {counted(result.runs, 'run')}; "
            f"to be segmented again: {counted(result.queued, 'case')}."
        ),
        soft_wrap=True,
    )
    if result.unnamed:
        warn(f"No manifest had {counted(result.unnamed, 'case')}: called `recovered ...`.")
    if result.set_aside:
        warn(f"{counted(result.set_aside, 'mask')} of no recorded case: now in the folder unassigned.")
    for file, reason in result.refused:
        warn(f"{file}: {reason}")
    if result.refused:
        raise typer.Exit(EXIT_INCOMPLETE)
