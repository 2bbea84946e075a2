"""How soon the page can be used after a second start, and how small the web process stays."""

import shutil
import subprocess
import sys
import time

import psutil
import pytest

from lungseg.config import CHECKOUT
from lungseg.services.demo import DemoFiles
from tests.web import free_port


@pytest.fixture
def prepared(environment, demo_files, small_checkpoint, monkeypatch):
    """An installation with the real demo scan that was started once before; returns its port."""
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", str(small_checkpoint))
    environment.demo.mkdir()
    own = DemoFiles.of(environment)
    shutil.copyfile(demo_files.scan, own.scan)
    shutil.copyfile(demo_files.reference, own.reference)
    port = free_port()
    stop(start(port))
    return port


def start(port):
    """Start the server; returns when it has printed its address."""
    command = [sys.executable, "-m", "lungseg", "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("LungSeg is at")
    return process


def stop(process):
    with process:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.target(at_most={"median_s": 2, "web_rss_mb": 250})
def test_page_can_be_used_after_a_second_start(benchmark, prepared, page):
    running = []

    def open_page():
        running.append(start(prepared))
        page.goto(f"http://127.0.0.1:{prepared}/")
        page.locator("button.files:enabled").wait_for()

    def setup():
        while running:
            stop(running.pop())
        time.sleep(1)  # the worker of the last round leaves

    benchmark.pedantic(open_page, setup=setup, rounds=5)
    family = psutil.Process(running[0].pid).children()
    web = next(process for process in family if "streamlit" in process.cmdline())
    benchmark.extra_info["web_rss_mb"] = round(web.memory_info().rss / 1024**2)
    setup()
