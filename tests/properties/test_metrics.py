"""Scores against brute force and against MONAI's, on small random masks of every emptiness."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lungseg.evaluation.metrics import match_lesions, score_case, surface_distances
from lungseg.scans.geometry import Grid

SHAPE = (6, 5, 4)
FACES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))

dense_masks = st.builds(
    lambda seed, share: np.random.default_rng(seed).random(SHAPE) < share,
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]),
)
masks = dense_masks | arrays(bool, SHAPE, elements=st.booleans(), fill=st.just(value=False))
spacings_mm = st.tuples(*[st.floats(0.3, 5.0)] * 3)


def surface(mask):
    """Voxels of a mask with a face toward background or the outside, one by one."""

    def is_inside(voxel):
        return all(0 <= x < n for x, n in zip(voxel, mask.shape, strict=True)) and mask[tuple(voxel)]

    return [voxel for voxel in np.argwhere(mask) if not all(is_inside(voxel + step) for step in np.array(FACES))]


def components(mask):
    """Sets of voxels that share at least a corner, by growing each from a first voxel."""
    left, found = {tuple(voxel) for voxel in np.argwhere(mask).tolist()}, []
    while left:
        grown, edge = set(), {left.pop()}
        while edge:
            grown |= edge
            edge = {
                voxel
                for voxel in left
                if any(max(abs(x - y) for x, y in zip(voxel, at, strict=True)) == 1 for at in edge)
            }
            left -= edge
        found.append(grown)
    return found


@given(masks, masks, spacings_mm)
@settings(deadline=None, max_examples=60)
def test_surface_distances_are_those_of_brute_force(mask, reference, spacing_mm):
    grid = Grid(SHAPE, np.diag([*spacing_mm, 1.0]))
    ours, theirs = (np.array(surface(each)).reshape(-1, 3) * spacing_mm for each in (mask, reference))
    distances = surface_distances(mask, reference, grid)
    if not len(ours) or not len(theirs):
        assert distances.to_reference.size == distances.to_mask.size == 0
        return
    between = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    assert np.sort(distances.to_reference) == pytest.approx(np.sort(between.min(axis=1)))
    assert np.sort(distances.to_mask) == pytest.approx(np.sort(between.min(axis=0)))


@given(masks, masks)
@settings(deadline=None, max_examples=60)
def test_lesions_are_matched_as_by_brute_force(mask, reference):
    seen, known = components(mask), components(reference)
    match = match_lesions(mask, reference)
    assert match.reference == len(known)
    assert match.found == sum(any(lesion & other for other in seen) for lesion in known)
    assert match.false == sum(not any(lesion & other for other in known) for lesion in seen)


@given(masks, masks)
@settings(deadline=None, max_examples=60)
def test_scores_stay_in_their_ranges_and_do_not_mind_the_order(mask, reference):
    grid = Grid(SHAPE, np.diag([0.7, 0.8, 2.5, 1.0]))
    one, other = score_case("x", mask, reference, grid), score_case("x", reference, mask, grid)
    for name in ("dice", "hd95_mm", "nsd_2mm"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True)
    assert not one.dice < 0
    assert not one.dice > 1
    assert not one.nsd_2mm < 0
    assert not one.nsd_2mm > 1
    assert one.lesions_found <= one.lesions_reference


@pytest.fixture(scope="module")
def monai_metrics():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of parts of its own that are to go
        return pytest.importorskip("monai.metrics")


@pytest.mark.filterwarnings("ignore:monai:FutureWarning")
@pytest.mark.parametrize("seed", range(8))
def test_scores_are_those_of_monai(monai_metrics, seed):
    rng = np.random.default_rng(seed)
    spacing_mm = tuple(rng.uniform(0.5, 3.0, 3))
    grid = Grid((17, 13, 9), np.diag([*spacing_mm, 1.0]))
    blocks = [np.kron(rng.random((5, 4, 3)) < 0.3, np.ones((4, 4, 3)))[:17, :13, :9].astype(bool) for _ in range(2)]
    mask, reference = (torch.from_numpy(each)[None, None] for each in blocks)
    score = score_case("x", blocks[0], blocks[1], grid)
    hd95 = monai_metrics.compute_hausdorff_distance(
        mask, reference, include_background=True, percentile=95, spacing=spacing_mm
    )
    nsd = monai_metrics.compute_surface_dice(mask, reference, [2.0], include_background=True, spacing=spacing_mm)
    assert score.hd95_mm == pytest.approx(hd95.item(), rel=1e-5)
    assert score.nsd_2mm == pytest.approx(nsd.item(), rel=1e-5)
    assert score.dice == pytest.approx(monai_metrics.compute_dice(mask, reference).item(), rel=1e-5)
