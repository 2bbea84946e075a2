"""Which class of a data set is tumour, and what that makes of its masks."""

import json

import numpy as np
import pytest

from lungseg.dataset.findings import Severity
from lungseg.dataset.fingerprint import measure_case
from lungseg.dataset.labels import LabelClass, Legend, choose_legend, is_tumour_name
from lungseg.dataset.layout import DataSet, open_data_set, pair_folders
from lungseg.dataset.lint import lint
from lungseg.dataset.masks import read_tumour_mask
from lungseg.dataset.store import prepare
from lungseg.decoding import decode, to_plain
from lungseg.errors import TumourClassError
from lungseg.scans.geometry import Grid
from lungseg.training.slices import batch_of, read_tumour
from tests.data_sets import write_data_set, write_json, write_pair
from tests.narrowing import existing
from tests.phantoms import SHAPE, chest, ras_affine, write_nifti

LUNG_FIRST = {"background": 0, "lung": 1, "tumour": 2}


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({"0": "background", "1": "cancer"}, (1,)),
        ({"background": 0, "tumour": 1}, (1,)),
        (LUNG_FIRST, (2,)),
        ({"0": "background", "1": "lung", "2": "Lung_Tumor"}, (2,)),
        ({"background": 0, "LungNodule": 3, "airway": 1}, (3,)),
        ({"background": 0, "GTV1": 1, "heart": 2}, (1,)),
        ({"background": "0", "mass": "4"}, (4,)),
        ({"background": 0, "whole tumour": [1, 2, 3], "tumour core": [2, 3], "enhancing tumor": 3}, (1, 2, 3)),
        ({"background": 0, "lesion": 1, "ignore": 2}, (1,)),
        ({"background": 0, "non-tumour": 1, "tumour": 2}, (2,)),
        ({"background": 0, "peritumoral": 1, "tumour": 2}, (2,)),
    ],
)
def test_tumour_is_chosen_by_its_name(labels, values):
    assert existing(choose_legend(labels)).tumour.values == values


def test_what_is_no_tumour_keeps_its_name():
    legend = choose_legend({**LUNG_FIRST, "ignore": 3})
    assert legend == Legend(LabelClass("tumour", (2,)), (LabelClass("lung", (1,)),), (3,))
    assert legend.named == {1, 2, 3}
    assert (legend.name_of(1.0), legend.name_of(7.0)) == ("lung (1)", "7")


@pytest.mark.parametrize(
    ("labels", "wanted", "name_of_1"),
    [
        ({"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "active": 3}, "core", "whole tumour (1)"),
        ({"background": 0, "lung": [1, 2, 3], "tumour": [2, 3]}, None, "lung (1)"),
    ],
)
def test_class_that_includes_the_tumour_names_its_other_values(labels, wanted, name_of_1):
    legend = existing(choose_legend(labels, wanted))
    assert legend.tumour.values == (2, 3)
    assert legend.named == {1, 2, 3}
    assert legend.name_of(1.0) == name_of_1


@pytest.mark.parametrize("text", ["1" * 10, "0" * 9 + "1", "-1"])
def test_number_that_is_too_long_is_refused_and_not_cut(text):
    with pytest.raises(TumourClassError):
        choose_legend({"background": 0, "tumour": text})
    with pytest.raises(TumourClassError):
        choose_legend(None, text)
    assert existing(choose_legend({"background": 0, "tumour": " " * 9 + "12"})).tumour.values == (12,)


@pytest.mark.parametrize(
    ("labels", "said", "choices"),
    [
        ({"background": 0, "lung": 1, "heart": 2}, r"lung \(1\), heart \(2\)", ("lung", "heart")),
        ({"background": 0, "GTV-1": 1, "GTV-2": 2}, r"GTV-1 \(1\), GTV-2 \(2\)", ("GTV-1", "GTV-2")),
        ({"background": 0}, "no class but the background", ()),
        ({"background": 1, "tumour": 0}, "value 0", ()),
        ({"tumour": "one"}, "no format has", ()),
        ({"tumour": [1, -2]}, "no format has", ()),
        (["background", "tumour"], "no format has", ()),
    ],
)
def test_what_does_not_follow_from_names_is_asked_for(labels, said, choices):
    with pytest.raises(TumourClassError, match=said) as refused:
        choose_legend(labels)
    assert refused.value.choices == choices
    assert refused.value.code == "data.tumour_class"


@pytest.mark.parametrize(
    ("wanted", "values"),
    [("GTV-2", (2,)), ("gtv-2", (2,)), ("2", (2,)), ("GTV-1, GTV-2", (1, 2)), ("lung", (3,)), ("1,2", (1, 2))],
)
def test_class_that_is_asked_for(wanted, values):
    labels = {"background": 0, "GTV-1": 1, "GTV-2": 2, "lung": 3}
    assert existing(choose_legend(labels, wanted)).tumour.values == values


def test_class_that_is_not_there():
    with pytest.raises(TumourClassError, match=r"no class 'spleen' among lung \(1\)"):
        choose_legend(LUNG_FIRST, "spleen")
    with pytest.raises(TumourClassError, match=r"no dataset\.json with labels"):
        choose_legend(None, "tumour")
    assert choose_legend(None) is None
    assert existing(choose_legend(None, "2")).tumour.values == (2,)


@pytest.mark.parametrize(
    ("name", "is_tumour"),
    [
        ("Tumour", True), ("primary lung tumors", True), ("lung_cancer", True), ("Metastasis", True), ("GTVp", True),
        ("adenocarcinoma", True), ("NSCLC", True), ("pulmonary nodule", True), ("Mass", True),
        ("lung", False), ("massive effusion", False), ("healthy", False), ("no tumour", False), ("class 1", False),
    ],
)  # fmt: skip
def test_names_of_tumours(name, is_tumour):
    assert is_tumour_name(name) is is_tumour


def lung_and_tumour(hu, mask):
    """Mark lung as 1 and the lesion as 2, as many data sets do."""
    return hu, np.where(mask, 2, (hu == -850)).astype(np.uint8)


def test_tumour_alone_is_tumour_in_masks_of_several_classes(tmp_path):
    folder = write_data_set(tmp_path / "set", cases=2)
    for case, spot in (("lung_001", (66, 44, 22)), ("lung_002", (30, 40, 18))):
        write_pair(folder, case, "SAR", spot=spot, edit=lung_and_tumour)
    write_json(folder, labels=LUNG_FIRST)
    data_set = open_data_set(folder)
    assert decode(DataSet, json.dumps(to_plain(data_set)), pytest.fail) == data_set
    facts = tuple(measure_case(pair) for pair in data_set.pairs)
    _, lesion = chest()
    mask = existing(facts[0].mask)
    assert mask.slice_voxels == tuple(lesion.sum(axis=(0, 1)).tolist())
    assert mask.values == (1.0, 2.0)
    assert lint(data_set, facts) == ()
    assert pair_folders(folder / "imagesTr", folder / "labelsTr").labelled[0].legend == data_set.labelled[0].legend
    store = prepare(data_set, tmp_path / "store", workers=1)
    assert set(np.unique(store.cases[0].tumour)) == {0, 1}
    lungs = prepare(open_data_set(folder, "lung"), tmp_path / "store", workers=1)
    assert sum(lungs.cases[0].slice_tumour_px) > 5 * sum(store.cases[0].slice_tumour_px)


def test_value_without_a_name_is_an_error(tmp_path):
    write_pair(tmp_path, edit=lambda hu, mask: (hu, mask * np.uint8(7)))
    write_pair(tmp_path, "lung_002", spot=(30, 40, 18))
    write_json(tmp_path, labels=LUNG_FIRST)
    data_set = open_data_set(tmp_path)
    findings = lint(data_set, tuple(measure_case(pair) for pair in data_set.pairs))
    found = {(finding.code, finding.case): finding for finding in findings}
    assert found["mask.unknown_value", "lung_001"].severity is Severity.ERROR
    assert "7" in found["mask.unknown_value", "lung_001"].found


def test_masks_of_another_class_alone_stop_training(tmp_path):
    folder = write_data_set(tmp_path / "set", cases=2)
    write_json(folder, labels=LUNG_FIRST)
    data_set = open_data_set(folder)
    error, *warnings = lint(data_set, tuple(measure_case(pair) for pair in data_set.pairs))
    assert (error.severity, error.code, error.case) == (Severity.ERROR, "mask.no_tumour", None)
    assert "Not one of 2 masks marks tumour (2). They hold lung (1) instead." in error.found
    assert {warning.code for warning in warnings} == {"mask.empty"}


@pytest.mark.parametrize("slope", [None, 2.0], ids=["plain", "scaled"])
def test_values_are_read_by_the_scaling_of_the_file(tmp_path, slope):
    _, lesion = chest()
    stored = np.where(lesion, 4, 2).astype(np.int16) // (1 if slope is None else 2)
    write_nifti(tmp_path / "mask.nii", stored, ras_affine(), "LPS", slope=slope, inter=0.0)
    grid = Grid(SHAPE, ras_affine())
    mask = read_tumour_mask(tmp_path / "mask.nii", grid, Legend(LabelClass("tumour", (4,)), (), (2,)))
    np.testing.assert_array_equal(mask.inside, lesion)
    np.testing.assert_array_equal(mask.ignored, ~lesion)
    assert mask.values == (2.0, 4.0)


@pytest.mark.parametrize(("inside", "outside"), [(0.9999, 0.0), (1.0, 1e-7), (1.0005, -4e-4)])
def test_values_that_are_nearly_whole_are_whole_with_a_warning(tmp_path, inside, outside):
    values = np.random.default_rng(1).uniform(0.9, 1.0, SHAPE)  # more values than anyone lists
    write_pair(tmp_path, edit=lambda hu, mask: (hu, np.where(mask, inside, outside * values)))
    write_json(tmp_path)
    data_set = open_data_set(tmp_path)
    facts = measure_case(data_set.labelled[0])
    mask = existing(facts.mask)
    assert mask.values == (1.0,)
    assert sum(mask.slice_voxels) == int(chest()[1].sum())
    (finding,) = lint(data_set, (facts,))
    assert (finding.severity, finding.code) == (Severity.WARNING, "mask.rounded")


def test_fractions_among_many_values_are_not_overlooked(tmp_path):
    """Noise of 1e-7 fills every list of values before the one that is wrong comes by."""

    def spoil(hu, mask):
        values = np.where(mask, 1.0, 1e-7 * np.random.default_rng(1).uniform(size=mask.shape))
        values[50, 40, 30] = 0.4
        return hu, values

    write_pair(tmp_path, edit=spoil)
    write_json(tmp_path)
    data_set = open_data_set(tmp_path)
    (finding,) = lint(data_set, (measure_case(data_set.labelled[0]),))
    assert (finding.severity, finding.code) == (Severity.ERROR, "mask.not_binary")
    assert "0.4" in finding.found


def test_ignored_voxels_are_neither_tumour_nor_background(tmp_path):
    def ignore_the_front(hu, mask):
        mask[:, 50:] = 2
        return hu, mask

    write_pair(tmp_path / "set", edit=ignore_the_front)
    write_json(tmp_path / "set", labels={"background": 0, "tumour": 1, "ignore": 2})
    case = prepare(open_data_set(tmp_path / "set"), tmp_path / "store", workers=1).cases[0]
    assert case.has_ignored
    marks = np.asarray(case.tumour)
    assert set(np.unique(marks)) == {0, 1, 2}
    assert case.slice_tumour_px == tuple((marks == 1).sum(axis=(1, 2)).tolist())
    without_tumour = case.slice_tumour_px.index(0)
    np.testing.assert_array_equal(read_tumour(case, without_tumour), marks[without_tumour])
    k = int(np.argmax(case.slice_tumour_px))
    batch = batch_of([np.zeros((256, 256, 1), np.float32)], [marks[k]])
    np.testing.assert_array_equal(existing(batch.weight)[0, 0].numpy(), marks[k] != 2)
    np.testing.assert_array_equal(batch.tumour[0, 0].numpy(), marks[k] == 1)
