"""The routes of the web server that are no pages, and the addresses that lead to them.

A scan or a mask that is kept gzipped is sent as it lies on disk, marked as compressed in transit: the browser inflates
it natively, in half the time that a script needs. Nothing that a request says ever becomes part of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lungseg.config import Limits, Settings
from lungseg.dataset.store import picture_path
from lungseg.db import Database, open_database
from lungseg.errors import AccessError, LungSegError, NotFoundError, ScanError
from lungseg.files import keys
from lungseg.records import Case, Mask
from lungseg.scans import nifti
from lungseg.segmentation.card import sha256_of
from lungseg.services import cases, viewer_bundle
from lungseg.services.datasets import store_folder
from lungseg.services.exports import mask_name
from lungseg.services.file_store import files_of
from lungseg.services.installation import Installation
from lungseg.web.modules import PREFIX, modules
from lungseg.web.signing import LIFETIME_S, Grant, Kind, grant, secret_of, sign, verify

FILES = "/lungseg/files"
BUNDLE = "/lungseg/viewer"
CHUNK_BYTES = 1024**2
FOR_GOOD = "public, max-age=31536000, immutable"
"""For how long browsers keep what an address names by its content."""
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
    ]


def scan_address(settings: Settings, case: Case) -> str:
    """Sign the address of a case's scan."""
    return _address(settings, grant(Kind.SCAN, case.id, case.scan_sha256))


def mask_address(settings: Settings, mask: Mask) -> str:
    """Sign the address of a mask."""
    return _address(settings, grant(Kind.MASK, mask.id, mask.sha256))


def mask_download_address(settings: Settings, mask: Mask) -> str:
    """Sign the address under which a browser keeps a mask as a NIfTI file."""
    return f"{mask_address(settings, mask)}?download=1"


def thumbnail_address(settings: Settings, case: Case) -> str | None:
    """Sign the address of a case's small picture; None where there is none yet."""
    path = files_of(settings).local(keys.thumbnail(case.id))
    return _address(settings, grant(Kind.THUMBNAIL, case.id, _mark(path))) if path.is_file() else None


def picture_address(settings: Settings, data_set_id: str, case: str, picture: Path) -> str:
    """Sign the address of the small picture of a case of a data set."""
    return _address(settings, grant(Kind.PICTURE, f"{data_set_id}/{case}", _mark(picture)))


def bundle_address(settings: Settings) -> str:
    """Return the address of the viewer's bundle: the library of another release has another one."""
    return f"{BUNDLE}/{viewer_bundle.status(settings).path.name}"


class LargeFile(FileResponse):
    """A file sent in pieces that are worth a trip to a thread each."""

    chunk_size = CHUNK_BYTES


class Files:
    """Sends the files of an installation."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = files_of(settings)
        self._opened: Database | None = None

    @property
    def _database(self) -> Database:
        self._opened = self._opened or open_database(self._settings.database_url)
        return self._opened

    def send(self, request: Request) -> Response:
        """Answer a signed address.

        Raises:
            AccessError: the signature is wrong or too old.
            NotFoundError: the case or mask is gone.
        """
        granted = verify(secret_of(self._settings), request.path_params["token"])
        path, media_type, content = self._find(granted)
        if content != granted.content or not path.is_file():
            raise NotFoundError("The file has been replaced or removed.", "Reload the page.")
        headers = {"ETag": f'"{content}"', "Cache-Control": f"private, max-age={LIFETIME_S}, immutable"}
        if _is_known(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        if "inflated" in request.query_params:
            pieces = _inflate(path, self._settings.limits)
            return StreamingResponse(pieces, media_type=media_type, headers=headers | _as_is())
        if "download" in request.query_params and granted.kind is Kind.MASK:
            # The name stands in this header alone: addresses get into logs and histories.
            return LargeFile(path, filename=self._name(granted), media_type="application/gzip", headers=headers)
        coding = {"Content-Encoding": "gzip"} if path.suffix == ".gz" else _as_is()
        return LargeFile(path, media_type=media_type, headers=headers | coding)

    def _name(self, granted: Grant) -> str:
        """Name the file that a mask is kept as."""
        mask = cases.get_mask(Installation(self._settings, self._database), granted.id.partition(".")[0])
        return mask_name(
            cases.get_case(Installation(self._settings, self._database), mask.case_id), replace(mask, id=granted.id)
        )

    def send_bundle(self, request: Request) -> Response:
        """Answer with the viewer's bundle.

        Raises:
            NotFoundError: it is not installed or was altered, or another release's was asked for.
        """
        bundle, content = viewer_bundle.status(self._settings), viewer_bundle.content(self._settings)
        if content is None or request.path_params["name"] != bundle.path.name:
            raise NotFoundError("There is no such bundle.", bundle.lack.remedy)
        headers = {"ETag": f'"{viewer_bundle.SHA256}"', "Cache-Control": FOR_GOOD}
        if _is_known(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type="text/javascript", headers=headers | {"Content-Encoding": "gzip"})

    def _find(self, granted: Grant) -> tuple[Path, str, str]:
        """Return path, media type and content mark of what was granted, as the database knows them now."""
        if granted.kind is Kind.THUMBNAIL:
            case = cases.get_case(Installation(self._settings, self._database), granted.id)
            path = self._files.local(keys.thumbnail(case.id))
            return path, "image/png", _mark(path)
        if granted.kind is Kind.PICTURE:
            data_set_id, _, name = granted.id.partition("/")
            path = picture_path(store_folder(self._settings, data_set_id), name)
            return path, "image/png", _mark(path)
        if granted.kind is Kind.SCAN:
            case = cases.get_case(Installation(self._settings, self._database), granted.id)
            return self._files.local(case.scan_path), "application/octet-stream", case.scan_sha256
        mask_id, _, derived = granted.id.partition(".")
        mask = cases.get_mask(Installation(self._settings, self._database), mask_id)
        if not derived:
            return self._files.local(mask.path), "application/octet-stream", mask.sha256
        level, _, with_doubtful = derived.partition(".")
        path = self._files.local(keys.derived(mask.id, int(level), with_doubtful=bool(with_doubtful)))
        return path, "application/octet-stream", sha256_of(path) if path.is_file() else ""


def send_module(request: Request) -> Response:
    """Answer with a module of the front end.

    Raises:
        NotFoundError: there is none of that name, or another release's was asked for.
    """
    known, name = modules(), request.path_params["name"]
    if request.path_params["version"] != known.version or name not in known.contents:
        raise NotFoundError("There is no such module.", "Reload the page.")
    headers = {"ETag": f'"{known.version}"', "Cache-Control": FOR_GOOD}
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(known.contents[name], media_type="text/javascript", headers=headers)


def _address(settings: Settings, granted: Grant) -> str:
    return f"{FILES}/{sign(secret_of(settings), granted)}"


def _mark(path: Path) -> str:
    """Mark the state of a small file that is replaced as a whole; empty where it is gone."""
    return str(path.stat().st_mtime_ns) if path.is_file() else ""


def _as_is() -> dict[str, str]:
    """Headers that keep the server's own compression away: it would cost seconds for the voxels of a scan."""
    return {"Content-Encoding": "identity"}


def _inflate(path: Path, limits: Limits) -> Iterator[bytes]:
    """Send a scan or mask inflated, up to its last voxel, for browsers that stop after the first gzip member.

    Raises:
        ScanError: its header can't be used.
    """
    return _until_damage(nifti.unpack(path, limits=limits))


def _until_damage(content: Iterator[bytes]) -> Iterator[bytes]:
    """End where a file is cut off or damaged, which the browser sees by the voxels that are missing."""
    with suppress(ScanError):
        yield from content


def _is_known(request: Request, etag: str) -> bool:
    """Tell whether the browser holds this very content already."""
    known = request.headers.get("if-none-match", "")
    return known == "*" or etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]


def _answering(handler: Handler) -> Handler:
    """Turn errors of ours into answers: a status, what was found, what to do."""

    def answer(request: Request) -> Response:
        try:
            return handler(request)
        except LungSegError as error:
            return _refusal(request, error)

    return answer


def _refusal(request: Request, error: LungSegError) -> Response:
    """Answer with an error: to a script as JSON, to someone who follows a link as a page with a way back."""
    status, headers = STATUS_BY_ERROR.get(type(error), 500), {"Cache-Control": "no-store"}
    if "text/html" not in request.headers.get("accept", ""):
        body = {"code": error.code, "found": error.found, "remedy": error.remedy}
        return JSONResponse(body, status_code=status, headers=headers)
    page = ERROR_PAGE.format(found=error.found, remedy=error.remedy, code=error.code)
    return HTMLResponse(page, status_code=status, headers=headers)
