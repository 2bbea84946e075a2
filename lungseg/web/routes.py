"""The routes of the web server that are no pages, and the addresses that lead to them.

A gzipped scan or mask is sent as it is on disk, marked as compressed in transit: the browser inflates it natively, in
half the time that a script needs. No text of a request becomes part of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lungseg.config import Settings
from lungseg.dataset.store import picture_path
from lungseg.db import open_database
from lungseg.errors import AccessError, LungSegError, NotFoundError, ScanError
from lungseg.files import keys
from lungseg.files.digests import sha256_of
from lungseg.records.cases import Case
from lungseg.records.masks import Mask
from lungseg.scans import nifti
from lungseg.services import cases, viewer_bundle
from lungseg.services.datasets import store_folder
from lungseg.services.exports import mask_name
from lungseg.services.file_store import files_of
from lungseg.services.installation import Installation
from lungseg.web.modules import PREFIX, modules
from lungseg.web.resumable import upload_routes
from lungseg.web.signing import LIFETIME_S, Grant, Kind, grant, secret_of, sign, verify

FILES = "/lungseg/files"
BUNDLE = "/lungseg/viewer"
CHUNK_BYTES = 1024**2
FOR_GOOD = "public, max-age=31536000, immutable"
"""How long browsers keep a file whose address has a hash of its content."""
UNCOMPRESSED = {"Content-Encoding": "identity"}
"""Keeps the server's own compression away: it would take seconds for the voxels of a scan."""
STATUS_BY_ERROR = {AccessError: 403, NotFoundError: 404}
ERROR_PAGE = Markup("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Not there · LungSeg</title>
<style>
  body {{ margin: 15vh auto; max-width: 34rem; padding: 0 1rem; font: 15px/1.5 system-ui, sans-serif;
         color: #d6dee6; background: #0a0c0f; }}
  h1 {{ font-size: 18px; color: #f0a68b; }}
  a {{ color: #a9c3dd; }}
</style></head>
<body><main><h1>{found}</h1><p>{remedy} <code>{code}</code></p><p><a href="/">Cases</a></p></main></body>
</html>
""")

Handler = Callable[[Request], Response]


def routes(settings: Settings) -> list[Route]:
    """Make the routes of an installation; the database is opened at the first request."""
    files = Files(settings)
    return [
        Route(f"{FILES}/{{token}}", _answering(files.send), methods=["GET"]),
        Route(f"{BUNDLE}/{{name}}", _answering(files.send_bundle), methods=["GET"]),
        Route(f"{PREFIX}/{{version}}/{{name:path}}", _answering(send_module), methods=["GET"]),
        *upload_routes(settings),
    ]


def scan_address(settings: Settings, case: Case) -> str:
    """Sign the address of a case's scan."""
    return _address(settings, grant(Kind.SCAN, case.id, case.scan_sha256))


def mask_address(settings: Settings, mask: Mask) -> str:
    """Sign the address of a mask."""
    return _address(settings, grant(Kind.MASK, mask.id, mask.sha256))


def mask_download_address(settings: Settings, mask: Mask) -> str:
    """Sign the address under which a browser saves a mask as a NIfTI file."""
    return f"{mask_address(settings, mask)}?download=1"


def thumbnail_address(settings: Settings, case: Case) -> str | None:
    """Sign the address of a case's small picture; None where there is none yet."""
    path = files_of(settings).local(keys.thumbnail(case.id))
    return _address(settings, grant(Kind.THUMBNAIL, case.id, _version(path))) if path.is_file() else None


def picture_address(settings: Settings, data_set_id: str, case: str, picture: Path) -> str:
    """Sign the address of the small picture of a case of a data set."""
    return _address(settings, grant(Kind.PICTURE, f"{data_set_id}/{case}", _version(picture)))


def bundle_address(settings: Settings) -> str:
    """Return the address of the viewer's bundle, which has the release of the library in it."""
    return f"{BUNDLE}/{viewer_bundle.status(settings).path.name}"


class LargeFile(FileResponse):
    """A file sent in pieces that are each worth a call in a thread."""

    chunk_size = CHUNK_BYTES


class Files:
    """Sends the files of an installation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = files_of(settings)

    @cached_property
    def _installation(self) -> Installation:
        return Installation(self._settings, open_database(self._settings.database_url))

    def send(self, request: Request) -> Response:
        """Answer a signed address.

        Raises:
            AccessError: the signature is wrong or has expired.
            NotFoundError: the case or mask is gone.
        """
        granted = verify(secret_of(self._settings), request.path_params["token"])
        path, media_type, content = self._find(granted)
        if content != granted.content or not path.is_file():
            raise NotFoundError("The file has been replaced or removed.", "Reload the page.")
        headers = {"ETag": f'"{content}"', "Cache-Control": f"private, max-age={LIFETIME_S}, immutable"}
        if "inflated" in request.query_params:
            pieces = _until_damage(nifti.inflate(path, limits=self._settings.limits))
            return StreamingResponse(pieces, media_type=media_type, headers=headers | UNCOMPRESSED)
        if "download" in request.query_params and granted.kind is Kind.MASK:
            mask = cases.get_mask(self._installation, granted.id.partition(".")[0])
            name = mask_name(cases.get_case(self._installation, mask.case_id), replace(mask, id=granted.id))
            # Only this header has the name: addresses get into logs and histories.
            return LargeFile(path, filename=name, media_type="application/gzip", headers=headers)
        coding = {"Content-Encoding": "gzip"} if path.suffix == ".gz" else UNCOMPRESSED
        return LargeFile(path, media_type=media_type, headers=headers | coding)

    def send_bundle(self, request: Request) -> Response:
        """Answer with the viewer's bundle.

        Raises:
            NotFoundError: it is not installed or was altered, or the address is of another release.
        """
        bundle, content = viewer_bundle.status(self._settings), viewer_bundle.content(self._settings)
        if content is None or request.path_params["name"] != bundle.path.name:
            raise NotFoundError("There is no such bundle.", bundle.lack.remedy)
        headers = {"ETag": f'"{viewer_bundle.SHA256}"', "Cache-Control": FOR_GOOD}
        return Response(content, media_type="text/javascript", headers=headers | {"Content-Encoding": "gzip"})

    def _find(self, granted: Grant) -> tuple[Path, str, str]:
        """Return path, media type and current version of the file of a grant."""
        if granted.kind is Kind.THUMBNAIL:
            path = self._files.local(keys.thumbnail(cases.get_case(self._installation, granted.id).id))
            return path, "image/png", _version(path)
        if granted.kind is Kind.PICTURE:
            data_set_id, _, name = granted.id.partition("/")
            path = picture_path(store_folder(self._settings, data_set_id), name)
            return path, "image/png", _version(path)
        if granted.kind is Kind.SCAN:
            case = cases.get_case(self._installation, granted.id)
            return self._files.local(case.scan_path), "application/octet-stream", case.scan_sha256
        mask_id, _, derived = granted.id.partition(".")
        mask = cases.get_mask(self._installation, mask_id)
        if not derived:
            return self._files.local(mask.path), "application/octet-stream", mask.sha256
        level, _, with_doubtful = derived.partition(".")
        path = self._files.local(keys.derived(mask.id, int(level), with_doubtful=bool(with_doubtful)))
        return path, "application/octet-stream", sha256_of(path) if path.is_file() else ""


def send_module(request: Request) -> Response:
    """Answer with a module of the front end.

    Raises:
        NotFoundError: there is none of that name, or the address is of another release.
    """
    release, name = modules(), request.path_params["name"]
    if request.path_params["version"] != release.version or name not in release.contents:
        raise NotFoundError("There is no such module.", "Reload the page.")
    headers = {"ETag": f'"{release.version}"', "Cache-Control": FOR_GOOD}
    return Response(release.contents[name], media_type="text/javascript", headers=headers)


def _address(settings: Settings, granted: Grant) -> str:
    return f"{FILES}/{sign(secret_of(settings), granted)}"


def _version(path: Path) -> str:
    """Return a value that changes when a small file is replaced; empty where it is gone."""
    return str(path.stat().st_mtime_ns) if path.is_file() else ""


def _until_damage(content: Iterator[bytes]) -> Iterator[bytes]:
    """End where a file is cut off or damaged; the browser notices the missing voxels."""
    with suppress(ScanError):
        yield from content


def _has_current(request: Request, etag: str) -> bool:
    """Tell whether the browser has this content already."""
    tags = request.headers.get("if-none-match", "")
    return tags == "*" or etag in [tag.strip().removeprefix("W/") for tag in tags.split(",")]


def _answering(handler: Handler) -> Handler:
    """Answer 304 if the browser has the content already; after an error of ours, with status, fault and remedy."""

    def answer(request: Request) -> Response:
        try:
            response = handler(request)
        except LungSegError as error:
            return _error_answer(request, error)
        if not _has_current(request, response.headers["ETag"]):
            return response
        return Response(status_code=304, headers={name: response.headers[name] for name in ("ETag", "Cache-Control")})

    return answer


def _error_answer(request: Request, error: LungSegError) -> Response:
    """Answer with an error: JSON to a script, a page with a link back to a person who follows a link."""
    status, headers = STATUS_BY_ERROR.get(type(error), 500), {"Cache-Control": "no-store"}
    if "text/html" not in request.headers.get("accept", ""):
        body = {"code": error.code, "found": error.found, "remedy": error.remedy}
        return JSONResponse(body, status_code=status, headers=headers)
    page = ERROR_PAGE.format(found=error.found, remedy=error.remedy, code=error.code)
    return HTMLResponse(page, status_code=status, headers=headers)
