"""What a training run will cost: from epochs that were trained here, else from a few measured steps, else by a rule.

No torch here: a run of kind MEASURE takes the steps, and its result is what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from lungseg.dataset.store import SliceStore, is_store
from lungseg.db import training as rows
from lungseg.errors import DataSetError, LungSegError
from lungseg.records.run_configs import MeasureConfig, TrainConfig
from lungseg.records.run_results import MeasureResult
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import EpochRecord, Run
from lungseg.scans.formats import open_scan
from lungseg.services.datasets import allowed_folder, open_registered, store_of
from lungseg.services.installation import Installation
from lungseg.services.presets import with_preset_values
from lungseg.services.runs import blank_run
from lungseg.services.training import checked_data, is_any_active, preset_of
from lungseg.training.presets import AnyPreset, SlicePreset
from lungseg.wording import counted

MOST_EPOCHS = 20
HELD_OUT = 0.2
"""Share of the patients that is held out where no folds are ordered."""
FORWARD = 1 / 3
"""Cost of applying a network to a slice, in parts of that of learning from it."""
PREPARE_S = 5.0
"""Time to prepare a full-size scan that is in no store yet: four took 4 s on two free cores, 39 s on busy ones."""
SECONDS_PER_MEGAWEIGHT = 0.02
"""Rule of thumb before anything was measured: seconds to learn from one 256 x 256 slice, for a million weights; two
cores with bf16 took 0.57 s for the 31 million of `baseline`, 0.17 s for the 7.8 million of `neighbours`."""
MEGABYTES_AT_LEAST, MEGABYTES_PER_CHANNEL = 600.0, 1.6
"""Likewise: 1,410 MB for 8 slices at width 64, 1,010 MB at width 32."""
MOST_MEASUREMENTS = 100
MEASURE_AGAIN = timedelta(hours=1)
"""A measurement that failed is tried again after this time at the earliest."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training run will cost, about.

    Attributes:
        seconds: of wall time.
        memory_mb: in use.
        basis: one sentence on where the figures come from.
        is_measured: whether this machine has shown its pace with this preset.
    """

    seconds: float
    memory_mb: float
    basis: str
    is_measured: bool


@dataclass(frozen=True, slots=True)
class _Request:
    """What is to be estimated, with the numbers of the preset where the config has none."""

    preset: AnyPreset
    data: Path
    epochs: int
    batch: int
    held_out: float
    measurement: MeasureConfig

    @classmethod
    def of(cls, installation: Installation, config: TrainConfig) -> _Request:
        config = with_preset_values(installation, config)
        preset = preset_of(config)
        batch = config.batch or preset.optimisation.batch
        return cls(
            preset=preset,
            data=checked_data(installation, replace(config, data=allowed_folder(installation, config.data))),
            epochs=config.epochs or preset.optimisation.epochs,
            batch=batch,
            held_out=_held_out(config),
            measurement=MeasureConfig(
                preset=config.preset,
                preset_values=config.preset_values,
                batch=batch,
                device=config.device or installation.settings.device,
            ),
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """Slices that an epoch shows and that validation looks at after it, and the seconds until they are prepared."""

    train: float
    held_out: float
    prepare_s: float

    def seconds(self, epochs: int, slices_per_s: float) -> float:
        """Return the time of a whole run; calibrating and scoring at the end look at what is held out twice more."""
        slices = epochs * (self.train + FORWARD * self.held_out) + 2 * FORWARD * self.held_out
        return self.prepare_s + slices / max(slices_per_s, 1e-3)


def estimate(installation: Installation, config: TrainConfig) -> Estimate:
    """Say what a training run will cost.

    Raises:
        DataSetError: the data can't be used, or a field is out of range.
    """
    request = _Request.of(installation, config)
    work = _work(installation, request)
    with installation.database.read() as session:
        trained = rows.latest_epochs(session, request.preset.name, MOST_EPOCHS)
    alike = [(run, epoch) for run, epoch in trained if _is_like(run, request)]
    if alike:
        return _from_epochs(alike, request, work)
    measurement = _latest_measurement(installation, request)
    result = measurement.result_as(MeasureResult) if measurement else None
    if result and result.slices_per_s > 0:
        seconds = work.seconds(request.epochs, result.slices_per_s)
        return Estimate(seconds, result.memory_mb, "From a few measured steps on this machine.", is_measured=True)
    return _by_rule(request, work)


def start_measuring(installation: Installation, config: TrainConfig) -> bool:
    """Queue a run that takes a few steps with a preset, unless that was done before or something runs already.

    Returns:
        Whether a measurement is under way; `estimate` tells its result as soon as there is one.

    Raises:
        DataSetError: the data can't be used, or a field is out of range.
    """
    request = _Request.of(installation, config)
    latest = _latest_measurement(installation, request)
    if latest and not latest.state.is_final:
        return True
    is_too_soon = latest and latest.state is RunState.FAILED and datetime.now(UTC) - latest.queued_at < MEASURE_AGAIN
    if is_too_soon or (latest and latest.state is RunState.DONE) or is_any_active(installation, frozenset(RunKind)):
        return False
    installation.executor.submit(blank_run(RunKind.MEASURE, request.measurement))
    return True


def _latest_measurement(installation: Installation, request: _Request) -> Run | None:
    """Return the newest run that measured what a request needs, or is to; None where there is none."""
    with installation.database.read() as session:
        measured = rows.recent_runs(session, {RunKind.MEASURE}, MOST_MEASUREMENTS)
    return next((run for run in measured if run.config == request.measurement), None)


def _is_like(run: Run, request: _Request) -> bool:
    config = run.config_as(TrainConfig)
    is_same_preset = config.preset_values is None or config.preset_values == request.measurement.preset_values
    return is_same_preset and config.device in {None, request.measurement.device}


def _from_epochs(alike: list[tuple[Run, EpochRecord]], request: _Request, work: _Work) -> Estimate:
    """Take whole epochs where the same was trained before, else their pace."""
    same = [epoch for run, epoch in alike if _is_same(run, request)]
    memory_mb = max(epoch.memory_mb for _, epoch in alike)
    if same:
        seconds = median(epoch.seconds for epoch in same)
        whole = work.prepare_s + request.epochs * seconds + seconds * work.held_out / (work.train + work.held_out)
        basis = f"From {counted(len(same), 'epoch')} of this preset on these data here."
        return Estimate(whole, memory_mb, basis, is_measured=True)
    pace = median(epoch.slices_per_s for _, epoch in alike)
    basis = f"From {counted(len(alike), 'epoch')} of this preset on other data here."
    return Estimate(work.seconds(request.epochs, pace), memory_mb, basis, is_measured=True)


def _is_same(run: Run, request: _Request) -> bool:
    config = run.config_as(TrainConfig)
    batch = config.batch or request.preset.optimisation.batch
    return (run.dataset, batch, _held_out(config)) == (str(request.data), request.batch, request.held_out)


def _held_out(config: TrainConfig) -> float:
    return 1 / config.folds if config.folds else HELD_OUT


def _by_rule(request: _Request, work: _Work) -> Estimate:
    width, depth = request.preset.network.width, request.preset.network.depth
    megaweights = 31.0 * (width / 64) ** 2 * 4.0 ** (depth - 4)
    memory_mb = MEGABYTES_AT_LEAST + MEGABYTES_PER_CHANNEL * width * request.batch
    seconds = work.seconds(request.epochs, 1 / (SECONDS_PER_MEGAWEIGHT * megaweights))
    basis = "A rule of thumb for two processor cores: this preset has not been tried on this machine yet."
    return Estimate(seconds, memory_mb, basis, is_measured=False)


def _work(installation: Installation, request: _Request) -> _Work:
    if request.preset.optimisation.steps is not None:
        return _Work(request.preset.optimisation.steps * request.batch, 0.0, 0.0)
    data = request.data
    store = data if is_store(data) else store_of(installation, data)
    try:
        depths = [len(case.slice_tumour_px) for case in SliceStore.open(store).cases]
        prepare_s = 0.0
    except DataSetError:
        depths = [_depth(pair.scan) for pair in open_registered(installation, data).labelled]
        prepare_s = PREPARE_S * len(depths)
    skipped = request.preset.skip_slices if isinstance(request.preset, SlicePreset) else 0
    shown = sum(depth - min(skipped, depth // 3) for depth in depths)
    return _Work(max(1.0, (1 - request.held_out) * shown), request.held_out * sum(depths), prepare_s)


def _depth(scan: Path) -> int:
    try:
        with open_scan(scan) as reader:
            return reader.grid.to_ras().shape[2]
    except LungSegError:
        return 0
