"""Uploads by tus: strict offsets, one writer, the right limits, and nothing half-visible or left behind."""

import base64
import fcntl
import itertools
import os
import shutil
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urljoin

import anyio
import pytest
from starlette.requests import Request

from lungseg.errors import DiskFullError, NotFoundError, TooLargeError, UploadBusyError
from lungseg.files import keys
from lungseg.services import resumable, storage
from lungseg.services.incoming import sweep_incoming
from lungseg.services.resumable import Announcement, begin_upload, forgotten_groups, sweep_uploads, taking_in, upload_of
from lungseg.web import resumable as web
from lungseg.web.signing import Kind, grant, secret_of, sign
from tests.uploads import GROUP, Browser, metadata

CONTENT = os.urandom(3 * web.PIECE_BYTES + 17)
OTHER_GROUP = "b" * 32


def on_disk(settings):
    return sorted(path.suffix for path in (settings.home / keys.RESUMABLE).glob("*"))


@pytest.fixture
def browser(settings):
    return Browser(settings)


def limited(settings, **limits):
    return Browser(replace(settings, limits=replace(settings.limits, **limits)))


def age(settings, upload_id, seconds):
    """Let an upload be so many seconds older."""
    path = upload_of(settings, upload_id).path
    touched_s = path.stat().st_mtime - seconds
    os.utime(path, (touched_s, touched_s))


def test_server_says_what_it_can_do(browser):
    answer = browser.ask("OPTIONS", "", {})
    assert answer.status == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,termination,expiration"
    assert answer.headers["tus-max-size"] == str(16 * 1024**3)


def test_pieces_become_the_file(browser, settings):
    upload_id = browser.begin(len(CONTENT))
    assert browser.head(upload_id).headers["upload-offset"] == "0"
    offset = 0
    for end in (1, 70_000, 2 * web.PIECE_BYTES, len(CONTENT)):
        answer = browser.patch(upload_id, offset, CONTENT[offset:end])
        assert (answer.status, answer.headers["upload-offset"]) == (204, str(end))
        offset = end
    state = browser.head(upload_id)
    assert state.headers["upload-offset"] == state.headers["upload-length"] == str(len(CONTENT))
    assert state.headers["cache-control"] == "no-store"
    assert state.headers["tus-resumable"] == "1.0.0"
    upload = upload_of(settings, upload_id)
    assert upload.is_whole
    assert upload.path.read_bytes() == CONTENT
    assert upload.path.stat().st_mode & 0o777 == 0o600
    assert upload.path.parent.stat().st_mode & 0o777 == 0o700
    assert upload.announcement == Announcement(name="scan.nii.gz", size=len(CONTENT), group=GROUP, count=1, place=0)


def test_location_leads_there_below_the_path_of_a_proxy(browser):
    location = browser.create(len(CONTENT)).headers["location"]
    base = "https://lungseg.example.org/below/a/path"
    assert urljoin(f"{base}{web.ADDRESS}", location).startswith(f"{base}{web.ADDRESS}/")


@pytest.mark.parametrize("offset", [0, 9, 11, 10**14])
def test_offset_that_is_not_the_end_is_refused(browser, settings, offset):
    upload_id = browser.begin(len(CONTENT))
    browser.patch(upload_id, 0, CONTENT[:10])
    answer = browser.patch(upload_id, offset, CONTENT[10:20])
    assert (answer.status, answer.headers["upload-offset"]) == (409, "10")
    assert upload_of(settings, upload_id).path.read_bytes() == CONTENT[:10]


def test_second_request_at_the_same_upload_is_refused(browser, settings):
    upload_id = browser.begin(len(CONTENT))
    with resumable.writing(settings, upload_id):
        answer = browser.patch(upload_id, 0, CONTENT)
        assert (answer.status, answer.error["code"]) == (423, "upload.busy")
        assert browser.delete(upload_id).status == 423
        assert browser.head(upload_id).status == 200
    assert browser.patch(upload_id, 0, CONTENT).status == 204


def test_of_two_that_write_at_once_one_writes(browser, settings):
    upload_id = browser.begin(len(CONTENT))
    is_written, may_end = threading.Event(), threading.Event()

    def chunks():
        yield CONTENT[: web.PIECE_BYTES]
        is_written.set()
        assert may_end.wait(30)
        yield CONTENT[web.PIECE_BYTES :]

    with ThreadPoolExecutor() as pool:
        first = pool.submit(browser.stream, upload_id, 0, chunks())
        assert is_written.wait(30)
        second = browser.patch(upload_id, web.PIECE_BYTES, CONTENT[web.PIECE_BYTES :])
        may_end.set()
    assert (first.result().status, second.status) == (204, 423)
    assert upload_of(settings, upload_id).path.read_bytes() == CONTENT


def test_more_than_announced_is_refused(browser, settings):
    upload_id = browser.begin(10)
    assert browser.patch(upload_id, 0, CONTENT[:11]).status == 400
    assert upload_of(settings, upload_id).offset == 0
    assert browser.patch(upload_id, 0, CONTENT[:10]).status == 204


@pytest.mark.parametrize("sizes", [(1000,), (web.PIECE_BYTES, 5), (70_000,) * 8])
def test_what_came_before_a_break_stays(browser, settings, sizes):
    upload_id = browser.begin(len(CONTENT))
    ends = list(itertools.accumulate(sizes))
    browser.patch(
        upload_id, 0, *(CONTENT[end - size : end] for size, end in zip(sizes, ends, strict=True)), breaks_off=True
    )
    assert browser.head(upload_id).headers["upload-offset"] == str(ends[-1])
    assert browser.patch(upload_id, ends[-1], CONTENT[ends[-1] :]).status == 204
    assert upload_of(settings, upload_id).path.read_bytes() == CONTENT


def test_body_that_falls_silent_has_broken_off(browser, settings, monkeypatch):
    upload_id = browser.begin(len(CONTENT))
    real = Request.stream

    async def stream(request):
        async for chunk in real(request):
            yield chunk
            await anyio.sleep(60)

    monkeypatch.setattr(Request, "stream", stream)
    monkeypatch.setattr(web, "SILENCE_S", 0.05)
    assert browser.patch(upload_id, 0, CONTENT[:100], CONTENT[100:]).status == 408
    monkeypatch.undo()
    assert upload_of(settings, upload_id).offset == 100
    assert browser.patch(upload_id, 100, CONTENT[100:]).status == 204


def test_no_more_than_a_piece_is_held(browser, monkeypatch):
    written: list[int] = []
    write = resumable.Writer.write

    def counted_write(writer, piece):
        written.append(len(piece))
        write(writer, piece)

    monkeypatch.setattr(resumable.Writer, "write", counted_write)
    upload_id = browser.begin(len(CONTENT))
    browser.patch(upload_id, 0, *(CONTENT[start : start + 65_536] for start in range(0, len(CONTENT), 65_536)))
    assert sum(written) == len(CONTENT)
    assert max(written) < web.PIECE_BYTES + 65_536


@pytest.mark.parametrize("change", [{web.GRANT: ""}, {web.GRANT: "made up"}, {web.GRANT: "of a scan"}])
def test_without_a_page_of_this_server_nothing_is_written(browser, settings, change):
    if change[web.GRANT] == "of a scan":
        change = {web.GRANT: sign(secret_of(settings), grant(Kind.SCAN, "0" * 32, "0" * 64))}
    upload_id = browser.begin(len(CONTENT))
    browser.headers |= change
    assert browser.create(len(CONTENT)).status == 403
    assert browser.head(upload_id).status == 403
    assert browser.patch(upload_id, 0, CONTENT).status == 403
    assert browser.delete(upload_id).status == 403
    assert on_disk(settings) == [".json", ".upload"]


def test_grant_of_yesterday(browser, settings):
    browser.headers[web.GRANT] = sign(secret_of(settings), grant(Kind.UPLOAD, "", "", now_s=0))
    answer = browser.create(len(CONTENT))
    assert (answer.status, answer.error["remedy"]) == (403, "Reload the page.")


def test_another_version_of_the_protocol(browser):
    browser.headers["tus-resumable"] = "0.2.2"
    answer = browser.create(len(CONTENT))
    assert (answer.status, answer.headers["tus-version"]) == (412, "1.0.0")


@pytest.mark.parametrize("size", ["", "-1", "1e3", "9" * 16, "five"])
def test_length_has_to_be_announced(browser, settings, size):
    assert browser.create(size).status == 400
    assert browser.ask("POST", "", {"upload-metadata": metadata("a.nii")}).status == 400
    assert on_disk(settings) == []


@pytest.mark.parametrize(
    "note",
    [
        "",
        "filename",
        "filename !!!",
        "filename \xe9",
        f"filename {base64.b64encode(bytes([255])).decode()}",
        metadata("a.nii", group="../../etc"),
        metadata(""),
        metadata("a" * 1025),
        metadata("a" * 4000),
        metadata("a.nii", count="0"),
        metadata("a.nii", count="99999"),
        metadata("a.nii", place="-1"),
        metadata("a.nii", count="2", part="2"),
        metadata("a.nii", count="2", part="-1"),
    ],
)
def test_metadata_is_checked(browser, settings, note):
    assert browser.ask("POST", "", {"upload-length": "5", "upload-metadata": note}).status == 400
    assert on_disk(settings) == []


def test_very_many_uploads_are_refused_until_some_are_taken_in(browser, settings, monkeypatch):
    monkeypatch.setattr(resumable, "MOST_UPLOADS", 2)
    first, _ = browser.begin(5), browser.begin(5, "study.zip", group="b" * 32)
    answer = browser.create(5, "more.zip")
    assert (answer.status, answer.error["code"]) == (423, "upload.busy")
    browser.delete(first)
    assert browser.create(5, "more.zip").status == 201


def test_body_of_another_type(browser):
    upload_id = browser.begin(len(CONTENT))
    assert browser.patch(upload_id, 0, CONTENT, content_type="application/json").status == 415
    assert browser.patch(upload_id, "x", CONTENT).status == 400


@pytest.mark.parametrize("upload_id", ["0" * 32, "secret.key", "..%2fsecret.key", "A" * 32])
def test_address_that_leads_nowhere(browser, upload_id):
    assert browser.head(upload_id).status == 404
    assert browser.patch(upload_id, 0, b"x").status == 404
    assert browser.delete(upload_id).status == 404


def test_upload_that_is_given_up_is_gone(browser, settings):
    upload_id = browser.begin(len(CONTENT))
    browser.patch(upload_id, 0, CONTENT[:100])
    assert browser.delete(upload_id).status == 204
    assert on_disk(settings) == []
    assert browser.head(upload_id).status == 404


def test_limit_of_a_scan_and_of_an_upload(settings):
    browser = limited(settings, file_bytes=1000, upload_bytes=5000)
    assert browser.create(1000).status == 201
    answer = browser.create(1001)
    assert (answer.status, answer.error["code"]) == (413, "scan.too_large")
    assert answer.error["found"] == "The file has 1,001 bytes, more than 1,000."
    assert browser.create(5000, "study.zip").status == 201
    assert browser.create(5001, "study.zip").status == 413
    assert browser.create(5000, "one.nii", count="2").status == 201  # of an intake


def fill_disk(settings, monkeypatch, room):
    usage = namedtuple("usage", "total used free")
    folder = settings.home / keys.RESUMABLE
    left = storage.RESERVE_BYTES + room
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage(0, 0, left - sum(p.stat().st_size for p in folder.glob("*.upload")))
    )


def test_full_disk_is_seen_before_anything_is_sent(browser, settings, monkeypatch):
    fill_disk(settings, monkeypatch, len(CONTENT) - 1)
    answer = browser.create(len(CONTENT))
    assert (answer.status, answer.error["code"]) == (507, "storage.disk_full")
    assert on_disk(settings) == []


def test_full_disk_amid_an_upload_costs_nothing_that_has_come(browser, settings, monkeypatch):
    upload_id = browser.begin(len(CONTENT))
    fill_disk(settings, monkeypatch, 2 * web.PIECE_BYTES)
    browser.patch(upload_id, 0, CONTENT[: web.PIECE_BYTES])
    assert browser.patch(upload_id, web.PIECE_BYTES, CONTENT[web.PIECE_BYTES :]).status == 507
    monkeypatch.undo()
    assert browser.head(upload_id).headers["upload-offset"] == str(web.PIECE_BYTES)
    assert browser.patch(upload_id, web.PIECE_BYTES, CONTENT[web.PIECE_BYTES :]).status == 204
    assert upload_of(settings, upload_id).path.read_bytes() == CONTENT


def test_folder_that_can_not_be_written_to(browser, settings):
    (settings.home / keys.INCOMING).write_text("in the way")
    answer = browser.create(len(CONTENT))
    assert (answer.status, answer.error["code"]) == (500, "storage.failed")


def test_half_an_upload_outlives_its_server_and_goes_after_a_day(browser, settings):
    upload_id = browser.begin(len(CONTENT))
    browser.patch(upload_id, 0, CONTENT[:100])
    age(settings, upload_id, resumable.HALF_S - 60)
    assert sweep_incoming(settings) == 0  # as the next server does when it starts
    assert browser.head(upload_id).headers["upload-offset"] == "100"
    age(settings, upload_id, 61)
    assert browser.head(upload_id).status == 404
    assert sweep_uploads(settings) == 1
    assert on_disk(settings) == []


def test_whole_upload_stays_for_longer(browser, settings):
    upload_id = browser.begin(10)
    browser.patch(upload_id, 0, CONTENT[:10])
    age(settings, upload_id, resumable.HALF_S + 60)
    assert sweep_uploads(settings) == 0
    assert upload_of(settings, upload_id).is_whole


def test_sweep_leaves_alone_what_is_written_now(browser, settings):
    upload_id = browser.begin(len(CONTENT))
    with resumable.writing(settings, upload_id):
        age(settings, upload_id, resumable.HALF_S + 60)
        assert sweep_uploads(settings) == 0
    assert sweep_uploads(settings) == 1


def test_sweep_looks_again_before_it_removes(browser, settings, monkeypatch):
    upload_id = browser.begin(len(CONTENT))
    age(settings, upload_id, resumable.HALF_S + 60)
    path = settings.home / keys.RESUMABLE / f"{upload_id}.upload"
    lock = fcntl.flock

    def touched_and_locked(*arguments):
        os.utime(path)  # somebody appends meanwhile
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", touched_and_locked)
    assert sweep_uploads(settings) == 0
    assert path.exists()


def test_sweep_clears_what_kills_have_left(settings):
    folder = settings.home / keys.RESUMABLE
    folder.mkdir(parents=True)
    without_note, new = folder / f"{'1' * 32}.upload", folder / f"{'2' * 32}.upload"
    for path in (without_note, new, folder / f"{'3' * 32}.json"):
        path.write_bytes(b"left")
    os.utime(without_note, (0, 0))
    assert sweep_uploads(settings) == 1
    assert [path.name for path in folder.iterdir()] == [new.name]


def test_half_a_group_is_not_taken_in(browser, settings):
    browser.whole(b"x", "a.zip", count="2")
    half = browser.begin(len(CONTENT), "b.zip", count="2", part="1")
    browser.whole(b"x", "c.zip", group=OTHER_GROUP)
    with pytest.raises(NotFoundError, match="not there any more"), taking_in(settings, GROUP):
        pass
    assert forgotten_groups(settings, 0) == (OTHER_GROUP,)
    browser.patch(half, 0, CONTENT)
    assert set(forgotten_groups(settings, 0)) == {GROUP, OTHER_GROUP}
    assert forgotten_groups(settings, 60) == ()
    with taking_in(settings, GROUP) as uploads:
        assert {upload.announcement.name: upload.path.stat().st_size for upload in uploads} == {
            "a.zip": 1,
            "b.zip": len(CONTENT),
        }
    assert forgotten_groups(settings, 0) == (OTHER_GROUP,)


def test_group_is_taken_in_once(browser, settings):
    upload_id = browser.whole(b"x")
    with taking_in(settings, GROUP):
        with pytest.raises(UploadBusyError, match="in use"), taking_in(settings, GROUP):
            pass
        assert browser.patch(upload_id, 1, b"").status == 423
    assert on_disk(settings) == []
    with pytest.raises(NotFoundError), taking_in(settings, GROUP):
        pass


def test_part_whose_first_answer_was_lost_does_not_keep_its_group_from_being_taken_in(browser, settings):
    browser.begin(1, "a.zip", count="2")  # the browser hears nothing of it, and begins it again
    browser.whole(b"b", "b.zip", count="2", part="1")
    browser.whole(b"a", "a.zip", count="2")
    assert forgotten_groups(settings, 0) == (GROUP,)
    with taking_in(settings, GROUP) as uploads:
        assert [upload.path.read_bytes() for upload in uploads] == [b"a", b"b"]
    assert on_disk(settings) == []


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (ValueError, []),
        (KeyboardInterrupt, [".json", ".upload"]),
        (DiskFullError("The disk is full.", ""), [".json", ".upload"]),
    ],
)
def test_what_ends_the_taking_in_decides_what_stays(browser, settings, error, left):
    browser.whole(b"x")
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind), taking_in(settings, GROUP):
        raise error
    assert on_disk(settings) == left


def test_what_was_moved_away_stays_there(browser, settings, tmp_path):
    browser.whole(b"all of it")
    with taking_in(settings, GROUP) as (upload,):
        upload.path.rename(tmp_path / "moved")
    assert (tmp_path / "moved").read_bytes() == b"all of it"
    assert on_disk(settings) == []


def test_errors_without_a_browser(settings, monkeypatch):
    announcement = Announcement(name="a.nii", size=settings.limits.file_bytes + 1, group=GROUP, count=1, place=0)
    with pytest.raises(TooLargeError, match="Crop the scan"):
        begin_upload(settings, announcement)
    fill_disk(settings, monkeypatch, 10)
    with pytest.raises(DiskFullError, match="disk is full"):
        begin_upload(settings, replace(announcement, size=11))


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{",
        b"[]",
        b"\xff" * 40,
        b"[" * 500,
        b'{"name": "a.nii", "size": -1, "group": "g", "count": 1, "place": 0}',
        b'{"name": "a.nii", "size": 1e99, "group": "g", "count": 1, "place": 0}',
        b'{"name": "a.nii", "size": 5}',
    ],
)
def test_damaged_note_is_no_upload(browser, settings, note):
    upload_id = browser.begin(10)
    (settings.home / keys.RESUMABLE / f"{upload_id}.json").write_bytes(note)
    assert browser.head(upload_id).status == 404
    assert forgotten_groups(settings, -1) == ()
    sweep_uploads(settings)
    other = browser.whole(b"all of it")
    assert upload_of(settings, other).is_whole
