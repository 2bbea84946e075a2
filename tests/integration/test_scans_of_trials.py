"""The scans that trials had found to go wrong, made by `shared/cases/make_cases.py`: each comes out as it is right."""

import subprocess
import sys

import pytest

from lungseg.config import CHECKOUT
from lungseg.errors import NoLungError, NotNiftiError
from lungseg.records.findings import statement
from lungseg.segmentation.pipeline import segment_scan
from lungseg.segmentation.segmenter import Segmenter

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]

AS_PLAIN = {
    "q_only": set(),
    "quaternion_over_1": set(),
    "qfac_0": set(),
    "pixdim_negative": {"geometry.negative_spacing"},
    "dim4_zero": {"geometry.dimensions"},
    "metres": {"geometry.units"},
    "bytes_after_gzip": {"file.bytes_after"},
}
REFUSED = {
    "vox_offset_nan": (NotNiftiError, "header is damaged"),
    "gzip_in_gzip": (NotNiftiError, "gzipped twice"),
    "identity": (NoLungError, "that is no measurement"),
    "kji_identity": (NoLungError, "axes of the array are mixed up"),
    "sform_1mm_qform_right": (NoLungError, "two geometries"),
    "slab_lung_103_5": (NoLungError, "5 slices, 10 mm"),
}
NOT_STATED = {
    "one_lung_opaque": "lungs.one_side",
    "codes_0": "orientation.front_back",
    "front_and_back_swapped": "orientation.front_back",
    "slice_distance_1mm": "geometry.proportions",
}
OUTLINED_ML = {"slab_lung_102_9": (30, 50), "slab_LungDx-A0001_3": (30, 50), "ends_in_tumour": (50, 70)}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    script = CHECKOUT.parent / "shared" / "cases" / "make_cases.py"
    if not script.is_file():
        pytest.skip("the script that makes the scans is not there")
    folder = tmp_path_factory.mktemp("trials")
    subprocess.run([sys.executable, script, folder], check=True)
    return folder / "scans"


@pytest.fixture(scope="module")
def segmented(scans, tmp_path_factory):
    segmenter, folder = (
        Segmenter.load("lungseg-3", models=CHECKOUT / "models", device="cpu"),
        tmp_path_factory.mktemp("m"),
    )
    return lambda name: segment_scan(scans / f"{name}.nii.gz", folder / f"{name}.nii.gz", segmenter)


def codes(result):
    return {finding.code for finding in result.findings}


def said(result):
    return statement(len(result.lesions), result.findings, len(result.doubtful))


@pytest.mark.parametrize("name", AS_PLAIN)
def test_header_that_the_standard_gives_a_meaning_is_read(segmented, name):
    plain, result = segmented("plain"), segmented(name)
    assert (result.slice_voxels, result.spacing_mm) == (plain.slice_voxels, pytest.approx(plain.spacing_mm, abs=1e-4))
    assert [lesion.volume_ml for lesion in result.lesions] == pytest.approx([each.volume_ml for each in plain.lesions])
    assert codes(result) == codes(plain) | AS_PLAIN[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_read_is_refused_with_its_reason(segmented, name):
    kind, reason = REFUSED[name]
    with pytest.raises(kind, match=reason):
        segmented(name)


@pytest.mark.parametrize("name", NOT_STATED)
def test_nothing_is_stated_of_what_was_not_understood(segmented, name):
    result = segmented(name)
    assert said(result).startswith("No statement")
    assert NOT_STATED[name] in codes(result)


@pytest.mark.parametrize("name", OUTLINED_ML)
def test_lesion_that_an_end_of_the_scan_cuts_is_outlined(segmented, name):
    low, high = OUTLINED_ML[name]
    result = segmented(name)
    assert low < sum(lesion.volume_ml for lesion in result.lesions) < high
    assert said(result) == "1 lesion"
    assert "lesions.cut" in codes(result)


def test_frame_of_zeros_is_padding(segmented):
    plain, framed = segmented("plain"), segmented("frame_of_zeros")
    assert codes(framed) == codes(plain) | {"padding"}
    outlined = [
        sum(lesion.volume_ml for lesion in (*result.lesions, *result.doubtful)) for result in (plain, framed)
    ]  # what is doubtful is the probability's business, not the outline's
    assert outlined[1] == pytest.approx(
        outlined[0], rel=0.2
    )  # a larger slice lies on the network's canvas with coarser pixels
