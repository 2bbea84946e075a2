"""What is dropped as no lesion, measured on real nodules."""

import numpy as np
import pytest

from lungseg.recipes.scenes.corpus import NODULES, read_nodules
from lungseg.scans.volume import Grid
from lungseg.segmentation.plausibility import drop_implausible

SLICE_MM = 3


@pytest.mark.shared_data
def test_hardly_any_real_nodule_is_too_flat(shared_data):
    grid_of = np.diag([1.0, 1.0, SLICE_MM, 1.0])
    whole = [nodule for nodule in read_nodules(shared_data / NODULES) if nodule.mask[::SLICE_MM].any()]
    dropped = 0
    for nodule in whole:
        mask = nodule.mask[::SLICE_MM].transpose(2, 1, 0).astype(bool)
        drop_implausible(mask, Grid(mask.shape, grid_of), 0.0)
        dropped += not mask.any()
    assert len(whole) > 900
    assert dropped / len(whole) < 0.005
