"""`lungseg recover`: cases made again from the files of an installation whose database was lost."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from lungseg.cli.console import EXIT_INCOMPLETE, err, out, warn
from lungseg.config import Settings


def recover(
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take over a database that belongs to another LUNGSEG_HOME.")
    ] = False,
) -> None:
    """Make cases, masks and runs again from the files in LUNGSEG_HOME that the database does not know."""
    from lungseg.db import open_database
    from lungseg.services.recovery import recover as service

    settings = Settings.from_environment()
    database = open_database(settings.database_url)
    with err.status("looking at the files") as status:
        found = service(settings, database, adopt=adopt, on_step=status.update)
    database.close()
    out.print(
        Text(
            f"{found.cases} cases, {found.masks} masks and {found.runs} runs are back; "
            f"{found.queued} cases are segmented again."
        ),
        soft_wrap=True,
    )
    if found.unnamed:
        warn(f"{found.unnamed} cases had no manifest: they are called `recovered ...`.")
    if found.set_aside:
        warn(f"{found.set_aside} masks belong to no case that is known; they lie in the folder unassigned.")
    for file, reason in found.refused:
        warn(f"{file}: {reason}")
    if found.refused:
        raise typer.Exit(EXIT_INCOMPLETE)
