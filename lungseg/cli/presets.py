"""`lungseg presets`: what there is to train with, and the file of a preset to copy and change."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lungseg.cli.console import err, out
from lungseg.config import Settings


def presets(
    show: Annotated[
        str | None, typer.Option(help="Print the file of this preset, to be copied and changed.", metavar="NAME")
    ] = None,
) -> None:
    """List the presets that ship and those of this installation."""
    from lungseg.errors import LungSegError
    from lungseg.files import keys
    from lungseg.services.file_store import files_of
    from lungseg.training.presets.files import find_preset, preset_paths

    folder = files_of(Settings.from_environment()).local(keys.PRESETS)
    if show is not None:
        find_preset(show, folder)
        typer.echo(preset_paths(folder)[show].read_text(encoding="utf-8"), nl=False)
        return
    table = Table("preset", "what it does", "epochs", "batch")
    for name in preset_paths(folder):
        try:
            preset = find_preset(name, folder)
        except LungSegError as error:
            err.print(Text(str(error)))
            continue
        numbers = preset.optimisation
        table.add_row(Text(name), Text(preset.summary), str(numbers.epochs), str(numbers.batch))
    out.print(table)
