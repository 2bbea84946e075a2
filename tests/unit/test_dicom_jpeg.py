"""Headers of lossless JPEG: whole ones pass, and what ends GDCM's process never gets there."""

import pytest

from lungseg.scans.dicom.jpeg import is_sound

SIZE = (32, 40)
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
FRAME = b"\xff\xc3\0\x0b\x10\0\x20\0\x28\1\1\x11\0"
TABLE = b"\xff\xc4\0\x17\0\1\1\1\1" + bytes(12) + b"\0\x0b\x0a\x0f"
SCAN = b"\xff\xda\0\x08\1\1\0\1\0\0"
WHOLE = b"\xff\xd8" + JFIF + FRAME + TABLE + SCAN + b"\xe0\x38\xff\xd9"


@pytest.mark.parametrize(
    "frame",
    [
        WHOLE,
        WHOLE.replace(JFIF, b""),
        WHOLE.replace(FRAME, b"\xff" + FRAME),
        WHOLE.replace(FRAME, b"\xff\xfe\0\x04hi\xff\xdd\0\x04\0\x20" + FRAME),
        WHOLE.replace(FRAME + TABLE, TABLE + FRAME),
    ],
    ids=["as dcmtk writes it", "without JFIF", "a filling byte", "a comment and restarts", "table first"],
)
def test_whole_headers_pass(frame):
    assert is_sound(frame, *SIZE)


DAMAGE = {
    "no JPEG": (b"\xff\xd8\xff", b"\xff\xd9\xff"),
    "another JFIF": (b"JFIF\0\1", b"JFIF\0\x80"),
    "64 bits": (FRAME[:5], FRAME[:4] + b"\x40"),
    "another size": (b"\0\x20\0\x28", b"\0\x20\xff\xff"),
    "colours": (b"\x28\1\1\x11", b"\x28\3\1\x11"),
    "no sampling": (b"\x28\1\1\x11", b"\x28\1\1\x01"),
    "not lossless": (b"\xff\xc3", b"\xff\xc1"),
    "a frame that is cut off": (FRAME[:4], b"\xff\xc3\0\x0c"),
    "two frames": (FRAME, FRAME * 2),
    "no frame": (FRAME, b""),
    "no table": (TABLE, b""),
    "a table of nobody": (TABLE[:5], TABLE[:4] + b"\x10"),
    "more codes than there are": (b"\0\1\1\1\1", b"\0\2\1\1\0"),
    "a difference of 200 bits": (b"\x0b\x0a\x0f", b"\x0b\xc8\x0f"),
    "no predictor": (SCAN[:8], SCAN[:7] + b"\x08"),
    "two components": (SCAN[:5], SCAN[:4] + b"\2"),
    "a scan that is cut off": (SCAN[:4], b"\xff\xda\0\x06"),
    "a segment beyond the end": (FRAME[:4], b"\xff\xc3\xff\xff"),
    "bytes between segments": (FRAME, b"\0\0" + FRAME),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_headers_are_named(name):
    old, new = DAMAGE[name]
    assert old in WHOLE
    assert not is_sound(WHOLE.replace(old, new, 1), *SIZE)
