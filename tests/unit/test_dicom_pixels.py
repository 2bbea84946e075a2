"""Pixels as HU: the same bits of every lossless syntax, on one processor and on all, damage named."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lungseg import errors
from lungseg.records.findings import ScanSeverity
from lungseg.scans.dicom import pixels
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.pixels import check_decoders, read_plane, read_planes
from lungseg.scans.dicom.rescaling import findings_of_values
from tests.dicom_phantoms import small_volume, without_preamble, write_dataset, write_enhanced, write_series
from tests.dicom_series import spoil

SLICES, ROWS, COLUMNS = 6, 36, 44


def phantom():
    return small_volume(SLICES, ROWS, COLUMNS)


def planes_in(folder, change=None, **arguments):
    return read_headers(write_series(folder, phantom(), change=change, **arguments), are_whole=False).instances


def hu_of(planes):
    return np.stack([read_plane(plane) for plane in planes])


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} of Debian's dcmtk is not installed")


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        pytest.param(JPEGLosslessSV1, marks=needs("dcmcjpeg")),
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_every_lossless_syntax_gives_the_same_bits(tmp_path, syntax):
    planes = planes_in(tmp_path, transfer_syntax=syntax)
    check_decoders(planes)
    assert {plane.transfer_syntax_uid for plane in planes} == {syntax}
    hu = hu_of(planes)
    assert hu.dtype == np.int16
    np.testing.assert_array_equal(hu, phantom())


@pytest.mark.parametrize(
    ("program", "option"),
    [
        pytest.param("dcmcjpeg", "+el", marks=needs("dcmcjpeg")),
        pytest.param("dcmcjpls", "+el", marks=needs("dcmcjpls")),
        pytest.param("dcmcrle", "-v", marks=needs("dcmcrle")),
    ],
)
def test_what_other_programs_compress_gives_the_same_bits(tmp_path, program, option):
    paths = write_series(tmp_path, phantom())
    for path in paths:
        subprocess.run([program, option, path, path], check=True)
    np.testing.assert_array_equal(hu_of(read_headers(paths).instances), phantom())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_frames_of_one_file_are_read_by_their_place(tmp_path, syntax):
    planes = read_headers([write_enhanced(tmp_path / "enhanced", phantom(), transfer_syntax=syntax)]).instances
    by_height = sorted(planes, key=lambda plane: plane.position_mm[2] if plane.position_mm else 0)
    np.testing.assert_array_equal(np.stack(list(read_planes(by_height))), phantom())


def test_file_without_preamble(tmp_path):
    paths = [without_preamble(path) for path in write_series(tmp_path, phantom())]
    np.testing.assert_array_equal(hu_of(read_headers(paths).instances), phantom())


def set_signed(dataset, hu):
    dataset.PixelRepresentation, dataset.RescaleIntercept = 1, "0"
    dataset.PixelData = hu.astype("<i2").tobytes()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_signed_pixels(tmp_path, syntax):
    planes = planes_in(tmp_path, lambda dataset, k: set_signed(dataset, phantom()[k]), transfer_syntax=syntax)
    assert planes[0].is_signed
    np.testing.assert_array_equal(hu_of(planes), phantom())
    here = list(pixels._decoded(planes))  # as another process decodes them
    np.testing.assert_array_equal(np.stack(here), phantom())


def test_stream_whose_sign_the_header_contradicts():
    """A file of pydicom's: the header says signed, the JPEG 2000 stream unsigned; GDCM and DCMTK read it like this."""
    path = get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)
    dataset = dcmread(str(path))
    (plane,) = read_headers([Path(str(path))]).instances
    hu = read_plane(plane)
    assert (hu.shape, dataset.PixelRepresentation) == ((dataset.Rows, dataset.Columns), 1)
    assert hu.min() >= -1024
    assert np.median(hu) < -500  # air around the body


@needs("dcmcjpls")
def test_lossy_compression_is_a_warning(tmp_path):
    paths = write_series(tmp_path, phantom())
    for path in paths:
        subprocess.run(["dcmcjpls", "+en", "+md", "3", path, path], check=True)
    planes = read_headers(paths).instances
    (finding,) = findings_of_values(planes)
    assert (finding.code, finding.severity) == ("dicom.lossy", ScanSeverity.WARNING)
    check_decoders(planes)
    assert 1 <= np.abs(hu_of(planes).astype(int) - phantom()).max() <= 3


@needs("dcmcjpeg")
def test_baseline_of_8_bits_is_read_and_extended_of_12_refused(tmp_path):
    def change(dataset, k):
        values = np.clip((phantom()[k].astype(int) + 1024) / 16, 0, 255)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.RescaleSlope, dataset.PixelData = "16", values.astype(np.uint8).tobytes()

    (path, *_) = write_series(tmp_path / "8", phantom(), change=change)
    subprocess.run(["dcmcjpeg", "+eb", "+q", "100", path, path], check=True)
    planes = read_headers([path]).instances
    check_decoders(planes)
    assert np.median(np.abs(read_plane(planes[0]).astype(int) - phantom()[0])) < 40

    def make_12_bits(dataset, _k):
        dataset.BitsStored, dataset.HighBit = 12, 11

    (path, *_) = write_series(tmp_path / "12", phantom(), change=make_12_bits)
    subprocess.run(["dcmcjpeg", "+ee", path, path], check=True)
    with pytest.raises(errors.DecoderError, match=r"compressed as JPEG Extended .* with 12 bits"):
        check_decoders(read_headers([path]).instances)


@pytest.mark.parametrize(
    ("syntax", "name"), [("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile"), ("1.2.3.4", "1.2.3.4")]
)
def test_syntax_without_a_decoder_is_named(tmp_path, syntax, name):
    planes = [replace(plane, transfer_syntax_uid=syntax) for plane in planes_in(tmp_path)]
    with pytest.raises(errors.DecoderError, match=f"compressed as {name}.*Export the series uncompressed"):
        check_decoders(planes)


def test_high_throughput_jpeg_2000_has_a_decoder(tmp_path):
    check_decoders([replace(plane, transfer_syntax_uid=HTJ2KLossless) for plane in planes_in(tmp_path)])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEGLSLossless])
@pytest.mark.parametrize("share", [0.55, 0.97])
def test_file_that_was_cut_off_is_named(tmp_path, syntax, share):
    planes = planes_in(tmp_path, transfer_syntax=syntax)
    path = planes[3].path
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(errors.TruncatedScanError, match=rf"(S|s)lice 4 \({path.name}\).*Copy or export"):
        list(read_planes(planes))


def test_pixels_that_are_too_short_are_named(tmp_path):
    def change(dataset, k):
        if k == 3:
            dataset.PixelData = dataset.PixelData[:-100]

    with pytest.raises(errors.TruncatedScanError, match=r"Slice 4 \(a0003\) holds 3,068 of 3,168 bytes"):
        list(read_planes(planes_in(tmp_path, change)))


def test_damaged_stream_is_named(tmp_path):
    planes = planes_in(tmp_path, transfer_syntax=JPEG2000Lossless)
    spoil(planes[3].path)
    with pytest.raises(errors.TruncatedScanError, match=r"pixels of Slice 4 \(a0003\) are damaged"):
        list(read_planes(planes))


def test_file_that_was_replaced_or_removed_is_noticed(tmp_path):
    planes = planes_in(tmp_path)
    other = write_series(tmp_path / "other", small_volume(SLICES, 20, COLUMNS))
    other[3].replace(planes[3].path)
    planes[4].path.unlink()
    with pytest.raises(errors.ScanChangedError, match=r"a0003 holds a picture of 44 x 20 pixels, not of 44 x 36"):
        read_plane(planes[3])
    with pytest.raises(errors.ScanError, match=r"a0004 can't be read \(No such file"):
        read_plane(planes[4])


def test_deflated_file_is_inflated_no_farther_than_it_needs(tmp_path, monkeypatch):
    def change(dataset, k):
        dataset.PixelData += bytes(4_000_000 if k == 2 else 0)

    plane = planes_in(tmp_path, change, transfer_syntax=DeflatedExplicitVRLittleEndian)[2]
    raw = plane.path.read_bytes()
    assert len(raw) < 20_000
    np.testing.assert_array_equal(read_plane(plane), phantom()[2])
    monkeypatch.setattr(pixels, "BESIDE_PIXELS_BYTES", 5000)
    assert len(pixels._inflated(raw, 2 * ROWS * COLUMNS)) == 2 * ROWS * COLUMNS + 5000


def test_deflated_file_needs_the_length_of_its_meta_information(tmp_path):
    plane = planes_in(tmp_path, transfer_syntax=DeflatedExplicitVRLittleEndian)[0]
    raw = bytearray(plane.path.read_bytes())
    raw[134] = 1
    plane.path.write_bytes(raw)
    with pytest.raises(errors.TruncatedScanError, match="is damaged or cut off"):
        read_plane(plane)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_processes_give_the_planes_in_order(tmp_path, monkeypatch, syntax):
    volume = small_volume(20, ROWS, COLUMNS)
    planes = read_headers(write_series(tmp_path, volume, transfer_syntax=syntax)).instances
    monkeypatch.setattr(pixels, "WORTHWHILE_PIXELS", 20 * ROWS * COLUMNS)
    monkeypatch.setattr(pixels, "PLANES_AT_ONCE", 2)
    done = []
    hu = np.stack(list(read_planes(planes, on_progress=lambda some, every: done.append((some, every)))))
    np.testing.assert_array_equal(hu, volume)
    assert done == [(k, 20) for k in range(1, 21)]


def test_reading_can_be_left_and_errors_come_out_of_processes(tmp_path):
    planes = planes_in(tmp_path, transfer_syntax=JPEGLSLossless)
    reading = read_planes(planes, workers=2)
    np.testing.assert_array_equal(next(reading), phantom()[0])
    del reading
    planes[3].path.write_bytes(planes[3].path.read_bytes()[:-500])
    with pytest.raises(errors.TruncatedScanError, match="Slice 4"):
        list(read_planes(planes, workers=2))


class Deadly(Instance):
    """Kills the process that takes it, as a damaged slice kills a decoder."""

    def __reduce__(self):
        return os._exit, (1,)


def test_process_that_dies_is_an_error_and_no_hang():
    with pytest.raises(errors.DecoderError, match="A process that decodes slices died"):
        list(read_planes([Deadly(path=Path("deadly"))], workers=2))


def test_only_long_compressed_series_start_processes(tmp_path, monkeypatch):
    plane = replace(planes_in(tmp_path)[0], rows=512, columns=512)
    compressed, quick = (replace(plane, transfer_syntax_uid=uid) for uid in (JPEG2000Lossless, RLELossless))
    assert pixels._workers_for([plane] * 300) == pixels._workers_for([quick] * 300) == 1
    assert pixels._workers_for([compressed] * 149) == 1
    assert pixels._workers_for([compressed] * 150) == len(os.sched_getaffinity(0))
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert pixels._workers_for([compressed] * 150) == 1


def test_decoding_processes_load_no_network():
    code = "import sys, lungseg.scans.dicom.pixels; sys.exit('torch' in sys.modules or 'highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pixels_that_are_absent_are_named(tmp_path):
    plane = planes_in(tmp_path)[2]
    dataset = dcmread(plane.path)
    del dataset.PixelData
    write_dataset(dataset, plane.path)
    with pytest.raises(errors.TruncatedScanError, match=r"Slice 3 \(a0002\) ends before its pixels do"):
        read_plane(plane)


@pytest.mark.parametrize("kind", ["OW", "SQ"])
def test_pixels_that_are_empty_or_a_sequence_are_named(tmp_path, kind):
    (plane, *_) = planes_in(tmp_path)
    raw = plane.path.read_bytes()
    at = raw.rindex(b"\xe0\x7f\x10\x00")
    plane.path.write_bytes(raw[:at] + b"\xe0\x7f\x10\x00" + kind.encode() + bytes(6))
    with pytest.raises(errors.TruncatedScanError, match=r"ends before its pixels do|damaged"):
        read_plane(plane)


def test_header_of_jpeg_ls_that_ends_another_decoder_is_named(tmp_path):
    (plane, *_) = planes_in(tmp_path, transfer_syntax=JPEGLSLossless)
    raw = plane.path.read_bytes()
    at = raw.index(b"\xff\xf7\x00\x0b") + 4
    plane.path.write_bytes(raw[:at] + b"\x40" + raw[at + 1 :])  # bits of a value; GDCM 3.2.6 aborts
    with pytest.raises(errors.TruncatedScanError, match="damaged or cut off"):
        read_plane(plane)


@needs("dcmcjpeg")
def test_header_of_lossless_jpeg_that_ends_its_decoder_is_named(tmp_path):
    (plane, *_) = planes_in(tmp_path, transfer_syntax=JPEGLosslessSV1)
    assert read_plane(plane).shape == (ROWS, COLUMNS)
    raw = plane.path.read_bytes()
    at = raw.index(b"\xff\xc3\x00\x0b") + 4
    plane.path.write_bytes(raw[:at] + b"\xff" + raw[at + 1 :])
    with pytest.raises(errors.TruncatedScanError, match="damaged or cut off"):
        read_plane(plane)
