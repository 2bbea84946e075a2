"""How fast slices are made and learned from, against a plain loop in the same run, and what memory it takes."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from lungseg.dataset.layout import open_data_set
from lungseg.dataset.store import prepare
from lungseg.processes import keep_freed_memory
from lungseg.segmentation.card import NetworkShape
from lungseg.segmentation.unet import UNet
from lungseg.training.augmentation import Augmentation
from lungseg.training.batches import load
from lungseg.training.optimisation import Optimisation
from lungseg.training.presets import SlicePreset
from lungseg.training.presets.files import find_preset
from lungseg.training.slices import SliceBatches, SliceTable, read_slice
from tests.data_sets import write_data_set
from tests.narrowing import of_type

PROCESSES = 2
STEPS = 4
ROUNDS = 3
BASELINE = of_type(SlicePreset, find_preset("baseline"))
PRESET = replace(BASELINE, network=NetworkShape(width=32, depth=4, channels=1))
"""The baseline at half its width: a round of the plain loop takes seconds instead of a minute."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return prepare(open_data_set(write_data_set(folder / "data", cases=3)), folder / "store").cases


def batches_of(cases, epoch, preset=BASELINE):
    return SliceBatches(cases, SliceTable.of(cases, preset.skip_slices), preset, seed=1, epoch=epoch)


@pytest.mark.target(at_least={"slices_per_s": 1000})
def test_input_pipeline(benchmark, cases):
    """Read, bend, scale and collate with as many processes as the goal names cores; starting them is not counted."""
    many = cases * 8
    rates: list[float] = []

    def epoch():
        batches = batches_of(many, len(rates) + 1)
        loading = iter(load(batches, PROCESSES))
        for _ in range(8):
            next(loading)
        started, slices = time.perf_counter(), 0
        for batch in loading:
            slices += len(batch)
        rates.append(slices / (time.perf_counter() - started))

    benchmark.pedantic(epoch, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["slices_per_s"] = max(rates)


def test_batch_in_one_process(benchmark, cases):
    """The processor's own time, which other work on the machine lengthens less than the time on the clock."""
    batches = batches_of(cases, 1)
    seconds: list[float] = []

    def one_batch():
        started = time.process_time()
        batches[len(seconds) % (len(batches) - 1)]
        seconds.append(time.process_time() - started)

    benchmark.pedantic(one_batch, rounds=30, warmup_rounds=2)
    benchmark.extra_info["slices_per_s_of_one_core"] = BASELINE.optimisation.batch / float(np.median(seconds))


class PlainLoop:
    """What one writes first: float32, NCHW, a file for each slice, read and bent where it is needed."""

    def __init__(self, cases, folder):
        self._folder, self._table = folder, SliceTable.of(cases, PRESET.skip_slices)
        for row in range(len(self._table)):
            case, k = cases[self._table.case[row]], int(self._table.k[row])
            np.save(folder / f"{row}.npy", read_slice(case, k, PRESET.preprocessing))
            np.save(folder / f"{row}.mask.npy", np.array(case.tumour[k]))
        self._augmentation = Augmentation(PRESET.augmentation, PRESET.preprocessing.padding)
        self._network = UNet(PRESET.network).train()
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=PRESET.optimisation.learning_rate)

    def epoch(self):
        rows = self._table.draw(1, 1)[: STEPS * PRESET.optimisation.batch]
        for chunk in np.split(rows, STEPS):
            items = [self._bent(row) for row in chunk]
            planes = torch.stack([torch.from_numpy(planes).permute(2, 0, 1) for planes, _ in items]).contiguous()
            tumour = torch.stack([torch.from_numpy(tumour)[None].float() for _, tumour in items])
            loss = nn.functional.binary_cross_entropy_with_logits(self._network(planes), tumour)
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()

    def _bent(self, row):
        planes, tumour = np.load(self._folder / f"{row}.npy"), np.load(self._folder / f"{row}.mask.npy")
        (bent,), (bent_tumour,) = self._augmentation.apply(int(row), [planes], [tumour])
        return bent, bent_tumour


class PlainProcess:
    """The plain loop in a process of its own, with the memory management that it finds there."""

    def __init__(self, *arguments):
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, arguments)

    def seconds(self):
        """Run an epoch; returns how long it took."""
        return self._pool.submit(_plain_seconds).result()

    def close(self):
        self._pool.shutdown()


_plain: PlainLoop
"""What a process of the pool keeps between calls."""


def _begin(*arguments):
    global _plain  # noqa: PLW0603
    _plain = PlainLoop(*arguments)


def _plain_seconds():
    started = time.perf_counter()
    _plain.epoch()
    return time.perf_counter() - started


def our_epoch(learner, cases):
    preset = replace(PRESET, optimisation=replace(PRESET.optimisation, steps=STEPS))
    for batch in load(batches_of(cases, 1, preset), 1):
        learner.step(batch, print)


@pytest.mark.target(at_least={"percent_of_the_plain_loop": 250})
def test_training_step_against_a_plain_loop(benchmark, cases, tmp_path):
    """Both in turn, so that whatever else the machine does weighs on both."""
    plain = PlainProcess(cases, tmp_path)
    keep_freed_memory()  # as the command and the child process do
    learner = Optimisation(UNet(PRESET.network), PRESET.optimisation, device=torch.device("cpu"), steps=100)
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}

    def both():
        seconds["plain"].append(plain.seconds())
        started = time.perf_counter()
        our_epoch(learner, cases)
        seconds["ours"].append(time.perf_counter() - started)

    benchmark.pedantic(both, rounds=ROUNDS, warmup_rounds=1)
    plain.close()
    plain_s, ours_s = (min(seconds[name][1:]) for name in ("plain", "ours"))
    benchmark.extra_info["slices_per_s_plain"] = STEPS * PRESET.optimisation.batch / plain_s
    benchmark.extra_info["slices_per_s"] = STEPS * PRESET.optimisation.batch / ours_s
    benchmark.extra_info["percent_of_the_plain_loop"] = 100 * plain_s / ours_s


@pytest.mark.target(at_most={"grown_mb": 50})
def test_memory_of_the_input_pipeline_does_not_grow_with_the_cases(benchmark, cases):
    """Sixty times the cases, here the same files over and over, and every slice of them read."""
    process = psutil.Process()
    grown = []

    def all_slices():
        many = cases * 20
        batches = batches_of(many, 1)
        batches[0]
        before = process.memory_info().rss
        for n in range(0, len(batches), 2):
            batches[n]
        grown.append((process.memory_info().rss - before) / 1024**2)

    benchmark.pedantic(all_slices, rounds=2)
    benchmark.extra_info["grown_mb"] = max(grown)
    assert max(grown) < 50
