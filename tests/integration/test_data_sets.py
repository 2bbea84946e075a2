"""Registered data sets: what the worker leaves of them, and that nothing stops it for good."""

import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from lungseg.dataset.store import SliceStore
from lungseg.db import queue
from lungseg.errors import DataSetError, NotFoundError, TumourClassError
from lungseg.jobs import worker
from lungseg.records.run_results import PrepareResult
from lungseg.records.run_states import RunKind, RunState
from lungseg.services import datasets, runs
from lungseg.services.installation import Installation
from tests.data_sets import write_data_set, write_json, write_pair
from tests.narrowing import existing


@pytest.fixture
def folder(tmp_path):
    return write_data_set(tmp_path / "set", cases=2, unlabelled=1)


def work_off(settings, database, data_set):
    worker.work(settings, once=True)
    return datasets.get_data_set(Installation(settings, database), data_set.id)


def test_registered_folder_is_prepared_by_the_worker(settings, database, folder):
    data_set = datasets.register(Installation(settings, database), folder)
    assert (data_set.name, data_set.folder) == ("Lung", str(folder))
    run = existing(data_set.run)
    assert (run.kind, run.state) == (RunKind.PREPARE, RunState.QUEUED)
    assert datasets.data_set_overview(settings, data_set.id) is None
    done = work_off(settings, database, data_set)
    assert (done.run.state, done.run.failure) == (RunState.DONE, None)
    shown = existing(datasets.data_set_overview(settings, data_set.id))
    counts = {"cases": 2, "unlabelled": 1, "left_out": 0, "errors": 0, "warnings": 0}
    assert done.run.result == PrepareResult(**counts, fingerprint=shown.fingerprint)
    assert done.fingerprint == shown.fingerprint
    assert shown.is_fit
    assert shown.statistics.cases == 2
    assert set(shown.pictures) == {"lung_001", "lung_002", "lung_101"}
    assert datasets.store_of(Installation(settings, database), folder) == shown.store
    assert len(SliceStore.open(existing(shown.store)).cases) == 2
    assert datasets.list_data_sets(Installation(settings, database)) == (done,)


def test_same_folder_is_registered_once(settings, database, folder):
    first = datasets.register(Installation(settings, database), folder)
    assert datasets.register(Installation(settings, database), folder / ".." / folder.name) == first
    assert len(datasets.list_data_sets(Installation(settings, database))) == 1


def test_wrong_folder_is_not_registered(settings, database, tmp_path):
    with pytest.raises(DataSetError, match="is no data set"):
        datasets.register(Installation(settings, database), tmp_path)
    assert datasets.list_data_sets(Installation(settings, database)) == ()
    with pytest.raises(NotFoundError, match="no such data set"):
        datasets.get_data_set(Installation(settings, database), "none")


def test_refresh_reads_what_has_changed(settings, database, folder):
    data_set = work_off(settings, database, datasets.register(Installation(settings, database), folder))
    before = existing(datasets.data_set_overview(settings, data_set.id))
    write_pair(folder, "lung_002", lesion_radius_mm=25.0)
    run = datasets.refresh(Installation(settings, database), data_set.id)
    assert datasets.refresh(Installation(settings, database), data_set.id).id == run.id
    data_set = work_off(settings, database, data_set)
    assert (data_set.run.id, data_set.run.state) == (run.id, RunState.DONE)
    after = existing(datasets.data_set_overview(settings, data_set.id))
    volumes = [[row.tumour_ml for row in shown.statistics.rows] for shown in (before, after)]
    assert volumes[0][0] == volumes[1][0]
    assert existing(volumes[0][1]) < existing(volumes[1][1])


def test_broken_cases_are_findings_of_a_run_that_is_done(settings, database, folder):
    (folder / "labelsTr" / "lung_002.nii.gz").write_bytes(b"no mask")
    data_set = work_off(settings, database, datasets.register(Installation(settings, database), folder))
    assert data_set.run.state is RunState.DONE
    assert data_set.run.result.left_out == data_set.run.result.errors == 1
    shown = existing(datasets.data_set_overview(settings, data_set.id))
    assert not shown.is_fit
    assert shown.findings[0].case == "lung_002"


def test_folder_that_is_gone_fails_the_run_with_its_reason(settings, database, folder):
    data_set = datasets.register(Installation(settings, database), folder)
    shutil.rmtree(folder)
    failed = work_off(settings, database, data_set)
    assert failed.run.state is RunState.FAILED
    assert failed.run.failure.code == "data.unusable"
    assert "There is no folder" in failed.run.failure.found


def test_store_of_an_older_layout_is_made_anew(settings, database, folder):
    data_set = work_off(settings, database, datasets.register(Installation(settings, database), folder))
    index = datasets.store_folder(settings, data_set.id) / "index.json"
    index.write_text(index.read_text().replace('"store_layout": 2', '"store_layout": 0'))
    assert datasets.data_set_overview(settings, data_set.id) is None
    datasets.refresh(Installation(settings, database), data_set.id)
    assert work_off(settings, database, data_set).run.state is RunState.DONE
    assert existing(datasets.data_set_overview(settings, data_set.id)).is_fit


def test_stopped_run_and_forgotten_data_set(settings, database, tmp_path):
    folder = write_data_set(tmp_path / "set", cases=5)
    data_set = datasets.register(Installation(settings, database), folder)
    thread = threading.Thread(target=worker.work, args=(settings,), kwargs={"once": True})
    thread.start()
    while runs.get_run(Installation(settings, database), existing(data_set.run).id).state is RunState.QUEUED:
        time.sleep(0.02)
    runs.request_stop(Installation(settings, database), existing(data_set.run).id)
    thread.join(60)
    assert (
        existing(datasets.get_data_set(Installation(settings, database), data_set.id).run).state is RunState.CANCELLED
    )
    datasets.refresh(Installation(settings, database), data_set.id)
    assert work_off(settings, database, data_set).run.state is RunState.DONE
    datasets.forget(Installation(settings, database), data_set.id)
    assert not datasets.store_folder(settings, data_set.id).exists()
    assert datasets.list_data_sets(Installation(settings, database)) == ()
    assert (folder / "dataset.json").is_file()
    with pytest.raises(NotFoundError):
        datasets.forget(Installation(settings, database), data_set.id)


def test_data_set_forgotten_while_it_is_prepared_leaves_nothing(settings, database, tmp_path):
    data_set = datasets.register(Installation(settings, database), write_data_set(tmp_path / "set", cases=5))
    thread = threading.Thread(target=worker.work, args=(settings,), kwargs={"once": True})
    thread.start()
    store = datasets.store_folder(settings, data_set.id)
    while not (store / "index.json").exists():
        time.sleep(0.02)
    datasets.forget(Installation(settings, database), data_set.id)
    thread.join(60)
    assert not thread.is_alive()
    assert not list(store.glob("*.npy"))


def test_two_folders_of_one_name_are_two_data_sets(settings, database, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    write_pair(copy, "lung_002", lesion_radius_mm=25.0)
    first, second = (
        work_off(settings, database, datasets.register(Installation(settings, database), each))
        for each in (folder, copy)
    )
    assert first.name == second.name
    assert first.fingerprint != second.fingerprint
    stores = [datasets.store_of(Installation(settings, database), Path(each.folder)) for each in (first, second)]
    volumes = [existing(SliceStore.open(existing(store)).facts[1].mask).volume_ml for store in stores]
    assert volumes[0] < volumes[1]


def test_tumour_class_is_asked_for_and_remembered(settings, database, tmp_path):
    folder = tmp_path / "set"
    for case, spot in (("lung_001", (66, 44, 22)), ("lung_002", (30, 40, 18))):
        write_pair(folder, case, spot=spot, edit=lambda hu, mask: (hu, np.where(mask, 2, hu == -850).astype(np.uint8)))
    write_json(folder, labels={"background": 0, "GTV-1": 1, "GTV-2": 2})
    with pytest.raises(TumourClassError) as asked:
        datasets.register(Installation(settings, database), folder)
    assert asked.value.choices == ("GTV-1", "GTV-2")
    data_set = datasets.register(Installation(settings, database), folder, "GTV-2")
    assert data_set.tumour_class == "GTV-2"
    done = work_off(settings, database, data_set)
    assert (done.run.state, done.tumour_class) == (RunState.DONE, "GTV-2")
    assert datasets.register(Installation(settings, database), folder) == done
    (first, _) = datasets.open_registered(Installation(settings, database), folder).labelled
    assert existing(first.legend).tumour.values == (2,)
    volume = existing(existing(datasets.data_set_overview(settings, data_set.id)).statistics.rows[0].tumour_ml)
    other = work_off(
        settings, database, datasets.choose_tumour_class(Installation(settings, database), data_set.id, "GTV-1")
    )
    assert other.tumour_class == "GTV-1"
    assert existing(existing(datasets.data_set_overview(settings, data_set.id)).statistics.rows[0].tumour_ml) > volume


def test_other_tumour_class_does_not_wait_for_a_preparation_with_the_old_one(settings, database, tmp_path):
    folder = tmp_path / "set"
    write_pair(folder, "lung_001", edit=lambda hu, mask: (hu, np.where(mask, 2, hu == -850).astype(np.uint8)))
    write_json(folder, labels={"background": 0, "GTV-1": 1, "GTV-2": 2})
    installation = Installation(settings, database)
    old = existing(datasets.register(installation, folder, "GTV-2").run)
    with database.begin() as session:
        claimed = queue.claim(session, "here", datetime.now(UTC))
    assert existing(claimed).id == old.id
    new = existing(datasets.register(installation, folder, "GTV-1").run)
    assert (new.id != old.id, new.state) == (True, RunState.QUEUED)
    with database.begin() as session:
        assert not queue.record_heartbeat(session, existing(claimed), None, datetime.now(UTC))  # the old one stops


def test_split_without_tumour_is_told_before_training(settings, database, tmp_path):
    folder = write_data_set(tmp_path / "set", cases=2)
    write_pair(folder, "lung_001", edit=lambda hu, mask: (hu, mask * 0))
    data_set = datasets.register(Installation(settings, database), folder)
    assert datasets.split_findings(settings, data_set.id) == ()
    work_off(settings, database, data_set)
    sides = [datasets.split_findings(settings, data_set.id, folds=2, fold=fold) for fold in (0, 1)]
    assert [[found.code for found in side] for side in sides] == [["split.no_tumour"]] * 2
    assert sum("chosen on nothing" in side[0].found for side in sides) == 1
