"""What a training run will cost: from epochs that were trained here, else from a few measured steps, else by a rule.

No torch here: `start_measuring` lets a process of its own take the steps, and what it finds is kept for the next time.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lungseg.config import CHECKOUT, Settings
from lungseg.dataset.store import SliceStore, is_store
from lungseg.db import Database
from lungseg.db import training as rows
from lungseg.decoding import Finite, Natural, decode_file, decode_value
from lungseg.errors import DataSetError, LungSegError, StorageError
from lungseg.files import atomic
from lungseg.records import EpochRecord, Run
from lungseg.scans import nifti
from lungseg.services.datasets import find_store, open_known, unregistered_store
from lungseg.services.installation import Installation
from lungseg.services.training import checked_data, is_any_active, with_allowed_data
from lungseg.training.presets import Preset, SlicePreset, find_preset
from lungseg.wording import counted

log = logging.getLogger(__name__)

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
PACES = "paces.json"
MEASURING_S = 180.0
"""A measurement that was begun this long ago has failed."""


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
class Throughput:
    """How quickly a network learns on this machine, and what memory it takes."""

    slices_per_s: Finite
    memory_mb: Finite


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a run's configuration says of its training, as far as it is not the preset's."""

    batch: Natural | None = None
    folds: Natural | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be estimated, with the numbers of the preset where none are given."""

    preset: Preset
    data: Path
    epochs: int
    batch: int
    device: str
    held_out: float

    @classmethod
    def of(cls, settings: Settings, database: Database, fields: Mapping[str, Any]) -> _Order:
        preset = find_preset(fields["preset"])
        return cls(
            preset=preset,
            data=checked_data(
                Installation(settings, database), with_allowed_data(Installation(settings, database), fields)
            ),
            epochs=int(fields.get("epochs") or preset.schedule.epochs),
            batch=int(fields.get("batch") or preset.schedule.batch),
            device=str(fields.get("device") or settings.device),
            held_out=1 / int(fields["folds"]) if fields.get("folds") else HELD_OUT,
        )

    @property
    def key(self) -> str:
        """Name what a pace was measured with."""
        return f"{self.preset.name}/{self.batch}/{self.device}"


@dataclass(frozen=True, slots=True)
class _Work:
    """What an order asks for, in slices.

    Attributes:
        train: slices that an epoch shows.
        held_out: slices that validation looks at after each.
        prepare_s: seconds until the slices are there.
    """

    train: float
    held_out: float
    prepare_s: float

    def seconds(self, epochs: int, slices_per_s: float) -> float:
        """Return the time of a whole run; calibrating and scoring at the end look at what is held out twice more."""
        slices = epochs * (self.train + FORWARD * self.held_out) + 2 * FORWARD * self.held_out
        return self.prepare_s + slices / max(slices_per_s, 1e-3)


def estimate(installation: Installation, fields: Mapping[str, Any]) -> Estimate:
    """Say what a training run will cost.

    Args:
        installation: whose it is.
        fields: as `services.training.queue_training` takes them.

    Raises:
        DataSetError: the data can't be used, or a field is out of range.
    """
    order = _Order.of(installation.settings, installation.database, fields)
    work = _work(installation, order)
    with installation.database.read() as session:
        known = [each for each in rows.latest_epochs(session, order.preset.name, MOST_EPOCHS) if _is_like(each, order)]
    if known:
        return _from_epochs(known, order, work)
    pace = _paces(installation.settings).get(order.key)
    if pace:
        seconds = work.seconds(order.epochs, pace.slices_per_s)
        return Estimate(seconds, pace.memory_mb, "From a few measured steps on this machine.", is_measured=True)
    return _by_rule(order, work)


def start_measuring(installation: Installation, fields: Mapping[str, Any]) -> bool:
    """Start a process that takes a few steps with a preset, unless that was done before or something runs already.

    Returns:
        Whether a measurement is under way; `estimate` tells its result as soon as there is one.

    Raises:
        DataSetError: the data can't be used, or a field is out of range.
    """
    order = _Order.of(installation.settings, installation.database, fields)
    if order.key in _paces(installation.settings) or is_any_active(installation):
        return False
    mark = installation.settings.home / "measuring"
    if mark.exists() and 0 <= time.time() - mark.stat().st_mtime < MEASURING_S:  # a clock may have been set back since
        return mark.read_bytes() == order.key.encode()
    atomic.write_bytes(mark, order.key.encode())
    _start(installation.settings, order)
    return True


def keep_pace(settings: Settings, preset: str, batch: int, device: str, pace: Throughput) -> None:
    """Keep what was measured, and say that the measurement is over.

    Raises:
        StorageError: it can't be written.
    """
    known = {key: asdict(each) for key, each in _paces(settings).items()}
    known[f"{preset}/{batch}/{device}"] = asdict(pace)
    atomic.write_json(settings.home / PACES, known)
    (settings.home / "measuring").unlink(missing_ok=True)


def _start(settings: Settings, order: _Order) -> None:
    settings.logs.mkdir(parents=True, exist_ok=True)
    arguments = (order.preset.name, "--batch", str(order.batch), "--device", order.device)
    with (settings.logs / "measure.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lungseg", "measure", *arguments],
            cwd=CHECKOUT,
            env=settings.to_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    log.info("measuring %s, process %d", order.key, process.pid)
    threading.Thread(target=process.wait, name="measure-reaper", daemon=True).start()  # leaves no zombie


def _paces(settings: Settings) -> dict[str, Throughput]:
    """Read what was measured; damaged entries count as none."""
    found: dict[str, Throughput] = {}
    with suppress(StorageError):
        known = decode_file(dict[str, Any], settings.home / PACES, _unreadable)
        for key, fields in known.items():
            with suppress(StorageError):
                found[key] = decode_value(Throughput, fields, _unreadable)
    return {key: pace for key, pace in found.items() if pace.slices_per_s > 0}


def _unreadable(reason: str) -> StorageError:
    return StorageError(f"{PACES} can't be read ({reason}).", "Delete it: this machine is measured again.")


def _is_like(known: tuple[Run, EpochRecord], order: _Order) -> bool:
    trained = _trained(known[0])
    return trained is not None and trained.device in {None, order.device}


def _from_epochs(known: list[tuple[Run, EpochRecord]], order: _Order, work: _Work) -> Estimate:
    """Take whole epochs where the same was trained before, else their pace."""
    same = [epoch for run, epoch in known if _is_same(run, order)]
    memory_mb = max(epoch.memory_mb for _, epoch in known)
    if same:
        seconds = median(epoch.seconds for epoch in same)
        whole = work.prepare_s + order.epochs * seconds + seconds * work.held_out / (work.train + work.held_out)
        return Estimate(whole, memory_mb, f"From {_counted(same)} of this preset on these data here.", is_measured=True)
    pace = median(epoch.slices_per_s for _, epoch in known)
    basis = f"From {_counted(known)} of this preset on other data here."
    return Estimate(work.seconds(order.epochs, pace), memory_mb, basis, is_measured=True)


def _is_same(run: Run, order: _Order) -> bool:
    trained = _trained(run)
    if trained is None:
        return False
    batch, held_out = trained.batch or order.preset.schedule.batch, 1 / trained.folds if trained.folds else HELD_OUT
    return (run.dataset, batch, held_out) == (str(order.data), order.batch, order.held_out)


def _trained(run: Run) -> _Trained | None:
    """Read with which numbers a run was trained; None where its record is damaged."""
    try:
        return decode_value(_Trained, run.configuration, _unreadable)
    except StorageError:
        return None


def _counted(epochs: list[Any]) -> str:
    return counted(len(epochs), "epoch")


def _by_rule(order: _Order, work: _Work) -> Estimate:
    width, depth = order.preset.network.width, order.preset.network.depth
    megaweights = 31.0 * (width / 64) ** 2 * 4.0 ** (depth - 4)
    memory_mb = MEGABYTES_AT_LEAST + MEGABYTES_PER_CHANNEL * width * order.batch
    seconds = work.seconds(order.epochs, 1 / (SECONDS_PER_MEGAWEIGHT * megaweights))
    basis = "A rule of thumb for two processor cores: this preset has not been tried on this machine yet."
    return Estimate(seconds, memory_mb, basis, is_measured=False)


def _work(installation: Installation, order: _Order) -> _Work:
    if order.preset.schedule.steps is not None:
        return _Work(order.preset.schedule.steps * order.batch, 0.0, 0.0)
    data = order.data
    store = (
        data if is_store(data) else find_store(installation, data) or unregistered_store(installation.settings, data)
    )
    try:
        depths = [len(case.slice_tumour_px) for case in SliceStore.open(store).cases]
        prepare_s = 0.0
    except DataSetError:
        depths = [_depth(pair.scan) for pair in open_known(installation, data).labelled]
        prepare_s = PREPARE_S * len(depths)
    skipped = order.preset.skip_slices if isinstance(order.preset, SlicePreset) else 0
    shown = sum(depth - min(skipped, depth // 3) for depth in depths)
    return _Work(max(1.0, (1 - order.held_out) * shown), order.held_out * sum(depths), prepare_s)


def _depth(scan: Path) -> int:
    try:
        return nifti.read_grid(scan).to_ras().shape[2]
    except LungSegError:
        return 0
