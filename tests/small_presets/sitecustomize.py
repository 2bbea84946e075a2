"""Found by child processes of tests through PYTHONPATH: presets that learn phantoms in seconds."""

from dataclasses import replace

from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.card import NetworkShape
from lungseg.training import presets

SMALL = presets.SlicePreset(
    name="small",
    summary="For tests.",
    network=NetworkShape(width=4, depth=2, channels=1),
    preprocessing=Preprocessing(),
    schedule=presets.OptimisationConfig(epochs=4, batch=4, steps=6, learning_rate=1e-3, ema=0.9),
    skip_slices=0,
)
DIVERGING = replace(
    SMALL, name="diverging", schedule=replace(SMALL.schedule, learning_rate=1e38, warm_up=0.5, ema=None)
)
NEIGHBOURS = presets.PRESETS["neighbours"]
BRIEF = replace(NEIGHBOURS, name="brief", schedule=replace(NEIGHBOURS.schedule, steps=4))
presets.PRESETS.update({preset.name: preset for preset in (SMALL, DIVERGING, BRIEF)})
