"""`lungseg measure`: how quickly a preset learns on this machine; the page Training calls it before it estimates."""

from __future__ import annotations

from typing import Annotated

import typer

from lungseg.cli.console import out
from lungseg.config import Device, Settings


def measure(
    preset: Annotated[str, typer.Argument(help="The preset.")],
    batch: Annotated[int, typer.Option(min=1, help="Slices a step.")],
    device: Annotated[Device, typer.Option(help="Where the network learns.")] = "auto",
) -> None:
    """Take a few steps of training on noise, and keep their pace for estimates."""
    from lungseg.jobs.right_of_way import let_scans_go_first
    from lungseg.services.estimation import Throughput, keep_pace
    from lungseg.training.presets import find_preset
    from lungseg.training.throughput import measure_throughput

    let_scans_go_first()
    slices_per_s, memory_mb = measure_throughput(find_preset(preset), batch=batch, device=device)
    keep_pace(Settings.from_environment(), preset, batch, device, Throughput(slices_per_s, memory_mb))
    out.print(f"{slices_per_s:.1f} slices/s, {memory_mb:.0f} MB")
