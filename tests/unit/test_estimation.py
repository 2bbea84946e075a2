"""What a training run will cost: the better known, the nearer to what was measured."""

import os
import time
from contextlib import closing
from dataclasses import replace

import pytest

from lungseg.db import open_database
from lungseg.errors import DataSetError
from lungseg.records import RunState
from lungseg.services import estimation
from lungseg.services.estimation import PREPARE_S, Throughput, estimate, keep_pace, start_measuring
from lungseg.services.installation import Installation
from lungseg.training import presets
from tests.data_sets import write_data_set
from tests.run_rows import keep_epochs, keep_run, training_run

SLICES = 3 * (40 - 13)
"""Three phantoms of 40 slices each, of which a third is left out."""


@pytest.fixture
def database(settings):
    with closing(open_database(settings.database_url)) as database:
        yield database


@pytest.fixture
def fields(tmp_path):
    return {"data": str(write_data_set(tmp_path / "set")), "preset": "baseline", "epochs": 10, "device": "cpu"}


@pytest.fixture
def started(monkeypatch):
    """The measurements that would have been started."""
    found = []
    monkeypatch.setattr(estimation, "_start", lambda settings, order: found.append(order.key))
    return found


def train(database, epochs, **changes):
    configuration = {"preset": "baseline", "device": "cpu", **changes.pop("configuration", {})}
    with database.begin() as session:
        run = keep_run(session, training_run(configuration=configuration, **changes))
        keep_epochs(session, [run.id], epochs)


def test_without_any_measurement_there_is_a_rule(settings, database, fields):
    found = estimate(Installation(settings, database), fields)
    assert not found.is_measured
    assert "rule of thumb" in found.basis
    assert found.seconds > 3 * PREPARE_S
    wider = replace(presets.BASELINE.network, width=128)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "baseline", replace(presets.BASELINE, network=wider))
        larger = estimate(Installation(settings, database), fields)
    assert larger.seconds > 3 * found.seconds
    assert larger.memory_mb > found.memory_mb


def test_measured_steps_of_the_same_preset_batch_and_device_count(settings, database, fields):
    keep_pace(settings, "baseline", 8, "cpu", Throughput(slices_per_s=10.0, memory_mb=1234.0))
    found = estimate(Installation(settings, database), fields)
    assert (found.memory_mb, found.is_measured) == (1234.0, True)
    shown, held_out = 0.8 * SLICES, 0.2 * 120
    assert found.seconds == pytest.approx(3 * PREPARE_S + (10 * shown + 12 * held_out / 3) / 10)
    assert not estimate(Installation(settings, database), {**fields, "batch": 4}).is_measured
    assert not estimate(Installation(settings, database), {**fields, "device": "cuda"}).is_measured
    keep_pace(settings, "baseline", 4, "cpu", Throughput(slices_per_s=5.0, memory_mb=1.0))
    assert estimate(Installation(settings, database), {**fields, "batch": 4}).memory_mb == 1.0
    assert estimate(Installation(settings, database), fields) == found


def test_epochs_on_other_data_give_their_pace(settings, database, fields):
    keep_pace(settings, "baseline", 8, "cpu", Throughput(slices_per_s=1e6, memory_mb=1.0))
    train(database, 3)
    found = estimate(Installation(settings, database), fields)
    assert found.basis == "From 3 epochs of this preset on other data here."
    assert found.memory_mb == 1930.0
    assert found.seconds == pytest.approx(3 * PREPARE_S + (10 * 0.8 * SLICES + 12 * 0.2 * 120 / 3) / 64)


def test_epochs_on_the_same_data_are_taken_whole(settings, database, fields):
    train(database, 5)
    train(database, 1, dataset=fields["data"])
    found = estimate(Installation(settings, database), fields)
    assert found.basis == "From 1 epoch of this preset on these data here."
    assert 10 * 231 < found.seconds - 3 * PREPARE_S < 11 * 231
    folds = estimate(Installation(settings, database), {**fields, "folds": 3})
    assert "other data" in folds.basis


def test_epochs_on_another_device_say_nothing(settings, database, fields):
    train(database, 5, configuration={"device": "cuda"})
    assert not estimate(Installation(settings, database), fields).is_measured


def test_preset_with_given_steps_needs_no_count_of_slices(settings, database, tmp_path):
    keep_pace(settings, "scenes", 16, "cpu", Throughput(slices_per_s=100.0, memory_mb=1.0))
    found = estimate(
        Installation(settings, database), {"data": str(tmp_path), "preset": "scenes", "epochs": 2, "device": "cpu"}
    )
    assert found.seconds == pytest.approx(2 * presets.SCENES.schedule.steps * 16 / 100)


def test_order_that_can_not_be_carried_out_is_refused(settings, database, fields, tmp_path):
    with pytest.raises(DataSetError):
        estimate(Installation(settings, database), {**fields, "data": str(tmp_path)})
    with pytest.raises(DataSetError, match="no preset"):
        estimate(Installation(settings, database), {**fields, "preset": "none"})


@pytest.mark.parametrize("off_s", [-2 * estimation.MEASURING_S, 86_400])
def test_measurement_is_started_once_and_again_when_it_failed(settings, database, fields, started, off_s):
    assert start_measuring(Installation(settings, database), fields)
    assert start_measuring(Installation(settings, database), fields)
    assert not start_measuring(Installation(settings, database), {**fields, "batch": 2})
    assert started == ["baseline/8/cpu"]
    then = time.time() + off_s  # long ago, or before the clock was set back by a day
    os.utime(settings.home / "measuring", (then, then))
    assert start_measuring(Installation(settings, database), {**fields, "batch": 2})
    keep_pace(settings, "baseline", 2, "cpu", Throughput(5.0, 1.0))
    assert not start_measuring(Installation(settings, database), {**fields, "batch": 2})
    assert started == ["baseline/8/cpu", "baseline/2/cpu"]


def test_nothing_is_measured_beside_a_run(settings, database, fields, started):
    train(database, 1, state=RunState.QUEUED)
    assert not start_measuring(Installation(settings, database), fields)
    assert started == []


def test_damaged_paces_count_as_none(settings, database, fields):
    (settings.home / "paces.json").write_text("[1")
    assert not estimate(Installation(settings, database), fields).is_measured


def test_command_measures_this_machine(lungseg, environment, database, fields, monkeypatch):
    small = replace(presets.BASELINE, name="baseline", network=replace(presets.BASELINE.network, width=4, depth=2))
    monkeypatch.setitem(presets.PRESETS, "baseline", small)
    code, said, _ = lungseg("measure", "baseline", "--batch", "2", "--device", "cpu")
    assert code == 0
    assert "slices/s" in said
    found = estimate(Installation(environment, database), {**fields, "batch": 2})
    assert found.is_measured
    assert found.memory_mb > 100
