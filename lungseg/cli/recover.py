"""`lungseg recover`: cases made again from the files of an installation whose database was lost."""

from __future__ import annotations

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
    database = open_database(settings.database_url)
    with busy("looking at the files") as tell:
        found = service(Installation(settings, database), adopt=adopt, on_step=tell)
    database.close()
    out.print(
        Text(
            f"Back: {counted(found.cases, 'case')}, {counted(found.masks, 'mask')}, {counted(found.runs, 'run')}; "
            f"to be segmented again: {counted(found.queued, 'case')}."
        ),
        soft_wrap=True,
    )
    if found.unnamed:
        warn(f"No manifest had {counted(found.unnamed, 'case')}: called `recovered ...`.")
    if found.set_aside:
        warn(f"Of no case that is known: {counted(found.set_aside, 'mask')}, now in the folder unassigned.")
    for file, reason in found.refused:
        warn(f"{file}: {reason}")
    if found.refused:
        raise typer.Exit(EXIT_INCOMPLETE)
