"""The figures of a data set, recounted by plain numpy; and the commands that print them."""

import csv
import io
import json

import nibabel as nib
import numpy as np
import pytest

from lungseg.dataset.fingerprint import HU_EDGES, measure_case
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.statistics import VOLUME_EDGES_ML, Distribution, summarise_data_set, to_csv
from lungseg.dataset.survey import survey
from lungseg.decoding import to_plain
from tests.data_sets import write_data_set
from tests.narrowing import existing
from tests.scan_files import load_nifti, stored_values

INCOMPLETE, REFUSED = 1, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write_data_set(tmp_path_factory.mktemp("figures") / "set", cases=3, unlabelled=1)
    (root / "imagesTr" / "._lung_001.nii.gz").write_bytes(b"litter")
    return root


def statistics_of(folder):
    data_set = open_data_set(folder)
    return summarise_data_set(data_set, tuple(measure_case(pair) for pair in data_set.pairs))


def test_counts_are_those_of_the_files(folder):
    statistics = statistics_of(folder)
    masks = [stored_values(path) for path in sorted((folder / "labelsTr").glob("*.nii.gz"))]
    with_tumour = sum(int(mask.any(axis=(0, 1)).sum()) for mask in masks)
    slices = sum(mask.shape[2] for mask in masks)
    assert (statistics.cases, statistics.patients, statistics.unlabelled, statistics.left_out) == (3, 3, 1, 0)
    assert (statistics.slices, statistics.tumour_slices) == (slices, with_tumour)
    assert statistics.imbalance_ratio == statistics.sampler_weight == (slices - with_tumour) / with_tumour
    assert statistics.tumour_voxel_share == sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks)
    assert sum(statistics.hu.tumour) == sum(int(mask.sum()) for mask in masks)
    assert sum(statistics.hu.outside) == sum(int((mask == 0).sum()) for mask in masks)
    assert len(statistics.hu.tumour) == len(HU_EDGES) - 1
    assert sum(statistics.tumour_ml.counts) == sum(statistics.tumour_extent.counts) == 3
    assert sum(statistics.slice_mm.counts) == 4
    assert len(statistics.lung_map.tumours) == 3
    assert {place.case: place.right > 0.5 for place in statistics.lung_map.tumours} == {
        "lung_001": True,
        "lung_002": False,
        "lung_003": True,
    }


def test_report_is_json_without_nan(folder):
    report = json.loads(json.dumps(to_plain(statistics_of(folder)), allow_nan=False))
    assert report["cases"] == len([row for row in report["rows"] if row["labelled"]]) == 3
    assert report["hu"]["edges_hu"] == list(HU_EDGES)


def test_set_without_any_tumour_has_no_ratio(tmp_path):
    write_data_set(tmp_path, cases=1)
    data_set = open_data_set(tmp_path)
    pair = data_set.labelled[0]
    image = load_nifti(existing(pair.mask))
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), existing(pair.mask))
    statistics = summarise_data_set(data_set, (measure_case(pair),))
    assert statistics.tumour_slices == 0
    assert statistics.imbalance_ratio is None
    assert statistics.sampler_weight is None
    assert statistics.tumour_ml.median == 0
    pair.scan.write_bytes(b"")
    empty = summarise_data_set(data_set, (measure_case(pair),))
    assert (empty.cases, empty.left_out, empty.tumour_ml.median) == (0, 1, None)
    json.dumps(to_plain(empty), allow_nan=False)


def test_what_lies_beyond_the_bins_is_counted_too():
    spread = Distribution.of([0.1, 3.0, 99999.0], VOLUME_EDGES_ML)
    assert sum(spread.counts) == 3
    assert (spread.minimum, spread.median, spread.maximum) == (0.1, 3.0, 99999.0)


def test_table_has_a_line_for_each_case_and_no_formula(folder):
    statistics = statistics_of(folder)
    rows = list(csv.DictReader(io.StringIO(to_csv(statistics.rows))))
    assert [row["case"] for row in rows] == ["lung_001", "lung_002", "lung_003", "lung_101"]
    assert float(rows[0]["tumour_ml"]) == pytest.approx(statistics.rows[0].tumour_ml, abs=1e-3)
    assert rows[3]["tumour_ml"] == ""
    wicked = type(statistics.rows[0])(
        **{
            **{name: getattr(statistics.rows[0], name) for name in statistics.rows[0].__dataclass_fields__},
            "case": "=1+1",
        }
    )
    assert "'=1+1" in to_csv([wicked])


def test_commands_print_and_write_the_figures(lungseg, folder, tmp_path):
    report, table, store = tmp_path / "stats.json", tmp_path / "stats.csv", tmp_path / "store"
    code, stdout, stderr = lungseg("stats", folder, "--json", report, "--csv", table, "--workers", 1)
    assert code == 0, stderr
    assert "._lung_001.nii.gz" in stderr
    expected = json.loads(json.dumps(to_plain(statistics_of(folder))))
    assert json.loads(report.read_text()) == expected
    assert f"{expected['imbalance_ratio']:.2f}" in stdout
    assert len(table.read_text().splitlines()) == 5
    code, stdout, stderr = lungseg("prepare", folder, "-o", store, "--workers", 1)
    assert code == 0, stderr
    assert "3 cases with a mask (120 slices" in stdout
    code, _, _ = lungseg("stats", store, "--json", report)
    assert code == 0
    assert json.loads(report.read_text()) == expected


def test_lint_command_ends_with_one_when_training_would_be_stopped(lungseg, folder, tmp_path):
    report = tmp_path / "lint.json"
    code, stdout, _ = lungseg("lint", folder, "--json", report, "--workers", 1)
    assert (code, "No findings" in stdout) == (0, True)
    assert json.loads(report.read_text())["ignored"] == ["imagesTr/._lung_001.nii.gz"]
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["lung_001"], "validation": ["lung_001"]}))
    code, stdout, _ = lungseg("lint", folder, "--split", split, "--json", report, "--workers", 1)
    assert code == INCOMPLETE
    assert json.loads(report.read_text())["findings"][0]["code"] == "split.leak"
    assert "error" in stdout


@pytest.mark.parametrize("command", [("stats",), ("lint",), ("prepare", "-o", "store")])
def test_commands_refuse_what_is_no_data_set(lungseg, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = lungseg(command[0], tmp_path, *command[1:])
    assert (code, stdout) == (REFUSED, "")
    assert stderr.startswith("data.unusable: ")
    assert "what to do: Give the folder that holds dataset.json" in stderr


def test_real_data_set(shared_data):
    examined = survey(shared_data / "chest_ct_msd_layout", workers=2)
    statistics = summarise_data_set(examined.data_set, examined.facts)
    assert (statistics.cases, statistics.unlabelled, statistics.slices) == (3, 1, 101 + 99 + 138)
    volumes = {row.case: row.tumour_ml for row in statistics.rows}
    assert volumes["lung_101"] == pytest.approx(6.9, abs=0.1)
    assert volumes["lung_102"] == pytest.approx(72, abs=1)
    assert volumes["lung_103"] == pytest.approx(2.2, abs=0.1)
