"""Splitting a body of several parts at whatever places it arrives in pieces."""

import pytest

from lungseg.errors import NotDicomwebError, PacsError
from lungseg.pacs import multipart
from lungseg.pacs.multipart import boundary_of, join_parts, split_parts

BOUNDARY = b"a-b"
PARTS = [b"first\r\n--a-", b"", b"\r\n\r\nsecond \x00\xff--a-b", b"third"]


def parts_of(body: bytes, size: int) -> dict[int, bytes]:
    contents: dict[int, bytes] = {}
    for number, piece in split_parts((body[i : i + size] for i in range(0, len(body), size)), BOUNDARY):
        contents[number] = contents.get(number, b"") + piece
    return contents


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_parts_come_out_as_they_went_in(size):
    body = b"preamble\r\n" + join_parts(PARTS, BOUNDARY) + b"epilogue"
    assert parts_of(body, size) == {number: part for number, part in enumerate(PARTS, 1) if part}


@pytest.mark.parametrize("missing", [3, 8, 12, 40])
def test_a_body_that_ends_too_early_is_refused(missing):
    with pytest.raises(PacsError, match="ends too early"):
        parts_of(join_parts(PARTS, BOUNDARY)[:-missing], 5)


def test_headers_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(multipart, "LONGEST_HEADERS", 100)
    with pytest.raises(PacsError, match="headers without end"):
        parts_of(b"--a-b\r\n" + b"x" * 300, 50)


def test_the_boundary_is_read_with_and_without_quotes():
    assert boundary_of('multipart/related; type="application/dicom"; boundary="x y"') == b"x y"
    assert boundary_of("Multipart/Related; boundary=abc; type=application/dicom") == b"abc"


@pytest.mark.parametrize("content_type", ["text/html; boundary=x", "multipart/related", "", "application/dicom+json"])
def test_what_is_no_body_of_parts_is_refused(content_type):
    with pytest.raises(NotDicomwebError, match="where DICOM files are expected"):
        boundary_of(content_type)
