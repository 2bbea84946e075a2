"""What is dropped as no lesion, measured on real nodules."""

import numpy as np
import pytest

from lungseg.recipes.scenes.corpus import read_nodules
from lungseg.scans.geometry import Grid
from lungseg.segmentation.postprocessing import LesionRule
from tests.phantoms import map_of
from tests.training_data import NODULES

SLICE_MM = 3


@pytest.mark.shared_data
def test_hardly_any_real_nodule_is_too_flat(shared_data):
    grid_of = np.diag([1.0, 1.0, SLICE_MM, 1.0])
    whole = [nodule for nodule in read_nodules(shared_data / NODULES) if nodule.mask[::SLICE_MM].any()]
    dropped = 0
    for nodule in whole:
        mask = nodule.mask[::SLICE_MM].transpose(2, 1, 0).astype(bool)
        probability = map_of(mask * np.uint8(255), Grid(mask.shape, grid_of))
        dropped += not LesionRule(0.5, 0.0).apply(probability).mask.any()
    assert len(whole) > 900
    assert dropped / len(whole) < 0.005
