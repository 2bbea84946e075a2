"""DICOM files with one thing wrong that only a program finds: nesting, fragments, lengths, sizes in the codestream."""

import struct
import zipfile
from io import BytesIO

from pydicom import dcmread
from pydicom.dataelem import DataElement

from tests.fuzz.damage import flipped

KEYS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "NumberOfFrames", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID",
    "FrameOfReferenceUID", "Modality", "ImageType", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PhotometricInterpretation", "SpecificCharacterSet", "PatientName", "StudyDate", "InstanceNumber",
    "AcquisitionNumber", "PlanarConfiguration", "GantryDetectorTilt", "SliceThickness",
)  # fmt: skip
VALUES = (
    b"", b"0", b"-1", b"NaN", b"inf", b"-inf", b"2147483647", b"4294967296", b"1e308", b"1e-308", b"1\\2", b"0\\0\\0",
    b"1\\0\\0\\0\\1\\0", b"nan\\0\\0\\0\\1\\0", b"\\" * 9000, b"x" * 70_000, b"\xff\xff", b"\0\0", b"\1\0", b"\x00\x80",
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"../../../x", b"1.2.840.10008.1.2.4.90", b"1." * 40, b"\x1b$B\x1b",
    b"\xed\xa0\x80", b"0.3\\0.3", b"1e4\\1e4", b"16", b"12", b"1", b"ISO_IR 192",
)  # fmt: skip
REPRESENTATIONS = ("UN", "OB", "LO", "US", "DS", "SS", "IS", "UI", "UT", "FD")
DEPTHS = (3, 900, 10_000)
LENGTHS = (0, 1, 3, 7, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
SEQUENCE = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff"
ITEM, ENDS = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
PIXELS, MODALITY = b"\xe0\x7f\x10\x00", b"\x08\x00\x60\x00"
CODESTREAMS = {
    b"\xff\x4f\xff\x51": ((8, 4), (12, 4), (16, 4), (24, 4), (40, 2)),
    b"\xff\xf7\x00": ((4, 1), (5, 2), (7, 2), (9, 1)),
    b"\xff\xc3\x00": ((4, 1), (5, 2), (7, 2), (9, 1), (11, 1)),
}
"""Starts of JPEG 2000, JPEG-LS and JPEG lossless, and where they state a size: place and bytes."""


def with_nasty_key(raw, rng):
    """Give one of the elements that matter a nasty value, in its own representation or in a wrong one."""
    dataset = dcmread(BytesIO(raw), force=True)
    name = KEYS[rng.integers(len(KEYS))]
    kind = dataset[name].VR if name in dataset and rng.random() < 0.7 else REPRESENTATIONS[rng.integers(10)]
    element = DataElement(name, "UN", VALUES[rng.integers(len(VALUES))])
    target = BytesIO()
    dataset[name] = element
    dataset.save_as(target)
    changed = target.getvalue()
    head = struct.pack("<HH", element.tag.group, element.tag.element)
    at = changed.find(head + b"UN\0\0", 132)
    length = int.from_bytes(changed[at + 8 : at + 12], "little")
    if at < 0 or kind in {"UN", "OB", "UT", "UC", "UR"}:
        return changed
    value = changed[at + 12 : at + 12 + length]
    return changed[:at] + head + kind.encode() + struct.pack("<H", length % 65536) + value + changed[at + 12 + length :]


def with_nesting(raw, rng):
    """Put sequences in sequences before the modality, with their ends or without."""
    at = raw.find(MODALITY, 132)
    depth = int(rng.choice(DEPTHS))
    ends = ENDS * depth if rng.random() < 0.6 else b""
    return raw[:at] + (SEQUENCE + ITEM) * depth + ends + raw[at:] if at > 0 else flipped(raw, rng)


def with_lying_fragments(raw, rng):
    """Change lengths of fragments and of the table before them, or leave their end out."""
    at = raw.rfind(PIXELS)
    places = [place for place in range(at, len(raw) - 8) if raw[place : place + 4] == ITEM[:4]] if at > 0 else []
    if not places:
        return _with_length(raw, at + 4 if at > 0 else len(raw) // 2, rng)
    place = places[rng.integers(len(places))]
    way = rng.integers(4)
    if way == 0:
        return _with_length(raw, place + 4, rng)
    if way == 1:
        return raw[:-8]
    if way == 2:  # a table of places that are none
        return raw[: places[0]] + ITEM[:4] + struct.pack("<L3L", 12, 0, 2**31, 2**32 - 2) + raw[places[0] + 8 :]
    return raw[:place] + (ITEM[:4] + struct.pack("<L", 3) + b"abc") * int(rng.integers(1, 50)) + raw[place:]


def with_lying_codestream(raw, rng):
    """Let the compressed picture itself state another size than the header does."""
    for start, fields in CODESTREAMS.items():
        at = raw.find(start, 132)
        if at > 0:
            place, size = fields[rng.integers(len(fields))]
            value = int(rng.choice([0, 1, 7, 2**15, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 10**6])) % 2 ** (8 * size)
            return raw[: at + place] + value.to_bytes(size, "big") + raw[at + place + size :]
    at = raw.rfind(PIXELS) + 12 + 8  # RLE: behind the table of places and the header of the first fragment
    place = at + 8 + 4 * int(rng.integers(16))
    return _with_length(raw, min(place, len(raw) - 4), rng)


def damaged_series(raw, rng, damage):
    """Damage files of a series in a zip so that they do not fit together."""
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    for _ in range(rng.integers(1, 4)):
        first, second = (list(files)[at] for at in rng.choice(len(files), 2, replace=False))
        MIXES[rng.integers(len(MIXES))](files, first, second, rng, damage)
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in rng.permutation(list(files)):
            archive.writestr(str(name), files[str(name)])
    return target.getvalue()


def _with_length(raw, place, rng):
    return raw[:place] + struct.pack("<L", int(rng.choice(LENGTHS))) + raw[place + 4 :]


def _swap_pixels(files, first, second, _rng, _damage):
    at, other = files[first].rfind(PIXELS), files[second].rfind(PIXELS)
    files[first], files[second] = (
        files[first][:at] + files[second][other:], files[second][:other] + files[first][at:],
    )  # fmt: skip


def _same_instance(files, first, second, _rng, _damage):
    _set(files, first, SOPInstanceUID=dcmread(BytesIO(files[second])).SOPInstanceUID)


def _same_place(files, first, second, _rng, _damage):
    _set(files, first, ImagePositionPatient=dcmread(BytesIO(files[second])).ImagePositionPatient)


def _other_size(files, first, _second, rng, _damage):
    dataset = dcmread(BytesIO(files[first]))
    rows = int(dataset.Rows) // 2
    _set(files, first, Rows=rows, PixelData=dataset.PixelData[: rows * dataset.Columns * 2])
    if rng.random() < 0.3:
        _set(files, first, Rows=int(rng.choice([1, 65_535])))


def _other_series(files, first, _second, rng, _damage):
    name = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "FrameOfReferenceUID")[rng.integers(4)]
    _set(files, first, **{name: "1.2.3"})


def _lost(files, first, _second, _rng, _damage):
    if len(files) > 3:
        del files[first]


def _twice(files, first, _second, _rng, _damage):
    files[f"{first}x"] = files[first]


def _damaged(files, first, second, rng, damage):
    files[first] = damage(files[first], rng, (files[second],))


def _set(files, name, **values):
    dataset = dcmread(BytesIO(files[name]), force=True)
    for key, value in values.items():
        setattr(dataset, key, value)
    target = BytesIO()
    dataset.save_as(target)
    files[name] = target.getvalue()


MIXES = (_swap_pixels, _same_instance, _same_place, _other_size, _other_series, _lost, _twice, _damaged, _damaged)
