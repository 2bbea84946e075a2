"""Whom the server lets in: nobody beyond this machine, unless the administrator said so."""

import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from lungseg.config import CHECKOUT
from lungseg.errors import SetupError
from lungseg.services.bind_check import check_host, check_port


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.9", "::1", "localhost"])
def test_loopback_is_served(settings, host):
    check_host(host, settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", None, "192.168.1.7", "lungseg.example"])
def test_everything_else_is_refused(settings, host):
    with pytest.raises(SetupError, match=r"would listen on .*there is no login\. .*LUNGSEG_ALLOW_UNAUTHENTICATED=1"):
        check_host(host, settings)


def test_everything_else_is_served_when_the_administrator_accepts_it(settings):
    check_host("0.0.0.0", replace(settings, allow_unauthenticated=True))


def test_port_of_another_program_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SetupError, match=rf"can't listen on 127\.0\.0\.1:{port} .*LUNGSEG_PORT"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("given", ["option", "variable"])
def test_serve_refuses_with_exit_code_2_before_anything_starts(settings, monkeypatch, given):
    monkeypatch.setenv("LUNGSEG_HOST", "0.0.0.0" if given == "variable" else "127.0.0.1")
    options = ["--host", "0.0.0.0"] if given == "option" else []
    command = [sys.executable, "-m", "lungseg", "serve", "--port", "8741", *options]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "setup.incomplete: The server would listen on 0.0.0.0" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(settings.home.iterdir()) == []
