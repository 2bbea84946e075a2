"""The slice store: what stands in it, and what happens when it is made again, killed, damaged or by another release."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import psutil
import pytest

from lungseg.config import CHECKOUT
from lungseg.dataset import store as store_module
from lungseg.dataset.fingerprint import read_pair
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.lint import lint
from lungseg.dataset.store import SliceStore, check_arrays, is_store, prepare
from lungseg.errors import DataChangedError, DataSetError, RunCancelledError, StorageError
from lungseg.records.run_states import Progress
from lungseg.scans import formats
from lungseg.scans.canvas import CanvasGeometry, Preprocessing, to_display
from tests.data_sets import write_data_set, write_json, write_pair
from tests.narrowing import existing
from tests.scan_files import load_nifti

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
        volume = formats.read_volume(case.pair.scan)
        mask = formats.read_mask(existing(case.pair.mask), volume.grid)
        depth = volume.grid.shape[2]
        assert isinstance(case.hu, np.memmap)
        assert (case.hu.dtype, case.hu.shape) == (np.int16, (depth, 256, 256))
        assert (case.tumour.dtype, case.tumour.shape) == (np.dtype(np.uint8), (depth, 256, 256))
        assert case.frame == CanvasGeometry.of(volume.grid, 256)
        read = Preprocessing().slice_stack(volume, 0, depth)[:, 0]
        # Rounding to whole HU is all that may differ.
        np.testing.assert_allclose(case.hu / 3071.0, read, atol=0.51 / 3071)
        expected = np.stack([case.frame.mask_to_canvas(to_display(mask[:, :, k])) for k in range(depth)])
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
    steps: list[Progress] = []
    assert prepared(folder, store, on_progress=steps.append) == SliceStore.open(store)
    assert steps == []
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
    os.utime(folder / "labelsTr" / "lung_003.nii.gz")  # its content is what it was
    prepared(folder, store)
    changed = {name for name, made in made_times(store).items() if before[name] != made}
    assert changed == {"lung_002.hu.npy"}


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
    steps: list[Progress] = []
    with pytest.raises(RunCancelledError):
        prepared(folder, store, on_progress=steps.append, should_stop=lambda: len(steps) >= 2)
    with pytest.raises(DataSetError, match="not complete"):
        SliceStore.open(store)
    done = made_times(store)
    assert 2 <= len(done) < 4
    steps.clear()
    assert len(prepared(folder, store, on_progress=steps.append).cases) == 3
    assert len(steps) == 4 - len(done)
    assert steps[-1].done == steps[-1].total
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


def correct(path):
    """Replace a mask by one of the same size and time of change, as `cp -p` and `rsync -t` do."""
    before = path.stat()
    image = load_nifti(path)
    array = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.roll(array, 3, axis=0), image.affine, image.header), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_corrected_mask_of_the_same_size_and_time_is_noticed(folder, tmp_path):
    for path in folder.rglob("*.nii.gz"):
        nib.save(load_nifti(path), path.with_suffix(""))  # plain files: any change leaves their size
        path.unlink()
    (folder / "dataset.json").unlink()
    store = prepared(folder, tmp_path / "store")
    before = np.array(store.cases[1].tumour)
    correct(folder / "labelsTr" / "lung_002.nii")
    again = prepared(folder, tmp_path / "store")
    assert not np.array_equal(again.cases[1].tumour, before)
    assert again.fingerprint != store.fingerprint
    assert again.cases[0] == store.cases[0]


def test_fingerprint_is_of_contents_wherever_they_lie(folder, tmp_path):
    first = prepared(folder, tmp_path / "a").fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    assert len(first) == 64
    assert prepared(tmp_path / "copy", tmp_path / "b").fingerprint == first
    write_json(tmp_path / "copy", name="Renamed")
    assert prepared(tmp_path / "copy", tmp_path / "b").fingerprint == first
    (tmp_path / "copy" / "patients.csv").write_text("case,patient\nlung_002,Somebody\n")
    with_patient = prepared(tmp_path / "copy", tmp_path / "b").fingerprint
    assert with_patient != first
    write_pair(tmp_path / "copy", "lung_002", spot=(30, 40, 17))
    assert prepared(tmp_path / "copy", tmp_path / "b").fingerprint not in {first, with_patient}


def test_array_that_was_altered_is_made_again(folder, tmp_path):
    store = prepared(folder, tmp_path / "store")
    path = tmp_path / "store" / "lung_002.tumour.npy"
    kept = path.read_bytes()
    path.write_bytes(kept[:-65536] + bytes(65535) + b"\1")
    with pytest.raises(DataChangedError, match="lung_002: mask") as changed:
        check_arrays(store.cases)
    assert changed.value.code == "data.changed"
    prepared(folder, tmp_path / "store")
    assert path.read_bytes() == kept
    check_arrays(SliceStore.open(tmp_path / "store").cases)


def test_case_with_a_damaged_thumbnail_is_made_again(folder, tmp_path):
    store = prepared(folder, tmp_path / "store")
    path = tmp_path / "store" / "lung_002.case.json"
    fields = json.loads(path.read_text())
    fields["facts"]["scan"]["thumbnail"] = {"shape": [2, 2, 2], "packed": "AAAA"}
    path.write_text(json.dumps(fields))
    assert prepared(folder, tmp_path / "store").facts == store.facts


def test_file_that_changes_while_it_is_read_is_not_used(folder, tmp_path, monkeypatch):
    def read_late(pair):
        reading = read_pair(pair)
        if pair.case == "lung_002":
            write_pair(folder, "lung_002", lesion_hu=77)
        return reading

    monkeypatch.setattr(store_module, "read_pair", read_late)
    store = prepared(folder, tmp_path / "store")
    assert [case.case for case in store.cases] == ["lung_001", "lung_003"]
    assert store.facts[1].failure.code == "data.changed"
    monkeypatch.undo()
    assert len(prepared(folder, tmp_path / "store").cases) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_names_that_are_too_long_for_files_of_ours(tmp_path, workers):
    names = ["lung_" + "x" * 242, "lung_" + "x" * 241 + "y", "ä" * 121]
    for name in names:
        write_pair(tmp_path / "set", name)
    store = prepare(open_data_set(tmp_path / "set"), tmp_path / "store", workers=workers)
    assert {case.case for case in store.cases} == set(names)
    assert all(case.picture.is_file() and case.hu.any() for case in store.cases)
    before = made_times(tmp_path / "store")
    assert prepared(tmp_path / "set", tmp_path / "store") == store
    assert made_times(tmp_path / "store") == before


def test_fault_in_one_case_leaves_the_others_and_is_tried_again(folder, tmp_path, monkeypatch):
    def faulty(pair):
        if pair.case == "lung_002":
            raise ZeroDivisionError
        return read_pair(pair)

    monkeypatch.setattr(store_module, "read_pair", faulty)
    store = prepared(folder, tmp_path / "store")
    assert [case.case for case in store.cases] == ["lung_001", "lung_003"]
    assert [(found.code, found.case) for found in lint(store.data_set, store.facts)] == [
        ("data.unreadable", "lung_002")
    ]
    monkeypatch.undo()
    assert len(prepared(folder, tmp_path / "store").cases) == 3


def older(store):
    """Turn a store into what release 0.1 would have written."""
    index = json.loads((store / "index.json").read_text())
    for pair in (*index["data_set"]["labelled"], *index["data_set"]["unlabelled"]):
        del pair["legend"]
    (store / "index.json").write_text(json.dumps({**index, "store_layout": 1}))
    (store / "alike.json").unlink()
    for path in store.glob("*.case.json"):
        fields = json.loads(path.read_text())
        del fields["arrays"], fields["pair"]["legend"], fields["facts"]["scan"]["thumbnail"]
        for state in fields["files"].values():
            if state:
                del state["noted_ns"], state["inode"], state["sha256"]
        path.write_text(json.dumps(fields))


def test_store_of_the_release_before_opens_and_is_made_anew_on_its_own(folder, tmp_path):
    new = prepared(folder, tmp_path / "store")
    older(tmp_path / "store")
    old = SliceStore.open(tmp_path / "store")
    assert old.fingerprint is None
    np.testing.assert_array_equal(old.cases[0].hu, new.cases[0].hu)
    assert lint(old.data_set, old.facts, likenesses=old.alike) == ()
    check_arrays(old.cases)
    steps: list[Progress] = []
    assert prepared(folder, tmp_path / "store", on_progress=steps.append).fingerprint == new.fingerprint
    assert len(steps) == 4


def test_full_disk_leaves_nothing_half_written(folder, tmp_path):
    """A limit on the size of files stands for the disk: JSON fits, arrays do not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(StorageError):
            prepared(folder, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path.name for path in (tmp_path / "store").iterdir() if "partial" in path.name]
    assert len(prepared(folder, tmp_path / "store").cases) == 3
