"""Who may ask this server, and what a browser may do with its answers; decided before Streamlit sees the request.

Every page that is open in a browser of this machine reaches a server on the loopback address. So a request has to name
a host of this server (a foreign name that resolves to 127.0.0.1 is none), and its origin, if it has one, has to be the
server itself. For a foreign origin Streamlit would ask a host on the internet for this machine's own address, and serve
nobody meanwhile: no such request reaches it.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import logging
import re
import socket
import time

import psutil
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lungseg.config import Settings
from lungseg.errors import AccessError, LungSegError, NotFoundError
from lungseg.services.bind_check import is_loopback

log = logging.getLogger(__name__)

HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII)
EVERY_INTERFACE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised, not bound to
INLINE_SCRIPT = re.compile(r"<script(?![^>]*\ssrc\s*=)[^>]*>(.*?)</script\s*>", re.IGNORECASE | re.DOTALL)
STREAM = "/_stcore/stream"
UNNEEDED = re.compile(r"/(_stcore/(?!health$|host-config$|upload_file/)|component/|auth/|oauth2callback$|app/static/)")
"""Addresses of Streamlit that no page of ours asks for. Whole folders are closed, so that additions of a later release
are closed as well. Today these are `_stcore/metrics` (memory and session counts, for whoever asks), `_stcore/agent/`
(drives the app without a browser, once an option is set), `_stcore/script-health-check` (runs the pages' script),
`_stcore/bidi-components/` and `component/` (files of components: ours is sent inline), `auth/` and `oauth2callback`
(there is no login), `app/static/` (files of a folder that we do not have)."""
FOREIGN_SITES = frozenset({"cross-site", "same-site"})
"""`Sec-Fetch-Site` of a request that another page caused; a page on another port of this machine is `same-site`."""
MISDIRECTED, FORBIDDEN, NOT_FOUND, FAILED = 421, 403, 404, 500
POLICY_VIOLATION = 1008
NOTE_EVERY_S = 1.0

HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), camera=(), clipboard-read=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), "
        "idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), "
        "publickey-credentials-get=(), serial=(), usb=(), xr-spatial-tracking=()"
    ),
}
"""On every answer, beside its content policy. `clipboard-write` stays allowed: pages copy addresses."""

Refusal = tuple[int, LungSegError]


class Guard:
    """ASGI middleware: refuses foreign requests, closes addresses that no page needs, sets security headers.

    A refused request gets a JSON answer with code, fault and remedy: 421 for a host that is not ours, 403 for a foreign
    origin or site, 404 for a closed address. A websocket is refused before it opens; the log has the reason.
    """

    def __init__(self, app: ASGIApp, settings: Settings, address: str | None, page: str) -> None:
        """Wrap an application.

        Args:
            app: the application behind the guard.
            settings: of the installation, with the allowed hosts.
            address: what the server binds to; None or "" means every interface.
            page: the HTML of every page, with the inline scripts that may run.
        """
        self._app = app
        self._hosts = _Hosts(address, settings.allowed_hosts)
        self._hashes = inline_hashes(page)
        self._noted_s = -NOTE_EVERY_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a foreign request; pass on any other, with headers on its answer."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = self._hosts.own(headers.getlist("host"))
        answer = _Answer(scope, receive, send, _content_policy(host, self._hashes))
        refusal = _refusal_of(scope, headers, host)
        if refusal is not None:
            self._note(refusal[1])
            await answer.refuse(*refusal)
            return
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            # Starlette would answer outside every middleware, without our headers; it still logs the error.
            if scope["type"] == "http" and not answer.is_started:
                await answer.refuse(FAILED, LungSegError("The server could not answer.", "See its log."))
            raise

    def _note(self, error: LungSegError) -> None:
        """Log a refusal, at most one per second: any page that is open in a browser can cause thousands."""
        now = time.monotonic()
        if now - self._noted_s >= NOTE_EVERY_S:
            self._noted_s = now
            log.warning("refused a request: %s", error)


class _Hosts:
    """The names and addresses that this server goes by."""

    def __init__(self, address: str | None, allowed: tuple[str, ...]) -> None:
        """Take the address that the server binds to (None or "" means every interface) and the allowed names."""
        bound = _normalised(address or "")
        self._is_everywhere = bound in EVERY_INTERFACE
        self._names = {_normalised(name) for name in allowed} | ({bound} - EVERY_INTERFACE)

    def own(self, values: list[str]) -> str | None:
        """Return the value of the one Host header where it names this server, else None.

        The port does not matter: behind a published port or a proxy it differs from ours.
        """
        match = HOST.fullmatch(values[0]) if len(values) == 1 else None
        return values[0] if match and self._is_own(_normalised(match["name"])) else None

    def _is_own(self, name: str) -> bool:
        return name in self._names or is_loopback(name) or (self._is_everywhere and name in _addresses())


def _refusal_of(scope: Scope, headers: Headers, host: str | None) -> Refusal | None:
    """Return with which status and why a request is refused; None where it is not.

    `host` is its Host header; None where that does not name this server.
    """
    if host is None:
        return MISDIRECTED, AccessError(
            f"The request is for {_header(headers, 'host')}, which is no name of this server.",
            "Open LungSeg at the address that it printed when it started, or add the name to LUNGSEG_ALLOWED_HOSTS.",
        )
    if not _is_from_own_origin(scope, headers, host):
        return FORBIDDEN, AccessError(
            f"The request comes from {_header(headers, 'origin')}, not from a page of {host}.",
            "Open LungSeg at its own address. A proxy in front of it has to hand on Host and Origin unchanged.",
        )
    if _is_caused_by_another_site(scope, headers):
        return FORBIDDEN, AccessError("Another site asked for this, not a page of LungSeg.", "Open LungSeg itself.")
    if not _is_needed(scope):
        return NOT_FOUND, NotFoundError("There is nothing at this address.", "Open LungSeg at its own address.")
    return None


def _content_policy(host: str | None, hashes: tuple[str, ...]) -> str:
    """Return what a page may load, run and connect to: this server, nothing else; `hashes` are of inline scripts."""
    # Browsers before 2022 do not take 'self' to include its websocket; an IPv6 address can't be written in a policy.
    stream = f" ws://{host} wss://{host}" if host and not host.startswith("[") else ""
    directives = {
        "default-src": "'none'",
        # Streamlit loads the script of a component from a blob. Its protocol buffers use WebAssembly for long integers,
        # and work without it, more slowly.
        "script-src": " ".join(("'self'", "blob:", "'wasm-unsafe-eval'", *hashes)),
        "worker-src": "'self'",
        "style-src": "'self' 'unsafe-inline'",  # Streamlit and plotly write styles as they go
        "img-src": "'self' data: blob:",
        "media-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": f"'self'{stream}",
        "manifest-src": "'self'",
        "object-src": "'none'",
        "frame-src": "'none'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
    }
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())


def inline_hashes(html: str) -> tuple[str, ...]:
    """Return the sources of a page's inline scripts for a policy: their sha256."""
    digests = (hashlib.sha256(script.encode()).digest() for script in INLINE_SCRIPT.findall(html))
    return tuple(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


class _Answer:
    """The answer to one request, with each of our headers on it once."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, policy: str) -> None:
        self.is_started = False
        self._scope = scope
        self._receive = receive
        self._send = send
        ours = {**HEADERS, "Content-Security-Policy": policy}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in ours.items()]

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        if message["type"] == "http.response.start":
            self.is_started = True
            names = {name for name, _ in self._headers}
            others = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*others, *self._headers]}
        await self._send(message)

    async def refuse(self, status: int, error: LungSegError) -> None:
        """Answer with an error; a websocket is closed before it opens, which the server turns into an empty 403."""
        if self._scope["type"] == "websocket":
            await self.send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.code})
            return
        body = {"code": error.code, "found": error.found, "remedy": error.remedy}
        response = JSONResponse(body, status, headers={"Cache-Control": "no-store"})
        await response(self._scope, self._receive, self.send)


def _is_from_own_origin(scope: Scope, headers: Headers, host: str) -> bool:
    """Tell whether a request comes from a page of this server, as far as it has an origin.

    Origin and host are compared literally, as Streamlit does, so that what passes here causes no look-up there. A
    websocket has to have an origin: browsers always send it, and a proxy that removes it would let every page in.
    """
    origins = headers.getlist("origin")
    if not origins and scope["type"] == "http":
        return True
    return origins in ([f"http://{host}"], [f"https://{host}"])


def _is_caused_by_another_site(scope: Scope, headers: Headers) -> bool:
    """Tell whether a page of another site caused a request, other than by a link that opens LungSeg in its window.

    Browsers mark requests without an origin so, such as those for pictures, scripts and frames. A websocket has an
    origin.
    """
    if scope["type"] != "http" or not FOREIGN_SITES & set(headers.getlist("sec-fetch-site")):
        return False
    aim = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return scope["method"] not in {"GET", "HEAD"} or aim != ("navigate", "document")


def _is_needed(scope: Scope) -> bool:
    path: str = scope["path"]
    if scope["type"] == "websocket":
        return path.endswith(STREAM)
    return UNNEEDED.search(path) is None


def _header(headers: Headers, name: str) -> str:
    """Return a header for a message."""
    values = headers.getlist(name)
    return f"{name} {values[0]!r}" if len(values) == 1 else f"{len(values) or 'no'} {name}s"


def _normalised(name: str) -> str:
    bare = name.removeprefix("[").removesuffix("]").lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


def _addresses() -> set[str]:
    """List the addresses of this machine's interfaces, which change while a server runs."""
    interfaces = (entry for entries in psutil.net_if_addrs().values() for entry in entries)
    families = {socket.AF_INET, socket.AF_INET6}
    return {_normalised(entry.address.partition("%")[0]) for entry in interfaces if entry.family in families}
