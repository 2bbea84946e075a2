"""`lungseg average`: one checkpoint whose weights are the means of those of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungseg.cli.console import show_written


def average(
    weights: Annotated[
        list[Path],
        typer.Argument(help="The .safetensors files; the card of the first is taken over.", show_default=False),
    ],
    name: Annotated[str, typer.Option(help="Name of the new checkpoint.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write it to.", show_default=False)],
) -> None:
    """Average the weights of runs that began alike and ended with other data."""
    from lungseg.segmentation.average import average_checkpoints

    card = average_checkpoints(weights, name, output)
    show_written(output / f"{card.name}.safetensors", f": the mean of {len(weights)} checkpoints")
