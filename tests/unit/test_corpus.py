"""Reading the three sources, and splitting them by patient."""

from dataclasses import replace

import numpy as np
import pytest

from lungseg.errors import DataSetError
from lungseg.recipes.scenes.corpus import hash_share, read_corpus, read_record, split_corpus
from lungseg.recipes.scenes.manifest import FILE, SHIPPED, read_corpus_manifest
from lungseg.scans.canvas import stack_from_display
from lungseg.scans.formats import read_volume
from tests.phantoms import LESION_INDEX, SHAPE, chest
from tests.training_data import CROP_SLICES, CROPS, NODULE_SHAPE, NODULES, PATIENTS, SCANS, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def corpus(data):
    return read_corpus(data)


def test_whole_scans_come_back_as_they_were(corpus, data):
    hu, lesion = chest()
    scan = corpus.scans[0]
    assert [scan.name for scan in corpus.scans] == ["lung_102", "lung_103", "lung_201"]
    assert scan.hu.shape == (SHAPE[2], SHAPE[1], SHAPE[0])
    np.testing.assert_array_equal(scan.volume.hu, hu)
    np.testing.assert_array_equal(scan.reference, lesion)
    volume = read_volume(data / SCANS / "imagesTr" / "lung_102.nii.gz")
    assert scan.volume.grid.matches(volume.grid)


def test_hung_slices_show_anterior_at_the_top_and_the_right_side_at_the_left(corpus):
    i, j, k = LESION_INDEX
    scan = corpus.scans[0]
    assert scan.tumour[k, SHAPE[1] - 1 - j, SHAPE[0] - 1 - i] == 1
    assert stack_from_display(scan.tumour)[i, j, k] == 1


def test_points_lie_in_what_they_are_named_after(corpus):
    scan = corpus.scans[0]
    assert (scan.hu[tuple(scan.lung.T)] < -400).mean() > 0.9
    assert scan.tumour[tuple(scan.lesion.T)].all()
    assert len(scan.wall) < len(scan.lung)
    assert scan.room[tuple(scan.wall.T)].all()
    assert 0.1 < (scan.hu[tuple(scan.chest.T)] < -400).mean() < 0.9


def test_slices_with_an_unmarked_nodule_are_neither_tumour_nor_background(corpus):
    unlabelled = corpus.scans[2]
    assert not unlabelled.usable[20:40].any()
    assert unlabelled.usable[:20].all()
    assert not np.isin(unlabelled.lung[:, 0], np.arange(20, 40)).any()
    assert not len(unlabelled.lesion)


def test_crops_and_nodules_keep_their_order_and_values(corpus):
    crop, nodule = corpus.crops[0], corpus.nodules[0]
    assert crop.hu.shape == crop.readers.shape == (CROP_SLICES, 64, 64)
    assert (crop.hu[2, 30, 30], crop.hu[2, 0, 0]) == (56, -844)
    assert (crop.readers[2, 30, 30], crop.readers[0, 30, 30]) == (3, 1)
    assert crop.extent_mm == pytest.approx(np.sqrt(8 * 12) * 1.4)
    assert nodule.hu.shape == NODULE_SHAPE
    assert (nodule.hu[9, 12, 20], nodule.hu[9, 20, 12]) == (56, -844)
    assert nodule.extent_mm == 11


def test_nodules_cut_off_at_the_border_are_left_out(corpus):
    assert PATIENTS[0] not in {nodule.patient for nodule in corpus.nodules}
    assert len(corpus.nodules) == len(PATIENTS) - 1


def test_no_patient_is_on_both_sides_of_the_split(corpus):
    parts = split_corpus(corpus, test_share=0.2, validation_share=0.4, hold_out=("lung_103",))
    patients = [set(part.patients) for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, patients)) == len(set.union(*patients)) == len(corpus.patients)
    assert [scan.name for scan in parts.validation.scans] == ["lung_103"]
    assert not parts.test.scans
    assert parts.train.crops
    assert parts.validation.crops
    assert parts.test.crops


def test_division_of_crops_does_not_depend_on_the_scans_held_out(corpus):
    one, other = (
        split_corpus(corpus, test_share=0.2, validation_share=0.4, hold_out=scans) for scans in (("lung_103",), ())
    )
    assert one.train.crops == other.train.crops
    assert one.test == other.test


def test_crops_of_patients_with_a_whole_scan_are_left_out(corpus):
    crop = replace(corpus.crops[0], patient="LIDC-IDRI-0314")
    changed = replace(corpus, crops=(crop, *corpus.crops[1:]))
    parts = split_corpus(changed, test_share=0.2, validation_share=0.4, hold_out=("lung_103",))
    assert sum(len(part.crops) for part in (parts.train, parts.validation, parts.test)) == len(corpus.crops) - 1


def test_share_of_a_patient_is_the_same_everywhere_and_even():
    assert hash_share("LIDC-IDRI-0001") == pytest.approx(0.233243, abs=1e-6)
    shares = [hash_share(str(number)) for number in range(2000)]
    assert np.mean(np.array(shares) < 0.1) == pytest.approx(0.1, abs=0.03)  # five standard deviations


@pytest.mark.parametrize("scans", [("lung_999",), ("lung_102", "lung_103", "lung_201")])
def test_division_that_leaves_no_scan_to_learn_from_is_refused(corpus, scans):
    with pytest.raises(DataSetError, match="can't be held out"):
        split_corpus(corpus, test_share=0.1, validation_share=0.1, hold_out=scans)


@pytest.mark.parametrize("shares", [(0.2, 0.0), (0.0, 0.9999)], ids=["nobody held out", "nobody learned from"])
def test_division_that_leaves_one_side_without_nodules_is_refused(corpus, shares):
    with pytest.raises(DataSetError, match="Too few patients"):
        split_corpus(corpus, test_share=shares[0], validation_share=shares[1], hold_out=())


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


def test_data_folder_with_a_manifest_of_its_own_is_read_by_it(tmp_path):
    folder = write_data(tmp_path)
    (folder / SCANS).rename(folder / "scans")
    text = SHIPPED.read_text(encoding="utf-8").replace(SCANS, "scans").replace("[20, 45]", "[3, 4]")
    (folder / FILE).write_text(text.replace("lung_103 = ", "lung_102 = "), encoding="utf-8")
    corpus = read_corpus(folder)
    assert [scan.patient for scan in corpus.scans] == ["LIDC-IDRI-0314", "lung_103", "lung_201"]
    assert np.flatnonzero(~corpus.scans[2].usable).tolist() == [3, 4]
    assert {"scans/lung_102", f"{NODULES}/files", f"{CROPS}/files"} <= read_record(folder).keys()


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (("[20, 45]", "[20]"), "unmarked_slices"),
        (("[scans]", "[scan]"), "scans"),
        (("[scans]", "[scans"), "line 3"),
        ((SCANS, "../elsewhere"), "no name of a folder"),
    ],
)
def test_manifest_that_is_damaged_says_where(tmp_path, edit, reason):
    (tmp_path / FILE).write_text(SHIPPED.read_text(encoding="utf-8").replace(*edit), encoding="utf-8")
    with pytest.raises(DataSetError, match=reason):
        read_corpus_manifest(tmp_path)


@pytest.mark.shared_data
def test_real_data_holds_what_its_readme_says(shared_data):
    corpus = read_corpus(shared_data)
    assert [scan.name for scan in corpus.scans] == ["lung_101", "lung_102", "lung_103", "lung_201"]
    assert len(corpus.crops) == 1639
    assert sum(len(crop.hu) for crop in corpus.crops) == 10537
    assert 1000 < len(corpus.nodules) <= 1055
    volumes = [scan.reference.sum() * scan.grid.voxel_ml for scan in corpus.scans[:3]]
    assert volumes == pytest.approx([6.9, 72, 2.1], rel=0.06)  # the README's figures are rounded
