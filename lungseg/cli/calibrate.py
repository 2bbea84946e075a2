"""`lungseg calibrate`: a checkpoint gets its operating point, its calibration and its scores from its folds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungseg.cli.console import err, out
from lungseg.cli.options import DeviceOption
from lungseg.cli.train import card_summary
from lungseg.config import Settings


def calibrate(
    weights: Annotated[Path, typer.Argument(help="The .safetensors file; its card is replaced.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder of the sources that it learned from.", show_default=False)],
    fold: Annotated[
        list[Path],
        typer.Option(help="A .safetensors file that held out a whole scan; once for each.", show_default=False),
    ],
    device: DeviceOption = None,
) -> None:
    """Choose where a checkpoint's probabilities become a mask, by folds that left a whole scan out each."""
    settings = Settings.from_environment()
    from lungseg.recipes.scenes.operating_point import calibrate_checkpoint
    from lungseg.segmentation.card import replace_card

    card = calibrate_checkpoint(weights, fold, data, device=device or settings.device)
    replace_card(weights, card)
    out.print(card_summary(card))
    err.print(f"{weights.with_suffix('.json')} replaced.", style="dim", soft_wrap=True)
