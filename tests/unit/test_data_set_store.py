"""The slice store: what stands in it, and what happens when it is made again, killed, damaged or by another release."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from lungseg import nifti
from lungseg.config import CHECKOUT
from lungseg.dataset import store as store_module
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.lint import lint
from lungseg.dataset.store import SliceStore, is_store, prepare
from lungseg.errors import DataSetError, RunCancelledError
from lungseg.preprocessing import Frame, Preprocessing, hang
from tests.data_sets import write_data_set, write_json, write_pair

PROGRAM = """
import sys
from pathlib import Path
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.store import prepare
if __name__ == "__main__":
    prepare(open_data_set(Path(sys.argv[1])), Path(sys.argv[2]), workers=2)
"""


@pytest.fixture
def folder(tmp_path):
    return write_data_set(tmp_path / "set", cases=3, unlabelled=1)


def made_times(store):
    return {path.name: path.stat().st_mtime_ns for path in store.glob("*.hu.npy")}


def prepared(folder, store, **arguments):
    return prepare(open_data_set(folder), store, workers=1, **arguments)


def test_slices_are_those_that_a_network_reads(folder, tmp_path):
    store = prepare(open_data_set(folder), tmp_path / "store", workers=2)
    assert [case.case for case in store.cases] == ["lung_001", "lung_002", "lung_003"]
    assert [case.case for case in store.unlabelled] == ["lung_101"]
    for case in store.cases:
        volume = nifti.read_volume(case.scan)
        mask = nifti.read_mask(case.mask, volume.grid)
        depth = volume.grid.shape[2]
        assert isinstance(case.hu, np.memmap)
        assert (case.hu.dtype, case.hu.shape) == (np.int16, (depth, 256, 256))
        assert (case.tumour.dtype, case.tumour.shape) == (np.uint8, (depth, 256, 256))
        assert case.frame == Frame.of(volume.grid, 256)
        read = Preprocessing().slice_stack(volume, 0, depth)[:, 0]
        # Rounding to whole HU is all that may differ.
        np.testing.assert_allclose(case.hu / 3071.0, read, atol=0.51 / 3071)
        expected = np.stack([case.frame.shrink_mask(hang(mask[:, :, k])) for k in range(depth)])
        np.testing.assert_array_equal(case.tumour, expected)
        assert case.slice_tumour_px == tuple(expected.sum(axis=(1, 2)).tolist())
        assert case.spacing_mm == pytest.approx(volume.grid.spacing_mm)
        assert case.picture.read_bytes().startswith(b"\x89PNG")
    assert store.unlabelled[0].slice_tumour_px == (0,) * 40
    with pytest.raises(ValueError, match="read-only"):
        store.cases[0].hu[0, 0, 0] = 1


def test_second_time_does_nothing(folder, tmp_path):
    store = tmp_path / "store"
    prepared(folder, store)
    before = made_times(store)
    told = []
    assert prepared(folder, store, on_progress=told.append) == SliceStore.open(store)
    assert told == []
    assert made_times(store) == before


def test_changed_scan_changed_mask_and_new_patient_are_prepared_anew(folder, tmp_path):
    store = tmp_path / "store"
    old = prepared(folder, store).cases[0].hu
    before = made_times(store)
    copy = np.array(old)
    write_pair(folder, "lung_001", lesion_hu=90)
    again = prepared(folder, store)
    changed = {name for name, made in made_times(store).items() if before[name] != made}
    assert changed == {"lung_001.hu.npy"}
    assert again.cases[0].hu.max() > copy.max()
    np.testing.assert_array_equal(old, copy)  # whoever had the old array mapped still has it
    before = made_times(store)
    (folder / "patients.csv").write_text("case,patient\nlung_002,Somebody\n")
    assert prepared(folder, store).cases[1].patient == "Somebody"
    os.utime(folder / "labelsTr" / "lung_003.nii.gz")
    prepared(folder, store)
    changed = {name for name, made in made_times(store).items() if before[name] != made}
    assert changed == {"lung_002.hu.npy", "lung_003.hu.npy"}


def test_case_that_is_gone_leaves_the_store(folder, tmp_path):
    store = tmp_path / "store"
    prepared(folder, store)
    (store / ".0123.partial").write_bytes(b"left by a killed process")
    for place in ("imagesTr", "labelsTr"):
        (folder / place / "lung_002.nii.gz").unlink()
    write_json(folder)
    assert [case.case for case in prepared(folder, store).cases] == ["lung_001", "lung_003"]
    assert not [path.name for path in store.iterdir() if "lung_002" in path.name or path.suffix == ".partial"]


def test_broken_case_is_left_out_and_told(folder, tmp_path):
    (folder / "imagesTr" / "lung_002.nii.gz").write_bytes(b"no scan")
    store = prepared(folder, tmp_path / "store")
    assert [case.case for case in store.cases] == ["lung_001", "lung_003"]
    assert [(found.code, found.case) for found in lint(store.data_set, store.facts)] == [("scan.not_nifti", "lung_002")]
    write_pair(folder, "lung_002", spot=(30, 40, 18))
    assert [case.case for case in prepared(folder, tmp_path / "store").cases] == ["lung_001", "lung_002", "lung_003"]


def test_stopped_preparation_goes_on_where_it_ended(folder, tmp_path):
    store = tmp_path / "store"
    told = []
    with pytest.raises(RunCancelledError):
        prepared(folder, store, on_progress=told.append, should_stop=lambda: len(told) >= 2)
    with pytest.raises(DataSetError, match="not complete"):
        SliceStore.open(store)
    done = made_times(store)
    assert 2 <= len(done) < 4
    told.clear()
    assert len(prepared(folder, store, on_progress=told.append).cases) == 3
    assert len(told) == 4 - len(done)
    assert told[-1].done == told[-1].total
    assert {name: made for name, made in made_times(store).items() if name in done} == done


def test_killed_preparation_leaves_no_process_and_goes_on(tmp_path):
    folder, store = write_data_set(tmp_path / "set", cases=5), tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, folder, store], cwd=CHECKOUT)
    deadline = time.monotonic() + 60
    while not list(store.glob("*.case.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    done = {path.name: path.stat().st_mtime_ns for path in store.glob("*.case.json")}
    assert len(prepared(folder, store).cases) == 5
    assert {path.name: path.stat().st_mtime_ns for path in store.glob("*.case.json") if path.name in done} == done
    assert not list(store.glob("*.partial"))


def test_half_written_case_does_not_count(folder, tmp_path):
    store = tmp_path / "store"
    prepared(folder, store)
    (store / "lung_002.case.json").write_text('{"pair": {"case"')
    with pytest.raises(DataSetError, match="1 of 4 cases are missing"):
        SliceStore.open(store)
    assert len(prepared(folder, store).cases) == 3


def test_store_of_another_layout_is_said_so(folder, tmp_path):
    store = tmp_path / "store"
    prepared(folder, store)
    index = json.loads((store / "index.json").read_text())
    (store / "index.json").write_text(json.dumps({**index, "store_layout": 99}))
    assert is_store(store)
    for action in (lambda: SliceStore.open(store), lambda: prepared(folder, store)):
        with pytest.raises(DataSetError, match="was made by layout 99"):
            action()


def test_folder_with_other_things_in_it_is_left_alone(folder, tmp_path):
    with pytest.raises(DataSetError, match="no slice store"):
        prepared(folder, folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataSetError, match="is a file"):
        prepared(folder, tmp_path / "file")
    with pytest.raises(DataSetError, match="is no slice store"):
        SliceStore.open(folder)
    assert not is_store(folder)
    assert len(open_data_set(folder).pairs) == 4


def test_two_at_once_do_not_mix(folder, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    with store_module._alone(store), pytest.raises(DataSetError, match="Another process"):
        prepared(folder, store)
    assert len(prepared(folder, store).cases) == 3


def test_scan_that_vanished_after_preparing_leaves_its_slices(folder, tmp_path):
    store = prepared(folder, tmp_path / "store")
    shutil.rmtree(folder)
    assert SliceStore.open(tmp_path / "store").cases[0].hu.shape == store.cases[0].hu.shape
    (tmp_path / "store" / "lung_001.hu.npy").unlink()
    with pytest.raises(DataSetError, match="prepare"):
        _ = store.cases[0].hu


def test_slices_are_read_as_they_are_mapped(folder, tmp_path):
    case = prepared(folder, tmp_path / "store").cases[0]
    k = int(np.argmax(case.slice_tumour_px))
    for first, last in ((0, 1), (k - 1, k + 2), (len(case.hu) - 2, len(case.hu))):
        np.testing.assert_array_equal(case.hu_of(first, last), case.hu[first:last])
    np.testing.assert_array_equal(case.tumour_of(k), case.tumour[k])
    assert case.tumour_of(k).any()
    (tmp_path / "store" / f"{case.case}.hu.npy").unlink()
    with pytest.raises(DataSetError, match=r"hu\.npy can't be read"):
        case.hu_of(0, 1)
