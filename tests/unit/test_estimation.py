"""What a training run will cost: the better known, the nearer to what was measured."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lungseg.db.training import recent_runs
from lungseg.decoding import to_plain
from lungseg.errors import DataSetError
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.records.run_configs import MeasureConfig, TrainConfig
from lungseg.records.run_results import MeasureResult
from lungseg.records.run_states import RunKind, RunState
from lungseg.services import training
from lungseg.services.estimation import PREPARE_S, estimate, start_measuring
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run
from lungseg.training.presets.files import find_preset
from tests.data_sets import write_data_set
from tests.narrowing import existing, of_type
from tests.queued import begun
from tests.run_rows import keep_epochs, keep_run, training_run

SLICES = 3 * (40 - 13)
"""Three phantoms of 40 slices each, of which a third is left out."""


@pytest.fixture
def installation(settings, database):
    return Installation(settings, database)


@pytest.fixture
def config(tmp_path):
    return TrainConfig(data=write_data_set(tmp_path / "set"), preset="baseline", epochs=10, device="cpu")


def measure_config(preset, batch):
    values = to_plain(find_preset(preset))
    return MeasureConfig(preset=preset, preset_values=values, batch=batch, device="cpu")


def with_network(**changes):
    """Return the values of `baseline` with another network."""
    baseline = find_preset("baseline")
    return to_plain(replace(baseline, network=replace(baseline.network, **changes)))


def train(database, epochs, **changes):
    config = TrainConfig(**{"preset": "baseline", "device": "cpu", "data": "/data", **changes.pop("config", {})})
    with database.begin() as session:
        run = keep_run(session, training_run(config=config, **changes))
        keep_epochs(session, [run.id], epochs)


def measured(database, config, slices_per_s, memory_mb=1.0, **changes):
    """Keep a run that has measured."""
    result = MeasureResult(slices_per_s=slices_per_s, memory_mb=memory_mb)
    values = {"kind": RunKind.MEASURE, "config": config, "result": result, "dataset": None, **changes}
    with database.begin() as session:
        return keep_run(session, training_run(**values))


def measurements(database):
    with database.read() as session:
        runs = recent_runs(session, {RunKind.MEASURE}, 100)
    return [(of_type(MeasureConfig, run.config).batch, run.state) for run in reversed(runs)]


def test_without_any_measurement_there_is_a_rule(installation, config):
    found = estimate(installation, config)
    assert not found.is_measured
    assert "rule of thumb" in found.basis
    assert found.seconds > 3 * PREPARE_S
    larger = estimate(installation, replace(config, preset_values=with_network(width=128)))
    assert larger.seconds > 3 * found.seconds
    assert larger.memory_mb > found.memory_mb


def test_measured_steps_of_the_same_preset_batch_and_device_count(installation, database, config):
    measured(database, measure_config("baseline", 8), 10.0, 1234.0)
    found = estimate(installation, config)
    assert (found.memory_mb, found.is_measured) == (1234.0, True)
    shown, held_out = 0.8 * SLICES, 0.2 * 120
    assert found.seconds == pytest.approx(3 * PREPARE_S + (10 * shown + 12 * held_out / 3) / 10)
    assert not estimate(installation, replace(config, batch=4)).is_measured
    assert not estimate(installation, replace(config, device="cuda")).is_measured
    measured(database, measure_config("baseline", 4), 5.0)
    assert estimate(installation, replace(config, batch=4)).memory_mb == 1.0
    assert estimate(installation, config) == found


def test_epochs_on_other_data_give_their_pace(installation, database, config):
    measured(database, measure_config("baseline", 8), 1e6)
    train(database, 3)
    found = estimate(installation, config)
    assert found.basis == "From 3 epochs of this preset on other data here."
    assert found.memory_mb == 1930.0
    assert found.seconds == pytest.approx(3 * PREPARE_S + (10 * 0.8 * SLICES + 12 * 0.2 * 120 / 3) / 64)


def test_epochs_on_the_same_data_are_taken_whole(installation, database, config):
    train(database, 5)
    train(database, 1, dataset=str(config.data))
    found = estimate(installation, config)
    assert found.basis == "From 1 epoch of this preset on these data here."
    assert 10 * 231 < found.seconds - 3 * PREPARE_S < 11 * 231
    folds = estimate(installation, replace(config, folds=3))
    assert "other data" in folds.basis


def test_epochs_on_another_device_say_nothing(installation, database, config):
    train(database, 5, config={"device": "cuda"})
    assert not estimate(installation, config).is_measured


def test_preset_with_given_steps_needs_no_count_of_slices(installation, database, tmp_path):
    measured(database, measure_config("scenes", 16), 100.0)
    found = estimate(installation, TrainConfig(data=tmp_path, preset="scenes", epochs=2, device="cpu"))
    assert found.seconds == pytest.approx(2 * existing(find_preset("scenes").optimisation.steps) * 16 / 100)


def test_order_that_can_not_be_carried_out_is_refused(installation, config, tmp_path):
    with pytest.raises(DataSetError):
        estimate(installation, replace(config, data=tmp_path))
    with pytest.raises(DataSetError, match="no preset"):
        estimate(installation, replace(config, preset="none"))


def test_measurement_is_queued_once(installation, database, config):
    assert start_measuring(installation, config)
    assert start_measuring(installation, config)
    assert not start_measuring(installation, replace(config, batch=2)), "another one is under way"
    assert measurements(database) == [(8, RunState.QUEUED)]


@pytest.mark.parametrize(("hours", "is_tried_again"), [(0.5, False), (2, True)])
def test_measurement_that_failed_is_tried_again_after_a_while(installation, database, config, hours, is_tried_again):
    failed_at = datetime.now(UTC) - timedelta(hours=hours)
    measured(database, measure_config("baseline", 8), 0.0, state=RunState.FAILED, result=None, queued_at=failed_at)
    assert start_measuring(installation, config) == is_tried_again
    assert not estimate(installation, config).is_measured


def test_training_run_does_not_wait_for_a_measurement(installation, database, config):
    start_measuring(installation, config)
    training.queue_training(installation, config)
    assert measurements(database) == [(8, RunState.CANCELLED)]
    assert [summary.run.kind for summary in training.list_runs(installation)] == [RunKind.TRAIN]


def test_nothing_is_measured_beside_a_run(installation, database, config):
    train(database, 1, state=RunState.QUEUED)
    assert not start_measuring(installation, config)
    assert measurements(database) == []


def test_run_measures_this_machine(installation, database, config):
    small = replace(config, batch=2, preset_values=with_network(width=4, depth=2))
    assert start_measuring(installation, small)
    run = begun(database)
    carry_out(installation, run, Host())
    done = get_run(installation, run.id)
    assert (done.state, done.failure) == (RunState.DONE, None)
    found = estimate(installation, small)
    assert found.is_measured
    assert found.memory_mb > 100
    assert training.list_runs(installation) == ()
    assert not start_measuring(installation, small)
