"""An installation whose worker trains the preset for tests."""

import subprocess
import sys

import pytest

from lungseg.config import CHECKOUT
from lungseg.records.run_configs import TrainConfig
from tests.data_sets import write_data_set
from tests.presets import install_presets


@pytest.fixture
def fields(environment, tmp_path, monkeypatch):
    """What the page would order."""
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    install_presets(environment.home)
    return TrainConfig(data=write_data_set(tmp_path / "set"), preset="small", device="cpu", name="my try / 1")


@pytest.fixture
def worker(environment):
    """Start a worker; all of them are gone at the end."""
    started = []

    def start(*options):
        process = subprocess.Popen([sys.executable, "-m", "lungseg", "worker", *options], cwd=CHECKOUT)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
