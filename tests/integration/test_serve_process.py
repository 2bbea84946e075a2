"""`lungseg serve` as its user meets it: an address, a demo case, a small web process, and nothing left behind."""

import http.client
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from lungseg.config import CHECKOUT
from lungseg.db import open_database
from lungseg.records.run_states import RunState
from lungseg.scans import formats
from lungseg.services import cases
from lungseg.services.demo import DemoFiles
from lungseg.services.local_executor import is_worker_alive
from tests.installations import installation_of
from tests.phantoms import write_chest
from tests.runs_at_work import wait_for
from tests.scan_files import geometry_of
from tests.web import free_port

LARGEST_RSS_MB = 400


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def prepared(environment, small_checkpoint, monkeypatch):
    """An installation whose demo files are a phantom, known to child processes."""
    monkeypatch.setenv("LUNGSEG_MODELS", str(small_checkpoint.parent))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", small_checkpoint.stem)
    files = DemoFiles.of(environment)
    environment.demo.mkdir()
    lesion = write_chest(files.scan, "LPS")
    formats.write_mask(lesion, files.reference, geometry_of(files.scan))
    return environment


@pytest.fixture
def server(prepared, port):
    """The running server; whatever a test leaves of it is ended."""
    command = [sys.executable, "-m", "lungseg", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        family = []
        try:
            assert process.stdout is not None
            assert f"http://127.0.0.1:{port} " in process.stdout.readline()
            family = psutil.Process(process.pid).children(recursive=True)
            yield process
        finally:
            process.kill()
            for member in family:
                if member.is_running():
                    member.kill()


def get(port, path):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def web_process(server):
    return next(child for child in psutil.Process(server.pid).children() if "streamlit" in child.cmdline())


def test_server_segments_the_demo_case_stays_small_and_leaves_nothing_behind(server, prepared, port):
    assert get(port, "/")[0] == http.client.OK

    with closing(open_database(prepared.database_url)) as database:

        def finished():
            (summary,) = cases.list_cases(installation_of(database))
            return summary if summary.run and summary.run.state.is_final else None

        summary = wait_for(finished)
    assert summary.case.is_demo
    assert summary.run.state is RunState.DONE, summary.run.failure

    web = web_process(server)
    assert web.memory_info().rss < LARGEST_RSS_MB * 1024**2
    if sys.platform == "linux":
        assert "libtorch" not in Path(f"/proc/{web.pid}/maps").read_text()

    family = psutil.Process(server.pid).children(recursive=True)
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait(30) == 0
    wait_for(lambda: not any(member.is_running() for member in family), 20)
    assert not is_worker_alive(prepared)


def test_interrupt_ends_the_server(server, port):
    os.kill(server.pid, signal.SIGINT)
    assert server.wait(30) == 0
    with pytest.raises(ConnectionError):
        get(port, "/")


def test_server_that_ends_by_itself_is_reported(server):
    web_process(server).kill()
    assert server.wait(30) == 2


def test_second_server_on_the_port_is_refused(server, port):
    command = [sys.executable, "-m", "lungseg", "serve", "--port", str(port)]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert f"can't listen on 127.0.0.1:{port}" in result.stderr
    assert server.poll() is None
