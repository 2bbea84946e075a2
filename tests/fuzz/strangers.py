"""What strangers hand in besides NIfTI (DICOM, NRRD, MetaImage, pairs, archives), and how it gets damaged."""

import gzip
import io
import shutil
import struct
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its documentation calls it so
from pydicom import dcmread
from pydicom.pixels.processing import apply_rescale
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lungseg.config import Limits
from lungseg.errors import ScanError
from lungseg.files.unpacking import open_content
from lungseg.intake.survey import contents_of
from lungseg.intake.take import take
from lungseg.intake.unpack import unpack
from lungseg.records.identities import IdentityRule
from lungseg.scans import formats
from lungseg.scans.dicom.magic import is_dicom
from lungseg.scans.text_header import Packing, parse_text, read_text
from tests.dicom_phantoms import small_volume, write_enhanced, write_series
from tests.fuzz.damage import damaged_bytes, flipped
from tests.fuzz.hostile import hostile_archive
from tests.fuzz.slices import (
    damaged_series,
    with_lying_codestream,
    with_lying_fragments,
    with_nasty_key,
    with_nesting,
)
from tests.fuzz.target import Target, WrongVoxelsError
from tests.phantoms import ras_affine
from tests.scan_files import scan_of

LIMITS = Limits()
SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
    JPEGLSLossless, JPEG2000Lossless, *([JPEGLosslessSV1] if shutil.which("dcmcjpeg") else []),
)  # fmt: skip
SLICES, STEP_MM, DAMAGED_SLICE = 12, 6.0, 5
RULE = IdentityRule(b"0" * 32, keeps_identity=False)
HEADER_BYTES = 1500
LONGEST_LINE = 500
REMADE = {"dicom.drift", "dicom.gantry_tilt", "dicom.no_rescale", "dicom.slice_missing", "dicom.uneven_slices"}
"""Findings of series whose slices are not those of the files: sheared back, interpolated, or without a scale."""
ODD_TEXTS = (
    "", "0", "-1", "1", "1e30", "-1e30", "nan", "inf", "abc", "1\\2", "1\\2\\3\\4\\5\\6\\7", "0\\0\\0\\0\\0\\0",
    "99999999999999999999", "\0", "x" * 5000, "1.0000000001\\0\\0\\0\\1\\0",
    "ISO_IR 100\\ISO 2022 IR 149", "20261350", "../../x", "\x1b$)C",
)  # fmt: skip
ODD_WORDS = (0, 1, 2, 7, 8, 15, 16, 17, 32, 255, 4096, 32767, 65535)
ODD_FIELDS = (
    "", "0", "-1", "1", "3", "4", "9999999", "1e400", "nan", "(1,0,0)", "none", "raw", "gzip", "ascii", "little", "big",
    "uchar", "MET_FLOAT", "MET_LONG", "True", "LOCAL", "LIST", "/etc/passwd", "../x", "a.raw", "%d.raw 1 9 1", "RAS",
    "left-anterior-superior",
    "1" * 200_000 + "x", "/dev/zero", "http://x/y", "scan%03d.raw 1 9 1", "-1", "1e308 1e308 1e308", "inf", " " * 5000,
    "1 0 0 0 1 0 0 0 1", "0 0 0", "1 2 3", "7 6 5 4", "\0", "x" * 70_000, "(1,0,0) (0,1,0) (0,0,1)", "-1 -1 -1",
)  # fmt: skip


def targets(folder):
    """Make all kinds in a folder."""
    for name in ("dicom", "text", "pair", "archive"):
        (folder / name).mkdir()
    yield from _dicom(folder / "dicom")
    yield from _texts(folder / "text")
    yield _pair(folder / "pair")
    yield from _archives(folder / "archive")


def _dicom(folder):
    volume = small_volume(SLICES, 32, 40)
    seeds = []
    for number, syntax in enumerate(SYNTAXES):
        files = write_series(folder / f"s{number}", volume, step_mm=STEP_MM, transfer_syntax=syntax)
        seeds.append(files[DAMAGED_SLICE].read_bytes())
    for path in (folder / "s0").iterdir():
        shutil.copyfile(path, folder / path.name)
    for number in range(len(SYNTAXES)):
        shutil.rmtree(folder / f"s{number}")
    damaged = sorted(folder.iterdir())[DAMAGED_SLICE]
    yield Target("DICOM slice", damaged, tuple(seeds), damaged_dicom, _take_all_beside, share=20)
    alone = folder.with_name("enhanced")
    alone.mkdir()
    path = write_enhanced(alone / "IM", small_volume(24, 32, 40))
    yield Target("DICOM multi-frame", path, (path.read_bytes(),), damaged_dicom, _take_all_beside, share=8)


def _take_all_beside(path):
    """Take every series in a folder as the worker does."""
    contents = contents_of({file: file.name for file in sorted(path.parent.iterdir())}, limits=LIMITS)
    _take_all(contents, path.parent.parent, list(path.parent.iterdir()))


def _take_all(contents, folder, slices):
    errors = []
    for offer in contents.survey.offers:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            try:
                taken = take(contents, offer.key, Path(work), RULE, limits=LIMITS)
                volume = formats.read_volume(taken.path)
            except ScanError as error:
                errors.append(error)
            else:
                if offer.key in contents.series and not REMADE & {finding.code for finding in taken.findings}:
                    _compare_with_pydicom(volume.hu, contents.series[offer.key], slices)
    if len(errors) == len(contents.survey.offers):
        raise errors[0]


def _compare_with_pydicom(hu, series, slices):
    """Every plane of a volume must be the picture of a file of its series, as pydicom alone decodes it."""
    own = {plane.path for plane in series.instances}
    pictures = set()
    for path in own & set(slices):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                dataset = dcmread(path, force=True)
                stored = apply_rescale(dataset.pixel_array, dataset)
                if "PixelPaddingValue" in dataset or "NumberOfFrames" in dataset:
                    return  # what is padding is ours to say, and of many frames each has its own scale
            except Exception:  # noqa: BLE001 - whatever pydicom can't read, there is nothing to compare with
                return
            for picture in stored.reshape(-1, *stored.shape[-2:]):
                values = np.clip(np.rint(picture), -1024, 32767).astype(np.int16)
                pictures |= {turned.tobytes() for turned in _turned(values)}
    wrong = sum(np.ascontiguousarray(hu[:, :, k]).tobytes() not in pictures for k in range(hu.shape[2]))
    if wrong:
        raise WrongVoxelsError(f"{wrong} of {hu.shape[2]} slices are of no file that pydicom reads")


def _turned(picture):
    """Return a picture in all ways in which its axes may become those of a volume."""
    for plane in (picture, picture.T):
        for flips in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
            yield np.ascontiguousarray(plane[:: flips[0], :: flips[1]])


def damaged_dicom(raw, rng, others):
    """Damage a DICOM file: its elements, the lengths in it, or any bytes."""
    ways = (
        lambda: damaged_bytes(raw, rng, others),
        lambda: flipped(raw, rng, within=HEADER_BYTES),
        lambda: _by_structure(raw, rng, _with_odd_element),
        lambda: _by_structure(raw, rng, _with_odd_element),
        lambda: _with_odd_length(raw, rng),
        lambda: _by_structure(raw, rng, with_nasty_key),
        lambda: _by_structure(raw, rng, with_nasty_key),
        lambda: with_nesting(raw, rng),
        lambda: with_lying_fragments(raw, rng),
        lambda: with_lying_codestream(raw, rng),
        lambda: raw[132:] if rng.random() < 0.5 else raw[: int(rng.integers(700))],
    )
    changed = ways[rng.integers(len(ways))]()
    return damaged_dicom(changed, rng, others) if rng.random() < 0.15 else changed


def _by_structure(raw, rng, change):
    """Change a file by what pydicom reads of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return change(raw, rng)
        except Exception:  # noqa: BLE001 - pydicom can't read or write it: it is damaged enough
            return flipped(raw, rng, within=HEADER_BYTES)


def _with_odd_element(raw, rng):
    """Give an element another value, leave it out, or give it twice."""
    dataset = dcmread(io.BytesIO(raw), force=True)
    tags = [element.tag for element in dataset if element.tag.group != 0x7FE0]
    for tag in rng.choice(np.array(tags, dtype=np.int64), size=rng.integers(1, 3)) if tags else ():
        _change(dataset, int(tag), rng)
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def _change(dataset, tag, rng):
    element = dataset[tag]
    if rng.random() < 0.25:
        del dataset[tag]
    elif element.VR in {"US", "SS", "UL", "SL"}:
        element.value = int(rng.choice(ODD_WORDS))
    elif element.VR == "SQ":
        element.value = list(element.value) * int(rng.choice([0, 2, 50]))
    else:
        text = str(rng.choice(ODD_TEXTS))
        element._value = text.encode() if element.VR in {"OB", "OW", "UN"} else text


def _with_odd_length(raw, rng):
    """Write an odd length where an element's may be."""
    at = int(rng.integers(min(132, len(raw)), min(len(raw), HEADER_BYTES) + 1))
    value = int(rng.choice([0, 1, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]))
    size = 2 if rng.random() < 0.5 else 4
    return raw[:at] + (value % 2 ** (8 * size)).to_bytes(size, "little") + raw[at + size :]


def _texts(folder):
    volume = small_volume(7, 16, 20)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((0.75, 1.25, 2.5))
    image.SetOrigin((10, -20, 30))
    for name, ending in (("NRRD", ".nrrd"), ("MetaImage", ".mha")):
        seeds = []
        for packed in (False, True):
            path = folder / f"seed{ending}"
            sitk.WriteImage(image, str(path), packed)
            seeds.append(path.read_bytes())
        yield Target(name, folder / f"scan{ending}", tuple(seeds), damaged_text, _compare_with_itk, share=10)


def damaged_text(raw, rng, others):
    """Damage a file with a header of text: fields in it, or any bytes."""
    if rng.random() < 0.35:
        return damaged_bytes(raw, rng, others)
    end = raw.find(b"\n\n") if raw.startswith(b"NRRD") else raw.find(b"LOCAL\n") + len(b"LOCAL")
    separator = ": " if raw.startswith(b"NRRD") else " = "
    lines = raw[:end].decode("latin-1").split("\n")
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(1, len(lines)))
        name, _, text = lines[at].partition(separator)
        words = text.split(" ")
        way = rng.integers(5)
        if way == 0:
            lines[at] = f"{name}{separator}{rng.choice(ODD_FIELDS)}"
        elif way == 1:
            words[rng.integers(len(words))] = str(rng.choice(ODD_FIELDS))
            lines[at] = f"{name}{separator}{' '.join(words)}"
        elif way == 2:
            lines.insert(at, lines[int(rng.integers(1, len(lines)))])
        elif way == 3:
            lines[at] = str(rng.choice(ODD_FIELDS))
        else:
            lines.insert(at, f"data file{separator}{rng.choice(ODD_FIELDS)}")
    rest = raw[end:]
    if rng.random() < 0.1:
        rest = rest[:2] + (gzip.compress(bytes(10**7)) if rng.random() < 0.5 else zlib.compress(bytes(10**7)))
    return "\n".join(lines).encode("latin-1") + rest


def _compare_with_itk(path):
    """Read a scan, and compare it with what ITK reads where it does.

    Packed MetaImage is not: ITK reads as many bytes as CompressedDataSize says, and returns noise for the rest. Neither
    are headers with a line that is too long for ITK, which dies of it.
    """
    volume = scan_of(path).volume
    with open_content(path, is_plain=True) as content:
        header = read_text(content)[0]
    if parse_text(header).packing is Packing.ZLIB or max(map(len, header.splitlines())) > LONGEST_LINE:
        return
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return
    theirs = sitk.GetArrayFromImage(image)
    if theirs.dtype.kind == "f":
        return  # rounding is ours
    limits = np.iinfo(np.int16)
    with formats.open_scan(path) as reader:
        own = reader.grid.orientation.from_ras(volume.hu).transpose(2, 1, 0)
    if not np.array_equal(own, np.clip(theirs, limits.min, limits.max)):
        raise WrongVoxelsError("the voxels are not those that ITK reads")


def _pair(folder):
    i, j, k = np.indices((20, 16, 7))
    image = nib.Nifti1Pair((i * 90 + j * 7 + k - 1000).astype(np.int16), ras_affine((0.75, 1.25, 2.5)))
    image.to_filename(folder / "scan.img")
    path = folder / "scan.hdr"
    seeds = [path.read_bytes()]
    nib.AnalyzeImage(np.asarray(image.dataobj), np.diag([-0.75, 1.25, 2.5, 1])).to_filename(folder / "other.img")
    seeds.append((folder / "other.hdr").read_bytes())
    return Target("header of a pair", path, tuple(seeds), _damaged_header, scan_of, share=4)


def _damaged_header(raw, rng, others):
    return damaged_bytes(raw, rng, others) if rng.random() < 0.3 else flipped(raw, rng, within=348)


def _archives(folder):
    files = write_series(folder / "slices", small_volume(SLICES, 32, 40), step_mm=STEP_MM)
    contents = {f"study/{path.name}": path.read_bytes() for path in files}
    shutil.rmtree(folder / "slices")
    small = {name: contents[name] for name in list(contents)[:3]}
    zips = [_zipped(contents, zipfile.ZIP_DEFLATED), _zipped(contents, zipfile.ZIP_STORED)]
    zips.append(_zipped({"inner.zip": _zipped(small, zipfile.ZIP_DEFLATED), **small}, zipfile.ZIP_STORED))
    tars = [_tarred(contents, tarfile.PAX_FORMAT), _tarred(contents, tarfile.GNU_FORMAT)]
    tars += [gzip.compress(tars[0], 1)]
    for name, seeds, damage in (("zip", zips, damaged_zip), ("tar", tars, damaged_tar)):
        (folder / name).mkdir()
        yield Target(name, folder / name / "upload", tuple(seeds), damage, _unpack_and_look, share=14)
    for name, damage, share in (("hostile archive", hostile_archive, 10), ("DICOM series", _mixed, 14)):
        (folder / name).mkdir()
        yield Target(name, folder / name / "upload", (zips[1],), damage, _unpack_and_take, share=share)


def _mixed(raw, rng, _others):
    try:
        return damaged_series(raw, rng, damaged_dicom)
    except Exception:  # noqa: BLE001 - a file was damaged before, and can't be changed further
        return flipped(raw, rng)


def _zipped(contents, method):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return target.getvalue()


def _tarred(contents, kind):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=kind) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name * (30 if kind == tarfile.GNU_FORMAT else 1))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def _unpack_and_look(path):
    """Unpack an archive and look at what came out; nothing may be written beside the folder for it."""
    with _unpacked(path) as unpacked:
        contents_of(unpacked.names, limits=LIMITS, ignored=unpacked.ignored)


@contextmanager
def _unpacked(path):
    """Unpack an archive for the block; nothing may be written beside the folder for it, nor stay."""
    before = _names_around(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as work:
            unpacked = unpack([path], Path(work) / "files", limits=LIMITS)
            if not all(file.resolve().is_relative_to(Path(work).resolve()) for file in unpacked.files):
                raise WrongVoxelsError("a file was written elsewhere")
            if any(file.is_symlink() or not file.is_file() for file in unpacked.files):
                raise WrongVoxelsError("something else than a file came out")
            yield unpacked
    finally:
        if _names_around(path) != before:
            raise WrongVoxelsError("files were written beside the folder")


def _unpack_and_take(path):
    """Unpack an archive and take in all that is in it; every slice of a scan must be one that pydicom reads."""
    with _unpacked(path) as unpacked:
        contents = contents_of(unpacked.names, limits=LIMITS, ignored=unpacked.ignored)
        _take_all(contents, path.parent, [file for file in unpacked.files if is_dicom(file.read_bytes()[:348])])


def _names_around(path):
    return sorted(str(other) for other in path.parent.parent.rglob("*"))


def damaged_zip(raw, rng, others):
    """Damage a zip archive: numbers in its directory and before its members, or any bytes."""
    if rng.random() < 0.4:
        return damaged_bytes(raw, rng, others)
    marks = {
        b"PK\x01\x02": (8, 10, 16, 20, 24, 28, 30, 32, 38, 42),
        b"PK\x03\x04": (6, 8, 18, 22, 26, 28),
        b"PK\x05\x06": (8, 10, 12, 16, 20),
    }
    changed = bytearray(raw)
    for _ in range(rng.integers(1, 4)):
        mark = list(marks)[rng.integers(3)]
        places = [at for at in range(len(raw) - 46) if raw.startswith(mark, at)] or [len(raw) - 22]
        at = places[rng.integers(len(places))] + int(rng.choice(marks[mark]))
        value = int(rng.choice([0, 1, 8, 9, 12, 14, 2**16 - 1, 2**31, 2**32 - 1, len(raw)])) % 2**32
        changed[at : at + 4] = struct.pack("<L", value)
    return bytes(changed)


def damaged_tar(raw, rng, others):
    """Damage a tar archive: fields of its headers, some of them with the right checksum, or any bytes."""
    if raw[:2] == b"\x1f\x8b" or rng.random() < 0.4:
        return damaged_bytes(raw, rng, others)
    changed = bytearray(raw)
    headers = [at for at in range(0, len(raw), 512) if raw[at + 257 : at + 262] == b"ustar"]
    at = headers[rng.integers(len(headers))]
    first, last = ((0, 100), (100, 108), (124, 136), (156, 157), (257, 265), (345, 500))[rng.integers(6)]
    odd = (
        b"\0",
        b"77777777777\0",
        b"-1",
        b"\x80" + b"\xff" * 11,
        b"\x80" + bytes(11),
        b"9999",
        b"x",
        b"L",
        b"S",
        b"5",
        b"../../../x",
    )
    changed[at + first : at + last] = odd[rng.integers(len(odd))].ljust(last - first, b"\0")[: last - first]
    if rng.random() < 0.8:
        changed[at + 148 : at + 156] = b" " * 8
        changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    return bytes(changed)
