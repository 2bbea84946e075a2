"""Uploads by the protocol tus 1.0.0 (https://tus.io/protocols/resumable-upload), which go on where they broke off.

Core, creation, termination and expiration. A body is written to the disk piece by piece, in threads, and what has
arrived of a broken one stays. `Upload-Offset` is the size of the file, so that no kill can make the two differ. Each
request shows the grant of a page of this server. Names of files stand in no log.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

import anyio
from anyio import CancelScope, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lungseg.config import Settings
from lungseg.errors import (
    AccessError,
    DiskFullError,
    LungSegError,
    NotFoundError,
    TooLargeError,
    UploadBusyError,
)
from lungseg.services import resumable
from lungseg.services.resumable import Announcement, Upload, Writer
from lungseg.web.signing import Kind, grant, secret_of, sign, verify

log = logging.getLogger(__name__)

ADDRESS = "/lungseg/uploads"
VERSION = "1.0.0"
EXTENSIONS = "creation,termination,expiration"
GRANT = "lungseg-grant"
"""Header of the grant: a page of another origin can't send it."""
PIECE_BYTES = 256 * 1024
"""Size of the pieces that are written, each by a call in a thread."""
SILENCE_S = 30.0
"""A body of which nothing comes for this long has broken off, though nobody has closed the connection."""
LONGEST_METADATA = 4096
LONGEST_NAME = 1024
BODY_TYPE = "application/offset+octet-stream"
NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
STATUS_BY_ERROR = {AccessError: 403, NotFoundError: 404, TooLargeError: 413, UploadBusyError: 423, DiskFullError: 507}

Handler = Callable[[Request], Awaitable[Response]]


def upload_routes(settings: Settings) -> list[Route]:
    """Make the routes of an installation."""
    uploads = ResumableUploads(settings)
    return [
        Route(ADDRESS, _answering(uploads.describe), methods=["OPTIONS"]),
        Route(ADDRESS, _answering(uploads.create), methods=["POST"]),
        Route(f"{ADDRESS}/{{id}}", _answering(uploads.state), methods=["HEAD"]),
        Route(f"{ADDRESS}/{{id}}", _answering(uploads.append), methods=["PATCH"]),
        Route(f"{ADDRESS}/{{id}}", _answering(uploads.remove), methods=["DELETE"]),
    ]


def upload_grant(settings: Settings) -> str:
    """Sign the leave to upload, for a page of this server."""
    return sign(secret_of(settings), grant(Kind.UPLOAD, "", ""))


class ResumableUploads:
    """Answers the requests of the protocol for one installation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def describe(self, _: Request) -> Response:
        """Say what the server can do."""
        most = max(self._settings.limits.file_bytes, self._settings.limits.upload_bytes)
        return Response(
            status_code=204,
            headers={"Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Max-Size": str(most)},
        )

    async def create(self, request: Request) -> Response:
        """Begin an upload; its address is relative, since a proxy may have put the server below a path of its own."""
        await self._check(request)
        announcement = _announcement(request)
        upload = await to_thread.run_sync(resumable.begin_upload, self._settings, announcement)
        location = {"Location": f"{ADDRESS.rpartition('/')[2]}/{upload.id}"}
        return Response(status_code=201, headers=_headers(upload) | location)

    async def state(self, request: Request) -> Response:
        """Say how much of an upload has come."""
        await self._check(request)
        return Response(headers=_headers(await self._find(request)))

    async def append(self, request: Request) -> Response:
        """Append a body where the upload ends; what came of a body that broke off stays."""
        await self._check(request)
        if request.headers.get("content-type") != BODY_TYPE:
            raise HTTPException(415, f"Expected a body of type {BODY_TYPE}.")
        offset = _number(request, "upload-offset")
        async with self._writing(request) as writer:
            if offset != writer.offset:
                text = str(writer.offset)
                raise HTTPException(409, f"Expected Upload-Offset {text}.", {"Upload-Offset": text})
            await _receive(request, writer)
            return Response(status_code=204, headers=_headers(await self._find(request)))

    async def remove(self, request: Request) -> Response:
        """Give an upload up."""
        await self._check(request)
        await to_thread.run_sync(resumable.discard_upload, self._settings, request.path_params["id"])
        return Response(status_code=204)

    async def _find(self, request: Request) -> Upload:
        return await to_thread.run_sync(resumable.upload_of, self._settings, request.path_params["id"])

    async def _check(self, request: Request) -> None:
        """Refuse another version of the protocol, and whoever has no page of this server."""
        if request.headers.get("tus-resumable") != VERSION:
            raise HTTPException(412, f"Expected Tus-Resumable {VERSION}.", {"Tus-Version": VERSION})
        secret = await to_thread.run_sync(secret_of, self._settings)
        if verify(secret, request.headers.get(GRANT, "")).kind is not Kind.UPLOAD:
            raise AccessError("The address was not made for uploads.", "Reload the page.")

    @asynccontextmanager
    async def _writing(self, request: Request) -> AsyncIterator[Writer]:
        """Hold an upload open in threads: opening, flushing and closing touch the disk."""
        opened = resumable.writing(self._settings, request.path_params["id"])
        writer = await to_thread.run_sync(opened.__enter__)
        try:
            yield writer
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(opened.__exit__, None, None, None)


async def _receive(request: Request, writer: Writer) -> None:
    """Write a body as it comes; what has come when it breaks off is on the disk too."""
    pieces = bytearray()
    try:
        async for chunk in _chunks(request):
            if writer.offset + len(pieces) + len(chunk) > writer.size:
                raise HTTPException(400, "There are more bytes than Upload-Length announced.")
            pieces += chunk
            if len(pieces) >= PIECE_BYTES:
                await to_thread.run_sync(writer.write, bytes(pieces))
                pieces.clear()
    except ClientDisconnect:
        await to_thread.run_sync(_finish, writer, bytes(pieces))
        raise
    await to_thread.run_sync(_finish, writer, bytes(pieces))


def _finish(writer: Writer, rest: bytes) -> None:
    writer.write(rest)
    writer.flush()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes; one that falls silent has broken off."""
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(SILENCE_S):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ClientDisconnect from error
        yield chunk


def _announcement(request: Request) -> Announcement:
    """Read what a browser says of an upload; HTTPException 400 where something is missing, or too long."""
    metadata = _metadata(request.headers.get("upload-metadata", ""))
    name, group = metadata.get("filename", ""), metadata.get("group", "")
    count, place, part = (
        metadata.get(key, default) for key, default in (("count", "1"), ("place", "0"), ("part", "0"))
    )
    if not 0 < len(name) <= LONGEST_NAME or not resumable.ID.fullmatch(group):
        raise HTTPException(400, "Expected a name and a group in Upload-Metadata.")
    are_numbers = all(NUMBER.fullmatch(text) for text in (count, place, part))
    if not are_numbers or not int(part) < int(count) <= resumable.MOST_IN_GROUP:
        raise HTTPException(400, "Expected a count, a place and a part in Upload-Metadata.")
    size = _number(request, "upload-length")
    return Announcement(name=name, size=size, group=group, count=int(count), place=int(place), part=int(part))


def _metadata(header: str) -> dict[str, str]:
    """Decode `key base64,key base64`."""
    if len(header) > LONGEST_METADATA:
        raise HTTPException(400, f"Upload-Metadata is longer than {LONGEST_METADATA} bytes.")
    pairs = (entry.strip().partition(" ") for entry in header.split(",") if entry.strip())
    try:
        return {key: base64.b64decode(value, validate=True).decode() for key, _, value in pairs}
    except ValueError as error:  # letters beyond ASCII, no base64, no UTF-8
        raise HTTPException(400, "Upload-Metadata can't be decoded.") from error


def _number(request: Request, name: str) -> int:
    """Read a header that has to be there, as a number."""
    text = request.headers.get(name, "")
    if not NUMBER.fullmatch(text):
        raise HTTPException(400, f"Expected a number in {name}.")
    return int(text)


def _headers(upload: Upload) -> dict[str, str]:
    return {
        "Upload-Offset": str(upload.offset),
        "Upload-Length": str(upload.announcement.size),
        "Upload-Expires": formatdate(upload.expires_s, usegmt=True),
    }


def _answering(handler: Handler) -> Handler:
    """Answer errors by their status, with fault and remedy; every answer names the protocol and is kept nowhere."""

    async def answer(request: Request) -> Response:
        try:
            response = await handler(request)
        except LungSegError as error:
            log.info("a request of an upload is refused: %s", error.code)
            body = {"code": error.code, "found": error.found, "remedy": error.remedy}
            response = JSONResponse(body, STATUS_BY_ERROR.get(type(error), 500))
        except HTTPException as error:
            response = JSONResponse({"found": error.detail}, error.status_code, error.headers)
        except ClientDisconnect:
            log.info("an upload was broken off")
            response = Response(status_code=408)
        response.headers["Tus-Resumable"] = VERSION
        response.headers["Cache-Control"] = "no-store"
        return response

    return answer
