"""The worker on real files with a real network: what it records, and that nothing stops it."""

import errno
import gzip
import logging
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from lungseg.config import CHECKOUT, SHIPPED_CHECKPOINT
from lungseg.db import engine, open_database
from lungseg.db.queue import Lane
from lungseg.files import keys
from lungseg.files.digests import sha256_of
from lungseg.jobs import segment, worker
from lungseg.records.findings import ScanSeverity
from lungseg.records.masks import MaskKind
from lungseg.records.run_configs import SegmentConfig
from lungseg.records.run_results import Segmentation
from lungseg.records.run_states import RunState
from lungseg.scans import formats
from lungseg.segmentation.pipeline import segment_scan
from lungseg.segmentation.probability_io import read_map
from lungseg.segmentation.segmenter import Segmenter
from lungseg.segmentation.weights_file import weights_sha256
from lungseg.services import cases, runs, storage, viewing
from lungseg.services.installation import Installation
from tests.narrowing import existing, of_type
from tests.networks import WIDE, save_network
from tests.phantoms import chest, ras_affine, with_vessels, write_chest, write_nifti
from tests.runs_at_work import is_segmenting, wait_for, working, write_long_scan
from tests.scan_files import grid_of
from tests.seeds import add_case


@pytest.fixture
def settings(settings, tmp_path):
    card = save_network(tmp_path / "models")
    return replace(settings, models=tmp_path / "models", checkpoint=card.name)


@pytest.fixture
def case(settings, database, chest_scan):
    return add_case(settings, database, chest_scan)


@pytest.fixture
def long_run(settings, database, tmp_path):
    """A queued run that takes some seconds."""
    save_network(settings.models, "slow", WIDE)
    case = add_case(settings, database, write_long_scan(tmp_path))
    return runs.queue_segmentation(Installation(settings, database), case.id, "slow")


def work_off(settings, database, case):
    run = runs.queue_segmentation(Installation(settings, database), case.id)
    worker.work(settings, once=True)
    return runs.get_run(Installation(settings, database), run.id)


def test_result_is_recorded_whole(settings, database, case):
    run = work_off(settings, database, case)
    assert (run.state, run.failure, run.attempts, run.progress) == (RunState.DONE, None, 1, None)
    assert run.started_at <= run.heartbeat_at <= run.finished_at
    assert run.device.startswith("cpu, ")
    assert run.checkpoint_sha256 == weights_sha256(settings.models / "all-tumour.safetensors")
    assert run.config == SegmentConfig(checkpoint="all-tumour", threshold=0.5, min_lesion_ml=1.0, device="cpu")
    assert run.result.seconds > 0
    assert run.result.checkpoint == "all-tumour"
    assert any("6.0 mm apart" in warning for warning in run.warnings)
    (mask,) = cases.masks_of(Installation(settings, database), case.id)
    assert (mask.kind, mask.version, mask.run_id) == (MaskKind.PREDICTION, 1, run.id)
    assert mask.path == f"masks/{mask.id}.nii.gz"
    assert read_map(settings.home / keys.probability(mask.id)).above(0.5).sum() >= sum(mask.slice_voxels) > 0
    scan, kept = settings.home / case.scan_path, settings.home / mask.path
    assert mask.sha256 == sha256_of(kept)
    assert grid_of(kept).matches(grid_of(scan))
    inside = formats.read_mask(kept, grid_of(scan).to_ras())
    assert inside.sum() > 10_000
    assert mask.slice_voxels == tuple(inside.sum(axis=(0, 1)).tolist())
    assert mask.volume_ml == pytest.approx(inside.sum() * 3.0 * 3.2 * 6.0 / 1000)
    assert mask.lesions == run.result.lesions
    assert mask.lesions[0].probability == pytest.approx(0.98, abs=0.01)
    assert (settings.home / keys.thumbnail(case.id)).read_bytes().startswith(b"\x89PNG")
    summary = cases.list_cases(Installation(settings, database))[0]
    assert (summary.run, summary.lesions, summary.volume_ml) == (run, len(mask.lesions), mask.volume_ml)


def test_second_result_is_a_second_version(settings, database, case):
    first, second = (work_off(settings, database, case) for _ in range(2))
    assert [(mask.version, mask.run_id) for mask in cases.masks_of(Installation(settings, database), case.id)] == [
        (2, second.id), (1, first.id),
    ]  # fmt: skip


def test_scan_without_any_finding_has_a_mask_and_no_lesion(settings, database, case):
    save_network(settings.models, "nothing", logit=-9.0)
    run = work_off(replace(settings, checkpoint="nothing"), database, case)
    assert run.state is RunState.DONE
    (mask,) = cases.masks_of(Installation(settings, database), case.id)
    assert (mask.lesions, mask.volume_ml) == ((), 0.0)
    assert cases.list_cases(Installation(settings, database))[0].lesions == 0
    assert (settings.home / keys.thumbnail(case.id)).is_file()
    assert cases.list_cases(Installation(settings, database))[0].doubts == ()
    assert viewing.view_of(Installation(settings, database), case.id).statement == "No lesion found"


def test_nothing_is_stated_of_a_scan_that_was_not_understood(settings, database, tmp_path):
    save_network(settings.models, "nothing", logit=-9.0)
    write_nifti(tmp_path / "crop.nii.gz", with_vessels(chest()[0])[55:76, 25:60, 16:22], ras_affine())
    case = add_case(settings, database, tmp_path / "crop.nii.gz")
    assert work_off(replace(settings, checkpoint="nothing"), database, case).state is RunState.DONE
    scene = viewing.view_of(Installation(settings, database), case.id)
    assert scene.statement.startswith("No statement: The field of view cuts the lungs")
    assert scene.remarks[0].severity is ScanSeverity.INCOMPLETE
    summary = cases.list_cases(Installation(settings, database))[0]
    assert (summary.lesions, len(summary.doubts)) == (0, 1)


def without_lung(path):
    hu, _ = chest()
    hu[hu == -850] = 40
    write_nifti(path, hu, ras_affine())


def picture(path):
    hu, _ = chest()
    write_nifti(path, np.clip((hu + 1000) / 5, 0, 255), ras_affine(), dtype=np.uint8)


def cut_off(path):
    whole = path.with_name("whole.nii.gz")
    write_chest(whole)
    path.write_bytes(whole.read_bytes()[:-2000])


def wrong_checksum(path):
    whole = path.with_name("whole.nii")
    write_chest(whole)
    path.write_bytes(gzip.compress(whole.read_bytes())[:-8] + bytes(8))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (without_lung, "scan.no_lung"),
        (picture, "scan.not_hu"),
        (cut_off, "scan.truncated"),
        (wrong_checksum, "scan.truncated"),
    ],
)
def test_bad_scan_fails_with_its_reason_and_the_next_is_done(settings, database, case, tmp_path, make, code):
    make(tmp_path / "bad.nii.gz")
    bad = add_case(settings, database, tmp_path / "bad.nii.gz")
    bad_run = runs.queue_segmentation(Installation(settings, database), bad.id)
    assert work_off(settings, database, case).state is RunState.DONE
    failed = runs.get_run(Installation(settings, database), bad_run.id)
    assert (failed.state, existing(failed.failure).code) == (RunState.FAILED, code)
    assert existing(failed.failure).found
    assert existing(failed.failure).remedy
    assert failed.finished_at is not None
    assert failed.checkpoint_sha256
    assert cases.masks_of(Installation(settings, database), bad.id) == ()
    assert len(list((settings.home / keys.MASKS).glob("*.nii.gz"))) == 1


def test_file_that_is_not_the_one_taken_in_is_not_segmented(settings, database, case):
    write_chest(settings.home / case.scan_path, "RAS")
    failed = work_off(settings, database, case)
    assert (failed.state, existing(failed.failure).code) == (RunState.FAILED, "scan.changed")
    assert cases.masks_of(Installation(settings, database), case.id) == ()
    assert not list((settings.home / keys.MASKS).glob("*.nii.gz"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("Mustermann"), "run.crashed"),
        (MemoryError(), "run.out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage.disk_full"),
    ],
)
def test_unexpected_error_is_recorded_and_the_worker_goes_on(settings, database, case, monkeypatch, error, code):
    def fail(scan, mask, *_, **__):
        mask.write_bytes(b"half a mask")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(segment, "segment_scan", fail)
        failed = work_off(settings, database, case)
    assert (failed.state, existing(failed.failure).code) == (RunState.FAILED, code)
    assert "Mustermann" not in str(failed.failure)
    assert list(settings.home.rglob("*.nii.gz")) == [settings.home / case.scan_path]
    assert work_off(settings, database, case).state is RunState.DONE


def test_scan_is_segmented_by_the_processor_where_the_gpu_is_full(settings, database, case, monkeypatch):
    devices: list[str] = []

    def refuse_once(scan, mask, segmenter, **named):
        devices.append(segmenter.device.type)
        if len(devices) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return segment_scan(scan, mask, segmenter, **named)

    monkeypatch.setattr(segment, "segment_scan", refuse_once)
    run = work_off(settings, database, case)
    assert (run.state, run.attempts, devices[1:]) == (RunState.DONE, 1, ["cpu"])
    assert run.device.startswith("cpu, ")
    assert run.device.endswith("the GPU had no memory left")
    assert len(cases.masks_of(Installation(settings, database), case.id)) == 1


def test_worker_gets_on_where_all_of_its_lanes_do(settings, database):
    steps: list[None] = []
    all_of_them = worker.Worker(Installation(settings, database), on_step=lambda: steps.append(None))
    for _ in range(3):
        all_of_them._step(Lane.SCANS)
    all_of_them._step(Lane.VIDEOS)
    all_of_them._step(Lane.INTAKES)
    assert not steps, "the last lane may hang"
    all_of_them._step(Lane.LONG)
    all_of_them._step(Lane.LONG)
    assert len(steps) == 1


def test_missing_scan_file_and_missing_checkpoint_have_reasons(settings, database, case, chest_scan):
    lost = add_case(settings, database, chest_scan)
    lost_run = runs.queue_segmentation(Installation(settings, database), lost.id)
    (settings.home / lost.scan_path).unlink()
    save_network(settings.models, "gone")
    gone_run = runs.queue_segmentation(Installation(settings, database), case.id, "gone")
    (settings.models / "gone.safetensors").unlink()
    worker.work(settings, once=True)
    assert existing(runs.get_run(Installation(settings, database), lost_run.id).failure).code == "scan.unusable"
    assert existing(runs.get_run(Installation(settings, database), gone_run.id).failure).code == "checkpoint.unusable"


def test_network_is_loaded_again_only_when_its_file_changes(settings, database, case, chest_scan, monkeypatch):
    loads: list[tuple[object, ...]] = []
    load = Segmenter.load

    def counted_load(*arguments, **options):
        loads.append(arguments)
        return load(*arguments, **options)

    monkeypatch.setattr(segment, "job", segment.SegmentJob())
    monkeypatch.setattr(Segmenter, "load", counted_load)
    for scan_case in (case, add_case(settings, database, chest_scan)):
        runs.queue_segmentation(Installation(settings, database), scan_case.id)
    warm = worker.Worker(Installation(settings, database))
    warm.run(once=True)
    assert len(loads) == 1
    card = save_network(settings.models, logit=-9.0, threshold=0.25)
    run = runs.queue_segmentation(Installation(settings, database), case.id)
    warm.run(once=True)
    assert len(loads) == 2
    done = runs.get_run(Installation(settings, database), run.id)
    assert (done.checkpoint_sha256, of_type(SegmentConfig, done.config).threshold) == (card.sha256, 0.25)
    assert of_type(Segmentation, done.result).lesions == ()


def test_progress_and_heartbeat_are_seen_while_it_computes(settings, database, long_run):
    seen, beats = [], set()
    with working(settings):
        while not (run := runs.get_run(Installation(settings, database), long_run.id)).state.is_final:
            seen.append(run.progress)
            beats.add(run.heartbeat_at)
            time.sleep(0.05)
    assert run.state is RunState.DONE
    steps = [(step.done, step.total) for step in seen if step and step.stage == "segmenting"]
    assert steps == sorted(steps)
    assert len(set(steps)) >= 3
    assert all(step.left_s is not None for step in seen if step and step.stage == "segmenting")
    assert len(beats) >= 3


def test_running_run_stops_when_asked(settings, database, long_run):
    with working(settings):
        wait_for(lambda: is_segmenting(database, long_run))
        asked = time.monotonic()
        assert runs.request_stop(Installation(settings, database), long_run.id).state is RunState.RUNNING
        wait_for(lambda: runs.get_run(Installation(settings, database), long_run.id).state.is_final)
        assert time.monotonic() - asked < 4
    run = runs.get_run(Installation(settings, database), long_run.id)
    assert (run.state, run.failure, run.result) == (RunState.CANCELLED, None, None)
    assert not list((settings.home / keys.MASKS).glob("*"))


def test_case_deleted_under_the_worker_leaves_nothing(settings, database, case, long_run):
    after = runs.queue_segmentation(Installation(settings, database), case.id)
    with working(settings):
        wait_for(lambda: is_segmenting(database, long_run))
        cases.delete_case(Installation(settings, database), long_run.case_id)
    assert runs.get_run(Installation(settings, database), after.id).state is RunState.DONE
    assert [path.stem for path in (settings.home / keys.THUMBNAILS).iterdir()] == [case.id]
    assert sorted(path.name for path in (settings.home / keys.SCANS).iterdir()) == [
        f"{case.id}.json",
        f"{case.id}.nii.gz",
    ]
    assert len(list((settings.home / keys.MASKS).glob("*.nii.gz"))) == 1


def test_locked_database_is_waited_for(settings, case, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    monkeypatch.setattr(worker, "REFUSED_PAUSE_S", 0.05)
    with closing(open_database(settings.database_url)) as database:
        run = runs.queue_segmentation(Installation(settings, database), case.id)
        lock = sqlite3.connect(settings.home / "lungseg.sqlite", isolation_level=None, check_same_thread=False)
        thread = threading.Thread(target=worker.Worker(Installation(settings, database)).run, kwargs={"once": True})
        with closing(lock):
            thread.start()
            for _ in range(4):
                lock.execute("BEGIN IMMEDIATE")
                time.sleep(0.6)
                lock.execute("ROLLBACK")
                time.sleep(0.1)
        thread.join(timeout=60)
        assert runs.get_run(Installation(settings, database), run.id).state is RunState.DONE


def test_files_of_killed_runs_are_swept_at_the_start(settings, database, monkeypatch):
    monkeypatch.setattr(storage, "ORPHAN_AGE_S", -1.0)
    (settings.home / keys.MASKS).mkdir()
    (settings.home / keys.MASKS / "0a1b.nii.gz").write_bytes(b"half")
    worker.work(settings, once=True)
    assert not list((settings.home / keys.MASKS).glob("*"))


def test_log_holds_ids_only(settings, database, tmp_path, caplog):
    write_chest(tmp_path / "Mustermann.nii")
    with caplog.at_level(logging.DEBUG, logger="lungseg"):
        run = work_off(settings, database, add_case(settings, database, tmp_path / "Mustermann.nii"))
    assert run.id in caplog.text
    assert "Mustermann" not in caplog.text


def test_real_scan_goes_all_the_way(settings, database, shared_data):
    shipped = replace(settings, models=CHECKOUT / "models", checkpoint=SHIPPED_CHECKPOINT)
    if not (shipped.models / f"{SHIPPED_CHECKPOINT}.safetensors").is_file():
        pytest.skip("no checkpoint is shipped yet")
    case = add_case(shipped, database, shared_data / "chest_ct_msd_layout" / "imagesTr" / "lung_103.nii.gz")
    run = work_off(shipped, database, case)
    assert (run.state, run.checkpoint) == (RunState.DONE, SHIPPED_CHECKPOINT)
