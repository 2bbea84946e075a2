"""Slices as they are shown: which, how often, how bent, and the same whichever process makes them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lungseg.dataset.layout import open_data_set
from lungseg.dataset.store import prepare
from lungseg.errors import DataSetError, TrainingError
from lungseg.training.augmentation import Augmentation
from lungseg.training.batches import Batch, load
from lungseg.training.presets import SlicePreset, SpatialAugmentation
from lungseg.training.presets.files import find_preset
from lungseg.training.slices import SliceBatches, SliceTable, first_slice, read_slice
from tests.data_sets import write_data_set
from tests.narrowing import of_type

BASELINE, NEIGHBOURS = (of_type(SlicePreset, find_preset(name)) for name in ("baseline", "neighbours"))
NO_WARP = SpatialAugmentation(scale=(1.0, 1.0), rotation_degrees=(0.0, 0.0), elastic_px=(0.0, 0.0))


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slices")
    return prepare(open_data_set(write_data_set(folder / "data", cases=2)), folder / "store", workers=1).cases


@pytest.fixture(scope="module")
def table(cases):
    return SliceTable.of(cases, BASELINE.skip_slices)


def disc(centre, radius, shape=(120, 160)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2


@pytest.fixture
def marked():
    """A bright ellipse off the middle of a slice that is not square, and its mask."""
    tumour = disc((40, 100), 14).astype(np.uint8)
    return np.where(tumour, 0.01, -0.28).astype(np.float32)[..., None], tumour


def bend(augmentation, draw, planes, tumour):
    """Bend a batch of one."""
    (bent,), (bent_tumour,) = augmentation.apply(draw, [planes], [tumour])
    return bent, bent_tumour


def agreement(planes, tumour):
    """Dice of what is bright in a slice and its mask."""
    bright = planes[..., 0] > -0.13
    return 2 * np.sum(bright & (tumour == 1)) / (bright.sum() + tumour.sum())


def test_baseline_is_the_method_of_the_prototype():
    assert (BASELINE.network.width, BASELINE.network.depth, BASELINE.network.channels) == (64, 4, 1)
    assert (BASELINE.preprocessing.hu_scale, BASELINE.preprocessing.size) == (3071.0, 256)
    config = BASELINE.optimisation
    assert (config.optimiser, config.learning_rate, config.batch, config.epochs) == ("adam", 1e-4, 8, 30)
    assert (config.dice, config.ema, config.decay, config.weight_decay) == (0.0, None, "none", 0.0)
    assert (BASELINE.augmentation.scale, BASELINE.augmentation.rotation_degrees) == ((0.85, 1.15), (-45.0, 45.0))
    assert BASELINE.skip_slices == 30


def test_mask_is_bent_with_its_slice(marked):
    augmentation = Augmentation(SpatialAugmentation(), padding=-0.33)
    for seed in range(20):
        draw = augmentation.draw(np.random.default_rng(seed))
        planes, tumour = bend(augmentation, draw, *marked)
        assert planes.dtype == np.float32
        assert set(np.unique(tumour)) <= {0, 1}
        assert agreement(planes, tumour) > 0.93, seed


def test_slices_of_a_batch_are_bent_each_in_its_own_way(marked):
    """All 32 that imgaug bends by one noise field, and one more; masks without tumour among them."""
    planes, tumour = marked
    masks = [tumour if n % 3 else np.zeros_like(tumour) for n in range(33)]
    bent, bent_masks = Augmentation(SpatialAugmentation(), padding=-0.33).apply(8, [planes] * 33, masks)
    assert len({one.tobytes() for one in bent}) == 33
    for n, (one, mask) in enumerate(zip(bent, bent_masks, strict=True)):
        assert (mask.dtype, mask.shape) == (np.dtype(np.uint8), tumour.shape)
        assert agreement(one, mask) > 0.93 if n % 3 else not mask.any()


def test_channels_are_bent_alike(marked):
    planes, tumour = marked
    augmentation = Augmentation(SpatialAugmentation(), padding=-0.33)
    bent, _ = bend(augmentation, 5, np.repeat(planes, 3, axis=2), tumour)
    alone, _ = bend(augmentation, 5, planes, tumour)
    for channel in range(3):
        np.testing.assert_array_equal(bent[..., channel], alone[..., 0])


def test_draw_decides_everything_and_is_told_by_the_generator_alone(marked):
    augmentation, other = (
        Augmentation(SpatialAugmentation(), padding=-0.33),
        Augmentation(SpatialAugmentation(), padding=-0.33),
    )
    bend(other, 99, *marked)  # what was applied before does not matter
    np.random.seed(7)  # noqa: NPY002 - nor what the global generator does
    draws = [one.draw(np.random.default_rng(3)) for one in (augmentation, other)]
    assert draws[0] == draws[1]
    for first, second in zip(bend(augmentation, draws[0], *marked), bend(other, draws[1], *marked), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(bend(augmentation, draws[0] + 1, *marked)[0], bend(augmentation, draws[0], *marked)[0])


def test_slice_is_bent_the_same_with_and_without_tumour(marked):
    planes, tumour = marked
    augmentation = Augmentation(SpatialAugmentation(), padding=-0.33)
    with_tumour, _ = bend(augmentation, 11, planes, tumour)
    without, empty = bend(augmentation, 11, planes, np.zeros_like(tumour))
    np.testing.assert_array_equal(with_tumour, without)
    assert not empty.any()


def test_size_and_turn_keep_to_their_ranges():
    """The moments of a bar off the middle tell by how much it was turned and scaled."""
    bar = np.zeros((160, 160), np.uint8)
    bar[76:84, 40:120] = 1
    augmentation = Augmentation(replace(SpatialAugmentation(), elastic_px=(0.0, 0.0)), padding=-0.33)
    angles, scales = [], []
    for seed in range(200):
        _, bent = bend(augmentation, seed, bar.astype(np.float32)[..., None], bar)
        rows, columns = np.nonzero(bent)
        moments = np.cov(np.stack([columns, rows]))
        angles.append(math.degrees(math.atan2(2 * moments[0, 1], moments[0, 0] - moments[1, 1]) / 2))
        scales.append(math.sqrt(bent.sum() / bar.sum()))
    assert max(map(abs, angles)) <= 46
    assert min(angles) < -38
    assert max(angles) > 38
    assert 0.83 < min(scales) < 0.88
    assert 1.12 < max(scales) < 1.17


def test_what_comes_in_from_outside_is_air():
    planes = np.zeros((64, 96, 1), np.float32)
    augmentation = Augmentation(
        replace(SpatialAugmentation(), scale=(0.85, 0.85), elastic_px=(0.0, 0.0)), padding=-0.33
    )
    bent, _ = bend(augmentation, 3, planes, np.zeros((64, 96), np.uint8))
    np.testing.assert_allclose(bent[[0, 0, -1, -1], [0, -1, 0, -1], 0], -0.33, atol=1e-6)


def test_weight_is_the_ratio_and_gives_tumour_half_of_what_is_shown(cases, table):
    with_tumour = sum(px > 0 for case in cases for px in case.slice_tumour_px)
    assert int(table.has_tumour.sum()) == with_tumour
    assert table.positive_weight == (len(table) - with_tumour) / with_tumour
    assert table.tumour_share == pytest.approx(0.5)
    drawn = np.concatenate([table.draw(seed=1, epoch=epoch) for epoch in range(60)])
    assert table.has_tumour[drawn].mean() == pytest.approx(0.5, abs=0.03)  # 3,000 draws: 0.009 is one deviation
    assert len(table.draw(seed=1, epoch=1)) == len(table)


def test_what_an_epoch_draws_depends_on_seed_and_epoch(table):
    np.testing.assert_array_equal(table.draw(1, 2), table.draw(1, 2))
    assert not np.array_equal(table.draw(1, 2), table.draw(1, 3))
    assert not np.array_equal(table.draw(1, 2), table.draw(2, 2))


@pytest.mark.parametrize(
    ("depth", "tumour_at", "expected"),
    [(200, 120, 30), (200, 17, 17), (60, 50, 20), (200, None, 30), (2, 1, 0)],
    ids=["as told", "tumour below", "short scan", "no tumour", "two slices"],
)
def test_first_slices_are_left_out_as_long_as_they_hold_no_tumour(depth, tumour_at, expected):
    counts = [0] * depth
    if tumour_at is not None:
        counts[tumour_at] = 5
    assert first_slice(counts, 30) == expected


def test_cases_without_tumour_are_refused(cases):
    empty = [replace(case, slice_tumour_px=(0,) * len(case.slice_tumour_px)) for case in cases]
    with pytest.raises(DataSetError, match="holds tumour"):
        SliceTable.of(empty)


def test_only_tumour_slices_are_drawn_evenly(cases):
    full = [replace(case, slice_tumour_px=(9,) * len(case.slice_tumour_px)) for case in cases]
    table = SliceTable.of(full)
    assert (table.positive_weight, table.tumour_share) == (1.0, 1.0)


def test_slice_is_that_of_inference(cases):
    """What is trained on is what `Preprocessing.slice_stack` gives, to half a HU."""
    from lungseg.scans import formats

    for preset in (BASELINE, NEIGHBOURS):
        stack = preset.preprocessing.slice_stack(formats.read_volume(cases[0].pair.scan), 0, 40)
        for k in (0, 21, 24, 39):
            planes = read_slice(cases[0], k, preset.preprocessing).transpose(2, 0, 1)
            np.testing.assert_allclose(planes, stack[k], atol=0.51 / preset.preprocessing.hu_scale + 1e-6)


def test_batch_holds_slices_and_masks_of_the_drawn_rows(cases, table):
    preset = replace(NEIGHBOURS, augmentation=NO_WARP)
    batches = SliceBatches(cases, table, preset, seed=4, epoch=1)
    batch = batches[0]
    assert batch.planes.shape == (8, 3, 256, 256)
    assert batch.tumour.shape == (8, 1, 256, 256)
    assert batch.tumour.dtype == torch.uint8
    for item, row in enumerate(table.draw(4, 1)[:8]):
        case, k = cases[table.case[row]], int(table.k[row])
        np.testing.assert_array_equal(batch.tumour[item, 0].numpy(), case.tumour[k])
        middle = preset.preprocessing.scale(case.hu[k])
        np.testing.assert_allclose(batch.planes[item, 1].numpy(), middle, atol=1e-6)
    assert sum(len(batch) for batch in load(batches, 0)) == len(table)


def test_batches_are_the_same_whoever_makes_them(cases, table):
    batches = SliceBatches(cases, table, BASELINE, seed=4, epoch=2)
    here, elsewhere = ([(b.planes, b.tumour) for b in load(batches, processes)] for processes in (0, 2))
    for (planes, tumour), (other_planes, other_tumour) in zip(here, elsewhere, strict=True):
        assert planes.equal(other_planes)
        assert tumour.equal(other_tumour)
    again = SliceBatches(cases, table, BASELINE, seed=4, epoch=2)[3]
    assert again.planes.equal(here[3][0])


class Vanishing:
    """Batches whose data are gone, as when a disk is unmounted; and ones whose process is killed."""

    def __init__(self, end):
        self.end = end

    def __len__(self):
        return 3

    def __getitem__(self, n):
        if n == 1:
            self.end()
        return Batch(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))


def vanish():
    raise DataSetError("lung_001.hu.npy can't be read.", "Prepare again.")


@pytest.mark.parametrize("processes", [0, 1])
def test_data_that_disappear_are_told_as_what_they_are(processes):
    with pytest.raises(DataSetError, match=r"lung_001.hu.npy can't be read\. Prepare again"):
        list(load(Vanishing(vanish), processes))


def test_killed_process_is_told():
    import os
    import signal

    with pytest.raises(TrainingError, match="makes batches was killed"):
        list(load(Vanishing(lambda: os.kill(os.getpid(), signal.SIGKILL)), 1))


def test_store_that_is_gone_says_so(cases, table, tmp_path):
    gone = [replace(case, folder=tmp_path) for case in cases]
    with pytest.raises(DataSetError, match="can't be read"):
        SliceBatches(gone, table, BASELINE, seed=1, epoch=1)[0]
