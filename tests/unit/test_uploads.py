"""Uploads on their way to the disk: piece by piece, within the limits, and gone again whatever ends them."""

import asyncio
import os
import shutil
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.web.server.starlette import starlette_routes

from lungseg.errors import DiskFullError, StorageError, TooLargeError
from lungseg.files import keys
from lungseg.services import incoming, storage
from lungseg.services.incoming import UploadFolder, find_upload, sweep_incoming
from lungseg.web import uploads
from lungseg.web.signing import secret_of

BOUNDARY = b"----WebKitFormBoundary0123456789"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
CONTENT = os.urandom(3 * uploads.PIECE_BYTES + 17)
ADDRESS = "/_stcore/upload_file/here/file-1"


@dataclass
class Answer:
    """What came back, and the most bytes of the upload that lay on the disk meanwhile."""

    status: int = 0
    body: bytes = b""
    asked: int = 0


class Site:
    """Streamlit's own routes for uploads behind the middleware, with one session that is open."""

    def __init__(self, settings):
        self.settings = settings
        self.sessions = {"here"}
        self.manager = MemoryUploadedFileManager("/_stcore/upload_file")
        runtime: Any = self
        routes = starlette_routes.create_upload_routes(runtime, self.manager, None)
        self.app = Starlette(routes=routes, middleware=[Middleware(self.wrap)])

    def wrap(self, app):
        self.uploads = uploads.Uploads(app, self.settings, self.is_active_session)
        return self.uploads

    def is_active_session(self, session):
        return session in self.sessions

    def send(self, method, address, chunks=(), headers=FORM, *, breaks_off=False):
        with ThreadPoolExecutor() as thread:  # where no loop runs yet: a browser test may have left one in this thread
            return thread.submit(
                lambda: asyncio.run(self._send(method, address, list(chunks), headers, breaks_off))
            ).result()

    def put(self, *parts, headers=FORM, address=ADDRESS, size=65_536):
        body = form(*parts) if parts else form(part(CONTENT))
        return self.send("PUT", address, [body[start : start + size] for start in range(0, len(body), size)], headers)

    async def _send(self, method, address, chunks, headers, breaks_off):
        answer = Answer()

        async def receive():
            answer.asked += 1
            if chunks:
                return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks) or breaks_off}
            return {"type": "http.disconnect"}

        async def send(message):
            answer.status = message.get("status", answer.status)
            answer.body += message.get("body", b"")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "path": address,
            "raw_path": address.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
        }
        await self.app(scope, receive, send)
        return answer

    def records(self):
        return self.manager.get_files("here", ["file-1"])

    def sweep(self):
        with ThreadPoolExecutor() as thread:
            thread.submit(lambda: asyncio.run(self.uploads.sweep())).result()


def part(content, name="scan.nii.gz", kind="application/gzip"):
    disposition = f'form-data; name="{name}"; filename="{name}"'
    return f"Content-Disposition: {disposition}\r\nContent-Type: {kind}\r\n\r\n".encode() + content


def form(*parts):
    return b"".join(b"--" + BOUNDARY + b"\r\n" + each + b"\r\n" for each in parts) + b"--" + BOUNDARY + b"--\r\n"


def on_disk(settings):
    return sorted((settings.home / keys.INCOMING).glob("*/*"))


@pytest.fixture
def no_xsrf(monkeypatch):
    monkeypatch.setattr(starlette_routes, "is_xsrf_enabled", lambda: False)


@pytest.fixture
def site(settings, request):
    request.getfixturevalue("no_xsrf")
    return Site(settings)


def test_file_lies_on_disk_and_streamlit_holds_a_ticket(site, settings):
    assert site.put().status == 204
    (record,) = site.records()
    assert (record.name, record.type) == ("scan.nii.gz", "application/gzip")
    assert len(record.data) <= uploads.LONGEST_TICKET
    (path,) = on_disk(settings)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with uploads.opened(settings, BytesIO(record.data)) as stream:
        assert stream.read() == CONTENT
    assert on_disk(settings) == []


@pytest.mark.parametrize("size", [1, 7, 4096, 10**9])
def test_whatever_the_pieces_it_comes_in(site, settings, size):
    content = b"\r\n--" + BOUNDARY[:-1] + b"\r\n\r\n--" + bytes(range(256))
    assert site.put(part(content), size=size).status == 204
    assert [path.read_bytes() for path in on_disk(settings)] == [content]


def test_no_more_than_a_piece_is_held(site, settings, monkeypatch):
    written: list[int] = []
    write = incoming.Arrival.write

    def counted_write(arrival, piece):
        written.append(len(piece))
        return write(arrival, piece)

    monkeypatch.setattr(incoming.Arrival, "write", counted_write)
    site.put()
    assert sum(written) == len(CONTENT)
    assert max(written) < uploads.PIECE_BYTES + 65_536


def test_name_beyond_ascii_reaches_the_page(site):
    site.put(part(b"x", name="Müller 肺.nii"))
    assert site.records()[0].name == "Müller 肺.nii"


def test_other_fields_are_passed_over(site, settings):
    field = b'Content-Disposition: form-data; name="note"\r\n\r\nno file'
    assert site.put(field, part(b"one"), field).status == 204
    assert [path.read_bytes() for path in on_disk(settings)] == [b"one"]


@pytest.mark.parametrize(
    ("parts", "headers"),
    [
        ([part(b"one"), part(b"two", name="b.nii")], FORM),
        ([b'Content-Disposition: form-data; name="note"\r\n\r\nno file'], FORM),
        ([part(b"one")], {"content-type": "multipart/form-data"}),
        ([part(b"one")], {"content-type": "multipart/form-data; boundary=another"}),
        ([part(b"one")], {}),
    ],
    ids=["two files", "no file", "no boundary", "wrong boundary", "no form"],
)
def test_what_is_no_upload_is_refused(site, settings, parts, headers):
    assert site.put(*parts, headers=headers).status == 400
    assert on_disk(settings) == []
    assert site.records() == []


def test_form_that_ends_early(site, settings):
    answer = site.send("PUT", ADDRESS, [form(part(CONTENT))[:-100]])
    assert answer.status == 400
    assert on_disk(settings) == []


def refused(site, settings, error):
    """What the page meets when it opens the upload: the very error, and nothing on the disk."""
    (record,) = site.records()
    assert record.name == "scan.nii.gz"
    assert on_disk(settings) == []
    with pytest.raises(error) as met, uploads.opened(settings, BytesIO(record.data)):
        pass
    assert type(met.value) is error
    return str(met.value)


@pytest.mark.usefixtures("no_xsrf")
def test_too_large_by_what_is_announced(settings):
    site = Site(replace(settings, limits=replace(settings.limits, file_bytes=1000)))
    answer = site.put(headers={**FORM, "content-length": str(len(CONTENT))})
    assert answer.asked == 1  # for the name of the file
    assert "more than 1,000 bytes. Crop the scan" in refused(site, settings, TooLargeError)


@pytest.mark.parametrize("headers", [FORM, {**FORM, "content-length": "5"}])
@pytest.mark.usefixtures("no_xsrf")
def test_too_large_by_what_comes(settings, headers):
    site = Site(replace(settings, limits=replace(settings.limits, file_bytes=uploads.PIECE_BYTES + 1)))
    answer = site.put(headers=headers)
    assert answer.asked <= 2 * uploads.PIECE_BYTES // 65_536 + 1  # the rest was never asked for
    assert "more than 262,145 bytes" in refused(site, settings, TooLargeError)


@pytest.mark.usefixtures("no_xsrf")
def test_limit_itself_is_allowed(settings):
    site = Site(replace(settings, limits=replace(settings.limits, file_bytes=len(CONTENT))))
    assert site.put(headers={**FORM, "content-length": str(len(CONTENT) + 300)}).status == 204


def test_full_disk_is_seen_before_and_while_it_is_written(site, settings, monkeypatch):
    usage = namedtuple("usage", "total used free")
    left = storage.RESERVE_BYTES + uploads.PIECE_BYTES
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage(0, 0, left - sum(p.stat().st_size for p in on_disk(settings)))
    )
    announced = site.put(headers={**FORM, "content-length": str(len(CONTENT))})
    assert announced.asked == 1
    refused(site, settings, DiskFullError)
    site.put()
    assert "Delete cases" in refused(site, settings, DiskFullError)


def test_disk_that_fails(site, settings, monkeypatch):
    def write(arrival, piece):
        raise StorageError("The upload can't be written (no such device).", "Check its folder.")

    monkeypatch.setattr(incoming.Arrival, "write", write)
    site.put()
    assert "no such device" in refused(site, settings, StorageError)


def test_unknown_session_is_refused_before_anything_is_written(site, settings):
    answer = site.put(address="/_stcore/upload_file/elsewhere/file-1")
    assert (answer.status, answer.asked) == (400, 0)
    assert not (settings.home / keys.INCOMING).exists()


def test_xsrf_is_looked_at_before_anything_is_written(settings):
    answer = Site(settings).put()
    assert (answer.status, answer.asked) == (403, 0)
    assert not (settings.home / keys.INCOMING).exists()


def test_browser_that_goes_away_leaves_nothing(site, settings):
    answer = site.send("PUT", ADDRESS, [form(part(CONTENT))[: 2 * uploads.PIECE_BYTES]], breaks_off=True)
    assert answer.status == 0
    assert on_disk(settings) == []


def test_deleted_by_the_browser(site, settings):
    site.put()
    assert site.send("DELETE", ADDRESS).status == 204
    assert on_disk(settings) == []


def test_delete_without_xsrf_token_removes_nothing(site, settings, monkeypatch):
    site.put()
    monkeypatch.setattr(starlette_routes, "is_xsrf_enabled", lambda: True)
    assert site.send("DELETE", ADDRESS).status == 403
    assert len(on_disk(settings)) == 1


def test_second_upload_of_a_file_takes_the_place_of_the_first(site, settings):
    site.put(part(b"one"))
    site.put(part(b"two"))
    assert [path.read_bytes() for path in on_disk(settings)] == [b"two"]
    with uploads.opened(settings, BytesIO(site.records()[0].data)) as stream:
        assert stream.read() == b"two"


def test_upload_of_a_session_that_stays_away_is_swept(site, settings, monkeypatch):
    site.put()
    site.sweep()
    site.sessions.clear()
    site.sweep()
    assert len(on_disk(settings)) == 1  # it may come back
    monkeypatch.setattr(uploads, "ABANDONED_S", 0.0)
    site.sessions.add("here")
    site.sweep()
    assert len(on_disk(settings)) == 1
    site.sessions.clear()
    site.sweep()
    assert on_disk(settings) == []


def test_other_requests_pass(site):
    assert site.send("GET", "/elsewhere").status == 404
    assert site.send("OPTIONS", ADDRESS).status == 204


def test_upload_that_holds_a_ticket_is_bytes_like_any_other(site, settings):
    site.put(part(b"a scan of somebody else"))
    ticket = site.records()[0].data
    site.put(part(ticket), address="/_stcore/upload_file/here/file-2")
    (record,) = site.manager.get_files("here", ["file-2"])
    assert record.data != ticket
    with uploads.opened(settings, BytesIO(record.data)) as stream:
        assert stream.read() == ticket


@pytest.mark.parametrize("name", ["../secret.key", "uploads-0123456789abcdef/../../secret.key", "/etc/passwd", ""])
def test_signed_by_us_but_no_name_of_an_upload(settings, name):
    content = uploads.upload_ticket(secret_of(settings), name)
    with uploads.opened(settings, BytesIO(content)) as stream:
        assert stream.read() == content


def test_ticket_of_another_secret_is_bytes(settings):
    arrival = UploadFolder(settings).begin(None)
    content = uploads.upload_ticket(b"guessed", arrival.name)
    with uploads.opened(settings, BytesIO(content)) as stream:
        assert stream.read() == content
    assert arrival.path.exists()
    arrival.drop()


def test_address_of_a_file_is_no_ticket(settings):
    from lungseg.web.signing import Kind, grant, sign

    content = sign(secret_of(settings), grant(Kind.SCAN, "0" * 32, "0" * 64)).encode()
    assert uploads.read_ticket(secret_of(settings), content) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a.b", b"x" * 1000, b"\x1f\x8b" + bytes(400)])
def test_ordinary_bytes(settings, content):
    with uploads.opened(settings, BytesIO(content)) as stream:
        assert stream.read() == content


def test_upload_that_is_gone(settings):
    arrival = UploadFolder(settings).begin(None)
    arrival.drop()
    ticket = uploads.upload_ticket(secret_of(settings), arrival.name)
    with pytest.raises(StorageError, match="not there any more"), uploads.opened(settings, BytesIO(ticket)):
        pass


def test_upload_goes_where_the_page_fails(settings):
    arrival = UploadFolder(settings).begin(None)
    arrival.finish()
    ticket = uploads.upload_ticket(secret_of(settings), arrival.name)
    with pytest.raises(KeyError), uploads.opened(settings, BytesIO(ticket)):
        raise KeyError
    assert not arrival.path.exists()


def test_sweep_leaves_living_processes_alone_and_clears_after_dead_ones(settings):
    folder = UploadFolder(settings)
    arrival = folder.begin(None)
    arrival.write(b"half of it")
    dead = settings.home / keys.INCOMING / "uploads-0123456789abcdef"
    dead.mkdir()
    (dead / f"{'0' * 32}.upload").write_bytes(b"left")
    other = settings.home / keys.INCOMING / ".lungseg-0123456789abcdef.partial"
    other.touch()
    assert sweep_incoming(settings) == 1
    assert not dead.exists()
    assert other.exists()
    arrival.write(b", and the rest")
    arrival.finish()
    path = find_upload(settings, arrival.name)
    assert path is not None
    assert path.read_bytes() == b"half of it, and the rest"
    folder.close()
    assert not path.exists()


def test_folder_of_a_process_that_was_killed_is_swept(settings):
    script = (
        "import os, sys; from dataclasses import replace; from pathlib import Path\n"
        "from lungseg.config import Settings; from lungseg.services.incoming import UploadFolder\n"
        "a = UploadFolder(Settings.from_environment()).begin(None); a.write(b'x'); print(a.path, flush=True); input()"
    )
    import subprocess
    import sys

    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, env=settings.to_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        path = process.stdout.readline().decode().strip()
        assert sweep_incoming(settings) == 0
        assert Path(path).exists()
        process.kill()
    assert sweep_incoming(settings) == 1
    assert not Path(path).exists()


def test_folder_that_was_taken_away_is_made_anew(settings):
    folder = UploadFolder(settings)
    first = folder.begin(None)
    shutil.rmtree(settings.home / keys.INCOMING)
    second = folder.begin(None)
    assert second.path.exists()
    assert second.path.parent != first.path.parent
    for arrival in (first, second):
        arrival.drop()
    folder.close()


def test_nothing_to_sweep(settings):
    assert sweep_incoming(settings) == 0


def test_folder_that_can_not_be_written_to(settings):
    (settings.home / keys.INCOMING).write_text("in the way")
    with pytest.raises(StorageError):
        UploadFolder(settings).begin(None)
