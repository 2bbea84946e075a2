"""Bodies of several parts (RFC 2046), split as they arrive: never more than a piece of one lies in memory.

dicomweb-client splits them as well, but holds each part whole and rewrites it by pydicom; files are kept here as the
PACS has them, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message

from lungseg.errors import NotDicomwebError, PacsError

LONGEST_HEADERS = 64 * 1024
"""Bytes of the headers of a part; no server needs a tenth of them."""


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type names; raises NotDicomwebError where that is no body of parts."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_maintype() != "multipart" or not isinstance(boundary, str) or not boundary:
        raise NotDicomwebError(
            f"The server sends {message.get_content_type()} where DICOM files are expected.",
            "Check LUNGSEG_DICOMWEB_URL.",
        )
    return boundary.encode("latin-1", errors="replace")


def split_parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the content of the parts of a body in pieces, each with the number of its part, 1 for the first.

    Raises:
        PacsError: the body ends before its last boundary, or has headers without end.
    """
    marker, buffer, number, in_headers = b"\r\n--" + boundary, b"\r\n", 0, False
    for chunk in chunks:
        buffer += chunk
        while True:
            if in_headers:
                if buffer.startswith(b"--"):
                    return
                rest = _after_headers(buffer)
                if rest is None:
                    break
                number, in_headers, buffer = number + 1, False, rest
            place = buffer.find(marker)
            content = buffer[: max(0, len(buffer) - len(marker) + 1) if place < 0 else place]
            if content and number:
                yield number, content
            buffer = buffer[len(content) :]
            if place < 0:
                break
            in_headers, buffer = True, buffer[len(marker) :]
    raise _damaged("ends too early")


def join_parts(parts: Iterable[bytes], boundary: bytes) -> bytes:
    """Return a body of DICOM files."""
    head = b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def _after_headers(buffer: bytes) -> bytes | None:
    """Return what follows the headers of a part; None where they are not complete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0 and len(buffer) > LONGEST_HEADERS:
        raise _damaged("has headers without end")
    return None if end < 0 else buffer[end + 4 :]


def _damaged(reason: str) -> PacsError:
    return PacsError(f"The answer of the PACS {reason}.", "Try again; if that does not help, look into the PACS's log.")
