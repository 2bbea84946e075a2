"""The segmenter and the whole way of one scan, with a network that finds dense spots."""

import numpy as np
import pytest
import torch
from torch import nn

from lungseg.errors import CheckpointError, NoLungError, RunCancelledError
from lungseg.evaluation.metrics import dice
from lungseg.records.run_states import Progress
from lungseg.scans import formats
from lungseg.scans.canvas import Preprocessing
from lungseg.scans.geometry import Grid
from lungseg.scans.overlay import MASK_RGB, draw_thumbnail, write_png
from lungseg.scans.volume import Volume
from lungseg.segmentation import pipeline
from lungseg.segmentation.card import ModelCard, NetworkShape
from lungseg.segmentation.checkpoint import save_checkpoint
from lungseg.segmentation.segmenter import Segmenter
from lungseg.segmentation.unet import UNet
from tests.narrowing import existing
from tests.phantoms import chest, ras_affine, write_chest, write_nifti
from tests.scan_files import load_nifti

SHAPE = NetworkShape(width=4, depth=2, channels=3)
CPU = torch.device("cpu")


class BrightSpots(nn.Module):
    """Logit above zero where the middle slice is denser than any soft tissue: the phantom's lesion of 300 HU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 1:2] * 3071 > 150, 8.0, -8.0)


def card(**changes):
    fields = {
        "name": "spots", "preset": "test", "network": SHAPE, "preprocessing": Preprocessing(channels=3),
        "threshold": 0.5, "min_lesion_ml": 3.0, "sha256": "0" * 64, "intended_use": "tests",
    }  # fmt: skip
    return ModelCard(**{**fields, **changes})


@pytest.fixture
def spots():
    return Segmenter(BrightSpots(), card(), CPU)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL"])
def test_scan_in_any_axis_order_gets_its_mask_on_its_own_grid(tmp_path, spots, codes):
    scan, mask = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    lesion = write_chest(scan, codes, lesion_hu=300)
    result = pipeline.segment_scan(scan, mask, spots)
    volume = formats.read_volume(scan)
    assert dice(formats.read_mask(mask, volume.grid), lesion) > 0.85
    assert load_nifti(mask).shape == load_nifti(scan).shape
    assert result.orientation == codes
    largest = result.lesions[0]
    x, y, z = largest.centre_mm
    assert np.allclose((x, y, z), volume.grid.mm_of((66, 44, 22)), atol=4.0)
    assert largest.volume_ml == pytest.approx(lesion.sum() * volume.grid.voxel_ml, rel=0.3)
    assert result.slice_voxels[22] > 0
    assert result.report()["checkpoint"] == "spots"


def test_progress_names_every_stage_and_ends_complete(tmp_path, spots):
    write_chest(tmp_path / "scan.nii")
    steps: list[Progress] = []
    pipeline.segment_scan(tmp_path / "scan.nii", tmp_path / "mask.nii", spots, on_progress=steps.append)
    assert list(dict.fromkeys(step.stage for step in steps)) == ["reading", "segmenting", "measuring", "writing"]
    last = [step for step in steps if step.stage == "segmenting"][-1]
    assert last.fraction == 1.0
    assert last.left_s == 0.0


def test_stopping_between_batches_writes_nothing(tmp_path, spots):
    write_chest(tmp_path / "scan.nii")
    asked = iter([False, True])
    with pytest.raises(RunCancelledError, match="slice 8"):
        pipeline.segment_scan(tmp_path / "scan.nii", tmp_path / "mask.nii", spots, should_stop=lambda: next(asked))
    assert not (tmp_path / "mask.nii").exists()


def test_scan_without_lung_is_refused_before_the_network_runs(tmp_path, spots):
    hu, _ = chest()
    hu[hu == -850] = 40
    write_nifti(tmp_path / "scan.nii", hu, ras_affine())
    with pytest.raises(NoLungError):
        pipeline.segment_scan(tmp_path / "scan.nii", tmp_path / "mask.nii", spots)


def test_thick_slices_are_warned_of(tmp_path, spots):
    write_chest(tmp_path / "scan.nii")
    result = pipeline.segment_scan(tmp_path / "scan.nii", tmp_path / "mask.nii", spots)
    assert any("6.0 mm apart" in warning for warning in result.warnings)


def test_number_types_agree(tmp_path):
    """No probability may hang on the number type by more than 2 of 255 (bf16 has 8 bits of mantissa)."""
    torch.manual_seed(3)
    network = UNet(SHAPE)
    network.head.weight.data *= 16
    write_chest(tmp_path / "scan.nii")
    volume = formats.read_volume(tmp_path / "scan.nii")
    exact, half = (
        Segmenter(network, card(), CPU, dtype).predict(volume).canvases for dtype in (torch.float32, torch.bfloat16)
    )
    assert len(np.unique(exact)) > 1
    assert np.abs(exact.astype(int) - half).max() <= 2


def test_folded_batch_norm_gives_the_network_that_was_saved(tmp_path):
    torch.manual_seed(4)
    network = UNet(SHAPE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            existing(module.running_mean).normal_()
            existing(module.running_var).uniform_(0.5, 2.0)
    save_checkpoint(network, card(name="random"), tmp_path)
    write_chest(tmp_path / "scan.nii")
    volume = formats.read_volume(tmp_path / "scan.nii")
    segmenter = Segmenter.load("random", models=tmp_path, device="cpu")
    segmenter.dtype = torch.float32
    found = segmenter.predict(volume).canvases[22]
    network.eval()
    stack = torch.from_numpy(segmenter.card.preprocessing.slice_stack(volume, 22, 23))
    with torch.inference_mode():
        expected = (torch.sigmoid(network(stack))[0, 0] * 255).round().numpy()
    middle = slice(112, 144)
    assert np.abs(found[middle, middle].astype(int) - expected[middle, middle]).max() <= 1


class Steep(nn.Module):
    """The sum of a thousand thousands: beyond the range of fp16, within that of float32."""

    def __init__(self, share):
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.convolution.weight, 1000.0)
        self.share = share

    def forward(self, x):
        return (self.convolution(x) * 1000.0) * self.share


def test_what_leaves_the_range_of_half_precision_is_computed_in_single_precision():
    stack = np.full((2, 3, 16, 16), 1.0, np.float32)
    assert (Segmenter(Steep(1.0), card(), CPU, torch.float16).predict_slices(stack) == 255).all()
    with pytest.raises(CheckpointError, match="not finite"):
        Segmenter(Steep(float("inf")), card(), CPU).predict_slices(0 * stack)


def test_network_that_is_handed_in_stays_as_it_is():
    network = UNet(SHAPE).train()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    Segmenter(network, card(), CPU)
    assert network.training
    assert list(network.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_thumbnail_shows_the_slice_with_most_mask_voxels():
    volume = Volume(np.full((40, 40, 6), -800, np.int16), Grid((40, 40, 6), np.diag([1.0, 1.0, 2.0, 1.0])))
    mask = np.zeros((40, 40, 6), dtype=np.bool_)
    mask[20, 4:36, 1] = True  # 32 voxels in one column
    mask[8:32, 12:28, 4] = True  # 384
    most = draw_thumbnail(volume, mask)
    mask[:, :, 1] = False
    np.testing.assert_array_equal(draw_thumbnail(volume, mask), most)


def test_thumbnail_shows_the_lesion_in_its_colour(tmp_path):
    lesion = write_chest(tmp_path / "scan.nii")
    volume = formats.read_volume(tmp_path / "scan.nii")
    picture = draw_thumbnail(volume, lesion)
    assert picture.shape == (192, 192, 3)
    coloured = (picture == MASK_RGB).all(axis=-1)
    columns = np.flatnonzero(coloured.any(axis=0))
    # the lesion lies in the right lung: on the left of a hung film
    assert coloured.any()
    assert columns.max() < 96
    assert not (draw_thumbnail(volume, np.zeros_like(lesion)) == MASK_RGB).all(axis=-1).any()
    write_png(tmp_path / "pictures" / "case.png", picture)
    assert (tmp_path / "pictures" / "case.png").read_bytes().startswith(b"\x89PNG")
