"""`lungseg serve`: the server in the foreground, with a worker beside it."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Annotated

import typer

from lungseg.cli.console import out, warn
from lungseg.cli.installation import opened_installation
from lungseg.config import SITE, Settings
from lungseg.errors import LungSegError, SetupError
from lungseg.processes import environment_with, handle_end_signals, lifeline
from lungseg.services.bind_check import check_host, check_port

READY_WITHIN_S = 60.0
ASK_EVERY_S = 0.1
POLITE_S = 10.0


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: LUNGSEG_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: LUNGSEG_PORT.")] = None,
) -> None:
    """Start the server and a worker, print the address, go on until interrupted."""
    from lungseg.services.home import open_home

    settings = Settings.from_environment()
    settings = replace(settings, host=host or settings.host, port=port or settings.port)
    check_host(settings.host, settings)
    check_port(settings.host, settings.port)
    open_home(settings)
    with _server(settings) as server:
        _prepare(settings)
        if _becomes_ready(server, settings):
            host = _reachable(settings.host)
            address = f"[{host}]" if ":" in host else host
            out.print(
                f"LungSeg is at http://{address}:{settings.port} (research use only). Stop it with Ctrl-C.",
                soft_wrap=True,
            )
        server.wait()


@contextmanager
def _server(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run Streamlit in a process of its own, which keeps a worker alive; SIGINT and SIGTERM leave the block, end both.

    They hang on a lifeline: they end with this process also where it is killed. In a session of its own the server does
    not get the terminal's Ctrl-C a second time.

    Raises:
        SetupError: it ended though nobody stopped it.
    """
    options = {
        "server.address": settings.host,
        "server.port": settings.port,
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
        "logger.hideWelcomeMessage": "true",
    }
    command = [sys.executable, "-m", "streamlit", "run", str(SITE / "app.py")]
    command += [f"--{name}={value}" for name, value in options.items()]
    with lifeline() as line:
        environment = settings.to_environment() | environment_with(line)
        server = subprocess.Popen(command, cwd=SITE, env=environment, start_new_session=True, pass_fds=(line,))
        handle_end_signals(signal.default_int_handler)
        try:
            yield server
        except KeyboardInterrupt:
            return
        finally:
            handle_end_signals(signal.SIG_IGN)
            _end(server)
    raise SetupError(f"The server ended with code {server.returncode}.", "See its messages above.")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server: politely, and after a while by force, since open pages may keep it."""
    server.terminate()
    try:
        server.wait(POLITE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _prepare(settings: Settings) -> None:
    """Migrate the database and, where it is new, add the demo case."""
    from lungseg.services import demo
    from lungseg.services.home import open_installation

    with opened_installation(settings) as installation:
        try:
            open_installation(installation)
            demo.welcome(installation)
        except LungSegError as error:
            warn(f"The demo case is not ready. {error}")


def _becomes_ready(server: subprocess.Popen[bytes], settings: Settings) -> bool:
    """Wait until the server answers; False where it ended, or does not answer in time."""
    deadline = time.monotonic() + READY_WITHIN_S
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(_reachable(settings.host), settings.port, timeout=1.0)
            connection.request("GET", "/_stcore/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return True
        time.sleep(ASK_EVERY_S)
    return False


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a server on all interfaces is asked here
