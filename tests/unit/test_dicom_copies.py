"""Planes that come twice: dropped where they are equal, refused where they are not."""

import shutil

from pydicom.uid import RLELossless

from tests.dicom_phantoms import (
    uid_of,
    write_series,
)
from tests.dicom_series import codes_of, only_series, repaint, retag


def test_the_same_file_twice_is_used_once(tmp_path):
    """Situation 3."""
    files = write_series(tmp_path)
    shutil.copy(files[4], tmp_path / "copy")
    series = only_series([tmp_path / "copy", *files])
    assert (len(series.instances), codes_of(series), series.refusal) == (24, ["dicom.copies"], "")
    assert "1 image came twice" in series.findings[0].text


def test_the_same_picture_in_another_transfer_syntax_is_a_copy(tmp_path):
    files = write_series(tmp_path / "plain")
    packed = write_series(tmp_path / "packed", transfer_syntax=RLELossless)
    assert len(only_series([*files, packed[3]]).instances) == 24


def test_one_identity_for_two_pictures_is_refused(tmp_path):
    """Situation 4."""
    files = write_series(tmp_path)
    shutil.copy(files[4], tmp_path / "copy")
    series = only_series([*files, repaint(tmp_path / "copy")])
    assert "1 slice came twice under one identity" in series.refusal
    assert "Export the series again" in series.refusal


def test_a_copy_that_breaks_its_decoder_is_a_conflict(tmp_path):
    """The decoder of RLE is in Rust: runs beyond the picture make it panic, which no `except Exception` catches."""
    files = write_series(tmp_path / "a", transfer_syntax=RLELossless)
    raw = files[4].read_bytes()
    (tmp_path / "copy").write_bytes(raw[:-48] + b"\x81\x05" * 20 + raw[-8:])
    assert "1 slice came twice" in only_series([*files, tmp_path / "copy"]).refusal


def test_another_identity_with_the_same_picture_is_dropped(tmp_path):
    """Situation 5, the same pixels."""
    files = write_series(tmp_path)
    for number in (3, 4):
        shutil.copy(files[number], tmp_path / f"copy{number}")
        retag(tmp_path / f"copy{number}", SOPInstanceUID=uid_of("copy", str(number)))
    series = only_series([*files, tmp_path / "copy3", tmp_path / "copy4"])
    assert (len(series.instances), codes_of(series), series.refusal) == (24, ["dicom.copies"], "")


def test_two_pictures_of_one_position_that_nothing_tells_apart_are_refused(tmp_path):
    """Situation 5, other pixels."""
    files = write_series(tmp_path)
    shutil.copy(files[4], tmp_path / "other")
    other = repaint(tmp_path / "other", SOPInstanceUID=uid_of("other"))
    series = only_series([*files, other])
    assert "More than one slice lies at 1 position" in series.refusal
