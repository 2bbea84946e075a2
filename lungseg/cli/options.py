"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungseg.config import Device

CheckpointOption = Annotated[
    str | None, typer.Option(help="Name in models/ or path of a .safetensors file; default: the shipped one.")
]
TumourClassOption = Annotated[
    str | None,
    typer.Option(
        "--tumour-class",
        help="Class of the masks that is tumour: its name in dataset.json or its value; several with commas between. "
        "Default: the class whose name says so.",
        metavar="CLASS",
    ),
]
DataSetArgument = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Data set folder or slice store.", show_default=False)
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes at once; default: by processors and memory.")]
DeviceOption = Annotated[Device | None, typer.Option(help="Where the network runs; default: LUNGSEG_DEVICE.")]
