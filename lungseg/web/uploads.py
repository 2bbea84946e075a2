"""Uploads on their way past Streamlit, which would keep each of them in memory as long as its session lives.

An upload is written to the disk piece by piece; Streamlit gets a ticket in its place: the signed name of the file, or
why there is none. The page opens the file by that ticket, and can say for each file why it was refused; an answer such
as 413 would never reach the page. An upload only ever becomes the content of a file, so nothing in it is taken for a
ticket, and a ticket that was not signed here counts as plain bytes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from anyio import CancelScope, to_thread
from itsdangerous import BadData, URLSafeSerializer
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lungseg.config import Settings
from lungseg.errors import DiskFullError, LungSegError, StorageError, TooLargeError
from lungseg.services.incoming import Arrival, UploadFolder, find_upload, remove_upload, sweep_incoming
from lungseg.web.signing import secret_of

log = logging.getLogger(__name__)

ADDRESS = "/_stcore/upload_file/"
"""Where Streamlit takes uploads; session and file follow."""
PIECE_BYTES = 256 * 1024
"""Size of the pieces in which an upload is written, each by a call in a thread."""
FRAME_BYTES = 64 * 1024
"""More than a form takes beside its file."""
SALT = "lungseg.uploads"
LONGEST_TICKET = 2048
SWEEP_EVERY_S = 60.0
ABANDONED_S = 300.0
"""Longer than Streamlit lets a closed session come back (`server.disconnectedSessionTTL`, 120 s)."""
SUCCESS = 2
"""First digit of the status."""
UPLOAD, REFUSAL = "upload", "refusal"
"""Kinds of tickets."""
REFUSALS: dict[str, type[LungSegError]] = {error.code: error for error in (TooLargeError, DiskFullError, StorageError)}

Key = tuple[str, str]
"""Session and file, as Streamlit names them."""


@contextmanager
def opened(settings: Settings, upload: BinaryIO) -> Iterator[BinaryIO]:
    """Open what Streamlit gives to a page as an upload; after the block its file is gone, in any case.

    Args:
        settings: of the installation.
        upload: a ticket; or an upload that did not pass `Uploads`, which is used as it is.

    Raises:
        TooLargeError: the upload was refused because it exceeds the limit.
        DiskFullError: it was refused because the disk has no room for it.
        StorageError: it was refused because it could not be written; or its file is gone.
    """
    ticket = read_ticket(secret_of(settings), upload.read(LONGEST_TICKET + 1))
    upload.seek(0)
    if ticket and ticket[0] == REFUSAL:
        _, code, found, remedy = ticket
        raise REFUSALS.get(code, StorageError)(found, remedy)
    path = find_upload(settings, ticket[1]) if ticket else None
    if path is None:
        yield upload
        return
    try:
        stream = path.open("rb")
    except OSError as error:
        raise StorageError("The upload is not there any more.", "Upload the file again.") from error
    try:
        with stream:
            yield stream
    finally:
        remove_upload(path)


def upload_ticket(secret: bytes, name: str) -> bytes:
    """Sign the name of an upload."""
    return _sign(secret, UPLOAD, name)


def refusal_ticket(secret: bytes, error: LungSegError) -> bytes:
    """Sign why an upload was refused."""
    return _sign(secret, REFUSAL, error.code, error.found, error.remedy)


def read_ticket(secret: bytes, content: bytes) -> list[str] | None:
    """Return the fields of a ticket, its kind first; None where the content is no ticket of this secret."""
    if len(content) > LONGEST_TICKET:
        return None
    with suppress(BadData, ValueError):
        fields: list[str] = URLSafeSerializer(secret, salt=SALT).loads(content)
        return fields
    return None


def _sign(secret: bytes, *fields: str) -> bytes:
    return URLSafeSerializer(secret, salt=SALT).dumps(fields).encode()


@dataclass(slots=True)
class _Upload:
    """An upload whose ticket Streamlit has, and when its session was last open."""

    path: Path
    open_s: float


class Uploads:
    """ASGI middleware: takes the place of Streamlit's memory for uploads.

    Streamlit checks session and XSRF token first: a request that it refuses is never written. A file that is too large,
    or for which the disk has no room, is dropped as soon as that is known. An upload is removed when its page has read
    it, when the browser deletes it, when its session has been closed for a while, and when the server ends or starts.
    """

    def __init__(self, app: ASGIApp, settings: Settings, is_open: Callable[[str], bool]) -> None:
        """Wrap Streamlit's application; `is_open` tells whether a session, by its id, has a browser."""
        self._app = app
        self._settings = settings
        self._is_open = is_open
        self._folder = UploadFolder(settings)
        self._uploads: dict[Key, _Upload] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle uploads; pass on everything else."""
        key = _key_of(scope)
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif key is not None and scope["method"] == "PUT":
            await self._put(key, scope, receive, send)
        elif key is not None and scope["method"] == "DELETE":
            await self._delete(key, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sweep when the server starts and while it runs; leave nothing behind when it ends in order."""
        await to_thread.run_sync(sweep_incoming, self._settings)
        sweeping = asyncio.create_task(self._sweep_regularly())
        try:
            await self._app(scope, receive, send)
        finally:
            sweeping.cancel()
            self._folder.close()

    async def _sweep_regularly(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await self.sweep()
            except Exception:
                log.exception("uploads could not be swept")

    async def sweep(self) -> None:
        """Remove uploads of sessions that have been closed for long, and of servers that are gone."""
        now = time.monotonic()
        for key, upload in list(self._uploads.items()):
            if self._is_open(key[0]):
                upload.open_s = now
            is_needed = now - upload.open_s <= ABANDONED_S and await to_thread.run_sync(upload.path.exists)
            if not is_needed and self._uploads.get(key) is upload:
                await self._drop(key)
        await to_thread.run_sync(sweep_incoming, self._settings)

    async def _put(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Streamlit answer; when it reads the body, as its last step, receive that and give it a ticket."""
        reception = _Reception(self._settings, self._folder, Headers(scope=scope), receive)

        async def sending(message: Message) -> None:
            if _is_success(message) and (path := reception.hand_over()):
                await self._drop(key)
                self._uploads[key] = _Upload(path, time.monotonic())
            await send(message)

        try:
            headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
            await self._app({**scope, "headers": headers}, reception.receive, sending)
        except ClientDisconnect:
            log.info("an upload was broken off")
        finally:
            await reception.close()

    async def _delete(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if _is_success(message):
                await self._drop(key)
            await send(message)

        await self._app(scope, receive, sending)

    async def _drop(self, key: Key) -> None:
        upload = self._uploads.pop(key, None)
        if upload:
            await to_thread.run_sync(remove_upload, upload.path)


class _Reception:
    """What Streamlit receives in place of an upload; has the file until another owner takes it."""

    def __init__(self, settings: Settings, folder: UploadFolder, headers: Headers, receive: Receive) -> None:
        self._arrival: Arrival | None = None
        self._settings = settings
        self._folder = folder
        self._headers = headers
        self._receive = receive
        self._is_done = False

    async def receive(self) -> Message:
        """Receive the whole upload, and return a form with its ticket; at later calls, what comes after it.

        Raises:
            StorageError: no ticket can be signed.
            HTTPException: it is no form with exactly one file.
            ClientDisconnect: the browser went away.
        """
        if self._is_done:
            return await self._receive()
        self._is_done = True
        secret = await to_thread.run_sync(secret_of, self._settings)
        form = _Form(self._headers.get("content-type", ""))
        try:
            ticket = upload_ticket(secret, await self._store(form))
        except LungSegError as error:
            log.info("an upload is refused: %s", error.code)
            await self.close()
            ticket = refusal_ticket(secret, error)
        return {"type": "http.request", "body": form.around(ticket), "more_body": False}

    def hand_over(self) -> Path | None:
        """Give the complete file to another owner; None where there is none."""
        arrival, self._arrival = self._arrival, None
        return arrival.path if arrival else None

    async def close(self) -> None:
        """Remove the file, unless it has another owner."""
        arrival, self._arrival = self._arrival, None
        if arrival:
            with CancelScope(shield=True):
                await to_thread.run_sync(arrival.drop)

    async def _store(self, form: _Form) -> str:
        """Write the file of a form to the disk as it comes, and return the name of the upload."""
        pieces = bytearray()
        async for chunk in self._chunks():
            pieces += form.feed(chunk)
            if form.has_file and self._arrival is None:
                self._arrival = await to_thread.run_sync(self._folder.begin, self._least_size())
            if self._arrival and len(pieces) >= PIECE_BYTES:
                await to_thread.run_sync(self._arrival.write, bytes(pieces))
                pieces.clear()
        if self._arrival is None or not form.is_complete:
            raise _not_one_file()
        await to_thread.run_sync(self._arrival.write, bytes(pieces))
        await to_thread.run_sync(self._arrival.finish)
        return self._arrival.name

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return

    def _least_size(self) -> int | None:
        """Return how many bytes the upload has at least by its header."""
        length = self._headers.get("content-length", "")
        return max(0, int(length) - FRAME_BYTES) if length.isdecimal() else None


@dataclass(slots=True)
class _Part:
    """A part of a form, without its content."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    name: bytes = b""
    value: bytes = b""

    @property
    def is_file(self) -> bool:
        """Whether it is a file, by its header."""
        disposition = next((value for name, value in self.headers if name.lower() == b"content-disposition"), b"")
        return b"filename" in parse_options_header(disposition)[1]


class _Form:
    """A form that is being received, with one file; its other fields are dropped."""

    def __init__(self, content_type: str) -> None:
        self._boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not self._boundary:
            raise _not_one_file()
        self._part = _Part()
        self._file: _Part | None = None
        self._content = bytearray()
        self.is_complete = False
        with _refusing():
            self._parser = MultipartParser(
                self._boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_to_name,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_content,
                    "on_end": self._end,
                },
            )

    @property
    def has_file(self) -> bool:
        """Whether the headers of its file have come."""
        return self._file is not None

    def feed(self, chunk: bytes) -> bytes:
        """Parse a piece of the form, and return the bytes of the file in it."""
        with _refusing():
            self._parser.write(chunk)
        content = bytes(self._content)
        self._content.clear()
        return content

    def around(self, content: bytes) -> bytes:
        """Return a form with this content in place of the file, and no other fields."""
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in self._file.headers) if self._file else b""
        edge = b"--" + self._boundary
        return edge + b"\r\n" + headers + b"\r\n" + content + b"\r\n" + edge + b"--\r\n"

    def _begin_part(self) -> None:
        self._part = _Part()

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._part.name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _end_header(self) -> None:
        self._part.headers.append((self._part.name, self._part.value))
        self._part.name = self._part.value = b""

    def _end_headers(self) -> None:
        if self._part.is_file:
            if self._file is not None:
                raise _not_one_file()
            self._file = self._part

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._part is self._file:
            self._content += data[start:end]

    def _end(self) -> None:
        self.is_complete = True


def _key_of(scope: Scope) -> Key | None:
    """Return session and file of a request to Streamlit's address for uploads, wherever that is mounted."""
    if scope["type"] != "http":
        return None
    session, _, file = scope["path"].partition(ADDRESS)[2].partition("/")
    return (session, file) if session and file else None


def _is_success(message: Message) -> bool:
    """Tell whether a message begins a successful answer."""
    return message["type"] == "http.response.start" and int(message["status"]) // 100 == SUCCESS


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn an error of the parser into an answer."""
    try:
        yield
    except FormParserError as error:
        raise _not_one_file() from error


def _not_one_file() -> HTTPException:
    return HTTPException(400, "Expected a complete multipart form with one file.")
