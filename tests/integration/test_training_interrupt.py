"""Ctrl-C and kill -9 in the middle of training, and what becomes of the loaders."""

import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import replace

import psutil
import pytest

from lungseg.db import open_database
from lungseg.records.run_states import RunState
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.services import training
from lungseg.services.installation import Installation
from tests.narrowing import existing
from tests.presets import write_preset
from tests.runs_at_work import wait_for
from tests.training_data import TINY, write_data

ENDLESS = replace(TINY, optimisation=replace(TINY.optimisation, epochs=1000))

SLOW_LOADER = """
import time, torch
from lungseg.training import batches
class Epoch:
    def __len__(self): return 100
    def __getitem__(self, n): return batches.Batch(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8))
set_up = batches._set_up
def slowly(process):
    print("begun", flush=True)
    time.sleep(1)
    set_up(process)
batches._set_up = slowly
list(batches.load(Epoch(), 1))
"""


@pytest.mark.parametrize("is_recorded", [False, True])
def test_interrupt_keeps_the_best_checkpoint_and_ends_every_process(tmp_path, environment, is_recorded):
    data, output = write_data(tmp_path / "data"), tmp_path / "out"
    place = [] if is_recorded else ["--output", str(output)]
    preset = write_preset(tmp_path / "presets", ENDLESS)
    command = [sys.executable, "-m", "lungseg", "train", "--preset", str(preset), "--data", str(data), *place]
    folder, card = (environment.runs, "*/tiny.json") if is_recorded else (output, "tiny.json")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            wait_for(lambda: [*folder.glob(card)] or process.poll() is not None)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert "what it has reached is kept" in errors
    assert "Traceback" not in errors
    weights = next(folder.glob(card)).with_suffix(".safetensors")
    assert existing(load_checkpoint(weights)[1].training.best_epoch) < 1000
    if is_recorded:
        with closing(open_database(environment.database_url)) as database:
            (summary,) = training.list_runs(Installation(environment, database))
        assert (summary.run.state, summary.run.id) == (RunState.CANCELLED, weights.parent.name)
    run = weights.parent.name if is_recorded else output
    assert errors.splitlines()[-1] == f"Stopped. Go on with: lungseg train --resume {run}"


def test_loader_whose_parent_is_killed_while_it_begins_ends_too():
    """A moment that torch's own watch over the parent does not cover."""
    with subprocess.Popen([sys.executable, "-c", SLOW_LOADER], stdout=subprocess.PIPE, text=True) as process:
        assert existing(process.stdout).readline() == "begun\n"
        (loader,) = psutil.Process(process.pid).children()
        process.kill()
    wait_for(lambda: not loader.is_running() or loader.status() == psutil.STATUS_ZOMBIE, seconds=20)
