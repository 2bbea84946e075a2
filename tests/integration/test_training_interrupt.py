"""Ctrl-C in the middle of training, as a terminal sends it: to the command and to its loaders."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from lungseg.checkpoint import load_checkpoint
from tests.training_data import write_data

COMMAND = """
import sys
from dataclasses import replace
from lungseg import cli
from lungseg.training import presets
from tests.training_data import TINY
presets.PRESETS["tiny"] = replace(TINY, schedule=replace(TINY.schedule, epochs=1000))
sys.argv = ["lungseg", "train", "--preset", "tiny", "--data", sys.argv[1], "--output", sys.argv[2]]
cli.main()
"""


def test_interrupt_keeps_the_best_checkpoint_and_ends_every_process(tmp_path, environment):
    data, output = write_data(tmp_path / "data"), tmp_path / "out"
    command = [sys.executable, "-c", COMMAND, str(data), str(output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            wait_for(lambda: (output / "tiny.json").is_file() or process.poll() is not None)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    assert "the best checkpoint is kept" in errors
    assert "Traceback" not in errors
    assert load_checkpoint(output / "tiny.safetensors")[1].training["best_epoch"] < 1000


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
