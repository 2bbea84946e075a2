"""One rule makes lesions of probabilities: whoever asks gets the same ones, and they are those of the definition."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import find_objects, label
from torch import nn

from lungseg.dataset.layout import CaseFiles
from lungseg.evaluation.evaluate import outline_case
from lungseg.evaluation.metrics import dice, match_lesions
from lungseg.recipes.scenes.corpus import CorpusScan, TrainingCorpus
from lungseg.recipes.scenes.validation import Predictions, Validation
from lungseg.records.operating_points import LesionCalibration
from lungseg.scans.canvas import Preprocessing, to_display
from lungseg.scans.formats import read_mask, read_volume
from lungseg.scans.geometry import Grid
from lungseg.segmentation.card import ModelCard, NetworkShape
from lungseg.segmentation.pipeline import segment_scan
from lungseg.segmentation.postprocessing import LesionRule
from lungseg.segmentation.probability_io import read_map, write_map
from lungseg.segmentation.segmenter import Segmenter
from tests.phantoms import LUNG_HU, SHAPE, SPACING_MM, chest, map_of, ras_affine, write_nifti

GRID = Grid((23, 17, 11), np.diag([1.5, 1.2, 4.0, 1.0]))
CPU = torch.device("cpu")
ANY_CORNER = np.ones((3, 3, 3))
CALIBRATION = LesionCalibration(-1.0, 0.9, 0.4)
THRESHOLD, MIN_ML, DOUBTFUL_BELOW = 0.4, 0.5, 0.5

shares = st.floats(0.0, 1.0)
rules = st.builds(
    LesionRule,
    threshold=st.floats(0.1, 0.9),
    min_lesion_ml=st.floats(0.0, 0.3),
    calibration=st.none() | st.just(CALIBRATION),
    doubtful_below=st.none() | shares,
    min_flatness=st.floats(0.0, 1.5),
)
bumps = st.lists(st.tuples(shares, shares, shares, st.floats(2.0, 12.0), st.floats(0.3, 3.0)), min_size=1, max_size=6)


def levels_of(places):
    """Draw bumps of any size, some as flat as a slice, some cut by an end: (I, J, K) uint8."""
    axes = [np.arange(n) * mm for n, mm in zip(GRID.shape, GRID.spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    levels = np.zeros(GRID.shape)
    for *at, radius_mm, flat in places:
        i, j, k = (share * axis[-1] for share, axis in zip(at, axes, strict=True))
        distance = np.sqrt((x - i) ** 2 + (y - j) ** 2 + (flat * (z - k)) ** 2)
        levels = np.maximum(levels, 255 * np.clip(1.4 - distance / radius_mm, 0, 1))
    return levels.astype(np.uint8)


def defined(levels, rule):
    """Find lesions as the definition says it, slowly: voxels, probability, whether it is doubtful; sorted."""
    labels, _ = label(levels >= max(1, math.ceil(rule.threshold * 255 - 1e-6)), ANY_CORNER)
    lesions = []
    for number, box in enumerate(find_objects(labels), start=1):
        values = np.sort(levels[labels == number])
        voxels, slices = len(values), box[2].stop - box[2].start
        ends = (box[2].start == 0) + (box[2].stop == GRID.shape[2])
        diameter_mm = 2 * math.sqrt(voxels / slices * 1.5 * 1.2 / math.pi)
        height_mm = (slices * (2 if ends else 1) + 1) * 4.0
        is_flat = ends < 2 and height_mm < rule.min_flatness * diameter_mm
        if voxels * GRID.voxel_ml * (2 if ends else 1) < rule.min_lesion_ml or (is_flat and not ends):
            continue
        probability, improbable = values.mean() / 255, False
        if rule.calibration:
            evidence = values[math.ceil(0.9 * voxels) - 1] / 255
            probability = rule.calibration.probability(evidence, voxels * GRID.voxel_ml)
            improbable = rule.doubtful_below is not None and probability < rule.doubtful_below
        lesions.append((voxels, round(float(probability), 9), bool(is_flat or improbable)))
    return sorted(lesions)


def told(segmented):
    lesions = (*segmented.lesions, *segmented.doubtful)
    voxels = [round(each.volume_ml / segmented.probability.grid.voxel_ml) for each in lesions]
    return sorted(
        (count, round(each.probability, 9), each.is_doubtful) for count, each in zip(voxels, lesions, strict=True)
    )


@given(bumps, rules)
@settings(max_examples=150, deadline=None)
def test_lesions_are_those_of_the_definition(places, rule):
    levels = levels_of(places)
    assert told(rule.apply(map_of(levels, GRID))) == defined(levels, rule)


@given(bumps, rules, st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None)
def test_calibration_is_fitted_to_what_probabilities_are_made_of(places, rule, threshold):
    probability = map_of(levels_of(places), GRID)
    rule = replace(rule, calibration=CALIBRATION, doubtful_below=None)
    reference = np.zeros(GRID.shape, bool)
    reference[:12] = True
    lesions = rule.apply(probability, threshold).lesions
    evidence = rule.evidence(probability, reference, threshold)
    made = sorted(CALIBRATION.probability(each.evidence, each.volume_ml) for each in evidence)
    assert made == sorted(lesion.probability for lesion in lesions)


@given(bumps, rules, st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_a_map_that_was_kept_gives_the_same_lesions_at_any_threshold(tmp_path_factory, places, rule, threshold):
    probability = map_of(levels_of(places), GRID)
    path = tmp_path_factory.mktemp("maps") / "map.npz"
    write_map(probability, path)
    now, later = (rule.apply(each, threshold) for each in (probability, read_map(path)))
    np.testing.assert_array_equal(now.labels, later.labels)
    assert (now.lesions, now.doubtful) == (later.lesions, later.doubtful)


class Density(nn.Module):
    """A network whose probability grows with the density of the middle slice: one half at 150 HU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, 1:2] * 3071 - 150) / 40


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(
        Density(),
        ModelCard(
            name="density", preset="test", network=NetworkShape(width=4, depth=2, channels=3),
            preprocessing=Preprocessing(channels=3), threshold=THRESHOLD, min_lesion_ml=MIN_ML, sha256="0" * 64,
            intended_use="tests", calibration=CALIBRATION, doubtful_below=DOUBTFUL_BELOW,
        ),
        CPU,
    )  # fmt: skip


def write_scan(folder, places):
    """Write a chest with spots of any density in its lungs, and a reference mask that holds some of them."""
    hu, lesion = chest(lesion_hu=300)
    lungs = hu == LUNG_HU
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(SHAPE, SPACING_MM, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    for right, front, up, radius_mm, flat in places:
        i, j, k = (55 if right > 0.5 else -55), 60 * (front - 0.5), 140 * (up - 0.5)
        distance = np.sqrt((x - i) ** 2 + (y - j) ** 2 + (flat * (z - k)) ** 2)
        hu[lungs & (distance < 2 * radius_mm)] = int(100 + 150 * front)
    write_nifti(folder / "scan.nii.gz", hu, ras_affine(), "LPS")
    write_nifti(folder / "reference.nii.gz", lesion.astype(np.uint8), ras_affine(), "LPS")
    return CaseFiles("case", "case", folder / "scan.nii.gz", folder / "reference.nii.gz")


@given(bumps)
@settings(max_examples=6, deadline=None)
def test_inference_evaluation_validation_and_calibration_agree(tmp_path_factory, segmenter, places):
    folder = tmp_path_factory.mktemp("case")
    case = write_scan(folder, places)
    answers = []
    result = segment_scan(case.scan, folder / "mask.nii.gz", segmenter, on_result=lambda _, it: answers.append(it))
    (segmented,) = answers
    volume, rule = read_volume(case.scan), segmenter.card.rule
    reference = read_mask(case.mask, volume.grid)
    assert (result.lesions, result.doubtful) == (segmented.lesions, segmented.doubtful)
    np.testing.assert_array_equal(read_mask(folder / "mask.nii.gz", volume.grid), segmented.mask)

    evaluated = outline_case(case, segmenter)
    np.testing.assert_array_equal(evaluated.mask, segmented.mask)
    assert evaluated.score.dice == dice(segmented.mask, reference)

    validated = Validation(corpus_of(volume, reference), segmenter.card, CPU).measure(
        Predictions((), (segmenter.predict(volume),)), rule
    )
    match = match_lesions(segmented.mask, reference)
    assert validated.cases[0].dice == evaluated.score.dice
    assert validated.cases[0].predicted_ml == pytest.approx(sum(each.volume_ml for each in result.lesions))
    assert (validated.cases[0].lesions_found, validated.cases[0].false_lesions) == (match.found, match.false)

    fitted = rule.evidence(segmented.probability, reference)
    made = {rule.calibration.probability(each.evidence, each.volume_ml) for each in fitted}
    assert made >= {each.probability for each in result.lesions}


def corpus_of(volume, reference):
    """Return a scan as whole scans of the corpus are; of what is pasted and sampled nothing is looked at here."""
    hu, tumour = (
        np.stack([to_display(each[:, :, k]) for k in range(SHAPE[2])])
        for each in (volume.hu, reference.astype(np.uint8))
    )
    nowhere, usable = np.zeros((0, 3), np.int32), np.ones(SHAPE[2], bool)
    points = dict.fromkeys(("lung", "wall", "chest", "tissue", "lesion"), nowhere)
    scan = CorpusScan("case", "case", hu, tumour, tumour, tumour, usable, **points, grid=volume.grid)
    return TrainingCorpus((scan,), (), ())
