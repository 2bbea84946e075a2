"""Asking routes for files without a network: one request through a Starlette application."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette

from lungseg.services import local_executor


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def answer(app, scope, receive, send) -> None:
    await app(scope, receive, send)


def ask(routes, address: str, **headers: str) -> Answer:
    """Send one GET request; header names are given with underscores."""
    path, _, query = address.partition("?")
    sent: list[dict[str, Any]] = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    app = Starlette(routes=routes)
    with ThreadPoolExecutor() as thread:  # where no loop runs yet: a browser test may have left one in this thread
        thread.submit(lambda: asyncio.run(answer(app, scope, receive, send))).result()
    start = sent[0]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body)


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_no_worker(monkeypatch):
    """Let the server believe that a worker is on its way whenever it wants one."""
    starting = SimpleNamespace(pid=0, poll=lambda: None)
    monkeypatch.setattr(local_executor, "_start", lambda settings: starting)
