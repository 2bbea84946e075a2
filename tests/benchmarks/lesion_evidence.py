"""How the evidence for lesions changed with its definition: `python -m tests.benchmarks.lesion_evidence`.

Before, lesions of nodules had no smallest size and a 90th percentile that was interpolated; lesions of scans had the
smallest size of the card and a percentile by nearest rank. Now both are those of `LesionRule`.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from lungseg.config import CHECKOUT, SHIPPED_CHECKPOINT
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.corpus import read_crops
from lungseg.recipes.scenes.operating_point import EVIDENCE_FROM
from lungseg.scans.components import numbered
from lungseg.segmentation.calibration import LesionEvidence
from lungseg.segmentation.postprocessing import UINT8_ONE, to_uint8_level
from lungseg.segmentation.segmenter import Segmenter


def evidence_before(crop, probability):
    labels, count = numbered(probability.canvases >= to_uint8_level(EVIDENCE_FROM))
    voxel_ml = np.prod(crop.spacing_mm) / 1000
    for inside in (labels == number for number in range(1, count + 1)):
        if crop.consensus[inside].any() or not crop.uncertain[inside].any():
            share = float(np.percentile(probability.canvases[inside], 90)) / UINT8_ONE
            yield LesionEvidence(int(inside.sum()) * voxel_ml, share, bool(crop.consensus[inside].any()))


def told(name, lesions):
    evidence, volumes = ([getattr(each, field) for each in lesions] for field in ("evidence", "volume_ml"))
    sys.stdout.write(
        f"{name}: {len(lesions)} lesions, {sum(each.is_true for each in lesions)} true, "
        f"evidence {np.mean(evidence):.3f} in the mean, {np.median(volumes):.2f} ml in the median\n"
    )


def main(
    data: Annotated[Path, typer.Option(help="Crops of nodules.")] = CHECKOUT.parent / "shared/data/lidc_slices",
    checkpoint: Annotated[str, typer.Option(help="Name in models/.")] = SHIPPED_CHECKPOINT,
):
    """Say how many lesions of the nodules held out and tested count as evidence, and what speaks for them."""
    segmenter = Segmenter.load(checkpoint, models=CHECKOUT / "models", device="cpu")
    card, crops = segmenter.card, tuple(read_crops(data))
    for name in ("held_out_patients", "tested_patients"):
        chosen = [crop for crop in crops if crop.patient in getattr(card.training, name)]
        pairs = list(zip(chosen, nodules.predict(segmenter, chosen), strict=True))
        told(f"{name}, before", [each for pair in pairs for each in evidence_before(*pair)])
        told(f"{name}, now", [each for pair in pairs for each in nodules.evidence(*pair, card.rule, EVIDENCE_FROM)])


if __name__ == "__main__":
    typer.run(main)
