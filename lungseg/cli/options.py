"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from lungseg.config import Device

CheckpointOption = Annotated[
    str | None, typer.Option(help="Name in models/ or path of a .safetensors file; default: the shipped one.")
]
DeviceOption = Annotated[Device | None, typer.Option(help="Where the network runs; default: LUNGSEG_DEVICE.")]
