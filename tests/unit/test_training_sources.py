"""Reading the three sources, and splitting them by patient."""

from dataclasses import replace

import numpy as np
import pytest

from lungseg.errors import DataSetError
from lungseg.recipes.scenes.corpus import (
    CROPS,
    NODULES,
    SCANS,
    divide,
    hash_share,
    read_corpus,
)
from lungseg.scans.canvas import stack_from_display
from lungseg.scans.formats import read_volume
from tests.phantoms import LESION_INDEX, SHAPE, chest
from tests.training_data import CROP_SLICES, NODULE_SHAPE, PATIENTS, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def library(data):
    return read_corpus(data)


def test_whole_scans_come_back_as_they_were(library, data):
    hu, lesion = chest()
    scan = library.scans[0]
    assert [scan.name for scan in library.scans] == ["lung_102", "lung_103", "lung_201"]
    assert scan.hu.shape == (SHAPE[2], SHAPE[1], SHAPE[0])
    np.testing.assert_array_equal(scan.volume.hu, hu)
    np.testing.assert_array_equal(scan.reference, lesion)
    volume = read_volume(data / SCANS / "imagesTr" / "lung_102.nii.gz")
    assert scan.volume.grid.matches(volume.grid)


def test_hung_slices_show_anterior_at_the_top_and_the_right_side_at_the_left(library):
    i, j, k = LESION_INDEX
    scan = library.scans[0]
    assert scan.tumour[k, SHAPE[1] - 1 - j, SHAPE[0] - 1 - i] == 1
    assert stack_from_display(scan.tumour)[i, j, k] == 1


def test_points_lie_in_what_they_are_named_after(library):
    scan = library.scans[0]
    assert (scan.hu[tuple(scan.lung.T)] < -400).mean() > 0.9
    assert scan.tumour[tuple(scan.lesion.T)].all()
    assert len(scan.wall) < len(scan.lung)
    assert scan.room[tuple(scan.wall.T)].all()
    assert 0.1 < (scan.hu[tuple(scan.chest.T)] < -400).mean() < 0.9


def test_slices_with_an_unmarked_nodule_are_neither_tumour_nor_background(library):
    unlabelled = library.scans[2]
    assert not unlabelled.usable[20:40].any()
    assert unlabelled.usable[:20].all()
    assert not np.isin(unlabelled.lung[:, 0], np.arange(20, 40)).any()
    assert not len(unlabelled.lesion)


def test_crops_and_nodules_keep_their_order_and_values(library):
    crop, nodule = library.crops[0], library.nodules[0]
    assert crop.hu.shape == crop.readers.shape == (CROP_SLICES, 64, 64)
    assert (crop.hu[2, 30, 30], crop.hu[2, 0, 0]) == (56, -844)
    assert (crop.readers[2, 30, 30], crop.readers[0, 30, 30]) == (3, 1)
    assert crop.extent_mm == pytest.approx(np.sqrt(8 * 12) * 1.4)
    assert nodule.hu.shape == NODULE_SHAPE
    assert (nodule.hu[9, 12, 20], nodule.hu[9, 20, 12]) == (56, -844)
    assert nodule.extent_mm == 11


def test_nodules_cut_off_at_the_border_are_left_out(library):
    assert PATIENTS[0] not in {nodule.patient for nodule in library.nodules}
    assert len(library.nodules) == len(PATIENTS) - 1


def test_no_patient_is_on_both_sides_of_the_split(library):
    parts = divide(library, tested=0.2, held_out=0.4, scans=("lung_103",))
    patients = [set(part.patients) for part in (parts.seen, parts.held_out, parts.tested)]
    assert sum(map(len, patients)) == len(set.union(*patients)) == len(library.patients)
    assert [scan.name for scan in parts.held_out.scans] == ["lung_103"]
    assert not parts.tested.scans
    assert parts.seen.crops
    assert parts.held_out.crops
    assert parts.tested.crops


def test_division_of_crops_does_not_depend_on_the_scans_held_out(library):
    one, other = (divide(library, tested=0.2, held_out=0.4, scans=scans) for scans in (("lung_103",), ()))
    assert one.seen.crops == other.seen.crops
    assert one.tested == other.tested


def test_crops_of_patients_with_a_whole_scan_are_left_out(library):
    crop = replace(library.crops[0], patient="LIDC-IDRI-0314")
    parts = divide(replace(library, crops=(crop, *library.crops[1:])), tested=0.2, held_out=0.4, scans=("lung_103",))
    assert sum(len(part.crops) for part in (parts.seen, parts.held_out, parts.tested)) == len(library.crops) - 1


def test_share_of_a_patient_is_the_same_everywhere_and_even():
    assert hash_share("LIDC-IDRI-0001") == hash_share("LIDC-IDRI-0001")
    shares = [hash_share(str(number)) for number in range(2000)]
    assert np.mean(np.array(shares) < 0.1) == pytest.approx(0.1, abs=0.03)  # five standard deviations


@pytest.mark.parametrize("scans", [("lung_999",), ("lung_102", "lung_103", "lung_201")])
def test_division_that_leaves_no_scan_to_learn_from_is_refused(library, scans):
    with pytest.raises(DataSetError, match="can't be held out"):
        divide(library, tested=0.1, held_out=0.1, scans=scans)


def test_missing_source_is_named(tmp_path):
    with pytest.raises(DataSetError, match=SCANS):
        read_corpus(tmp_path)


@pytest.mark.parametrize("source", [NODULES, CROPS])
def test_missing_index_is_named(tmp_path, source):
    folder = write_data(tmp_path)
    (folder / source / "index.csv").unlink()
    with pytest.raises(DataSetError, match=r"index\.csv"):
        read_corpus(folder)


def test_damaged_picture_is_named(tmp_path):
    folder = write_data(tmp_path)
    broken = folder / CROPS / f"{PATIENTS[3]}_0_hu.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataSetError, match=broken.name):
        read_corpus(folder)


@pytest.mark.shared_data
def test_real_data_holds_what_its_readme_says(shared_data):
    library = read_corpus(shared_data)
    assert [scan.name for scan in library.scans] == ["lung_101", "lung_102", "lung_103", "lung_201"]
    assert len(library.crops) == 1639
    assert sum(len(crop.hu) for crop in library.crops) == 10537
    assert 1000 < len(library.nodules) <= 1055
    volumes = [scan.reference.sum() * scan.grid.voxel_ml for scan in library.scans[:3]]
    assert volumes == pytest.approx([6.9, 72, 2.1], rel=0.06)  # the README's figures are rounded
