"""A large upload that loses its connection and its server three times: the same bytes, and no memory for them."""

import logging
import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager

import psutil
import pytest

from lungseg.config import CHECKOUT, Settings
from lungseg.files import keys
from lungseg.files.digests import sha256_of
from lungseg.services.local_executor import worker_lock
from tests.browser.conftest import stop, wait_until_ready
from tests.sessions import Session, peak_rss, rss_mb, write_noise
from tests.web import free_port

MEGABYTES = int(os.environ.get("UPLOAD_MEGABYTES", "256"))
ROOM_MB = 100
"""What the web process may grow by, whatever the size of the upload."""
GROUP = "c" * 32


@contextmanager
def web_server(settings, port):
    """Run the web process alone, so that it can be killed and started again on the same port."""
    command = [sys.executable, "-m", "streamlit", "run", str(CHECKOUT / "app.py"), f"--server.port={port}"]
    with (settings.home / "web.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=settings.to_environment(), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield psutil.Process(process.pid)
    finally:
        stop(process.pid)
        process.wait()


@contextmanager
def growing_little(process):
    """See to it that the web process does not grow with what it receives."""
    before = rss_mb(process)
    with peak_rss(process) as highest:
        yield
    assert highest[0] - before < ROOM_MB, f"the web process grew by {highest[0] - before:.0f} MB"
    logging.getLogger(__name__).info("%d MB: the web process grew by %.0f MB", MEGABYTES, highest[0] - before)


@pytest.fixture
def settings(tmp_path):
    """An installation in which no worker starts: it would unpack what was handed in before that is looked at."""
    home = tmp_path / "home"
    home.mkdir()
    settings = Settings(home=home, models=CHECKOUT / "models", viewer_folder=tmp_path, data_roots=(tmp_path,))
    with worker_lock(settings).acquire():
        yield settings


@pytest.mark.slow
def test_upload_outlives_broken_connections_and_killed_servers(settings, tmp_path):
    home, port = settings.home, free_port()
    study = write_noise(tmp_path / "study.zip", MEGABYTES)
    share = study.stat().st_size // 5
    with web_server(settings, port) as process, closing(Session(f"http://127.0.0.1:{port}")) as session:
        address = session.begin("study.zip", study.stat().st_size, group=GROUP)
        (path,) = (home / keys.RESUMABLE).glob("*.upload")
        with growing_little(process):
            for number in (1, 2):
                with session.sending(address, study, share):
                    pass  # the connection breaks
                assert session.settled(address) == number * share
        with session.sending(address, study, share):
            os.kill(process.pid, signal.SIGKILL)  # amid a body
            process.wait()
    assert 2 * share <= path.stat().st_size < study.stat().st_size
    with web_server(settings, port) as process, closing(Session(f"http://127.0.0.1:{port}")) as session:
        assert session.arrived(address) == path.stat().st_size
        with growing_little(process):
            session.append(address, study)
        assert sha256_of(path) == sha256_of(study)
        session.report(GROUP)
        assert list((home / keys.RESUMABLE).iterdir()) == []
        (handed,) = (home / keys.INTAKES).glob("*/upload/000001")
        assert sha256_of(handed) == sha256_of(study)
