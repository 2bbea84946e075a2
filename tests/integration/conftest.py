"""An installation whose worker trains the preset for tests."""

import os
import runpy
import subprocess
import sys
from contextlib import closing

import pytest

from lungseg.config import CHECKOUT
from lungseg.db import open_database
from lungseg.training import presets
from tests.data_sets import write_data_set

SMALL_PRESETS = CHECKOUT / "tests" / "small_presets"


@pytest.fixture
def database(settings):
    with closing(open_database(settings.database_url)) as database:
        yield database


@pytest.fixture
def fields(environment, tmp_path, monkeypatch):
    """What the page would order; child processes find the presets for tests through PYTHONPATH."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SMALL_PRESETS), str(CHECKOUT)]))
    known = dict(presets.PRESETS)
    runpy.run_path(str(SMALL_PRESETS / "sitecustomize.py"))
    yield {"data": str(write_data_set(tmp_path / "set")), "preset": "small", "device": "cpu", "name": "my try / 1"}
    presets.PRESETS.clear()
    presets.PRESETS.update(known)


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
