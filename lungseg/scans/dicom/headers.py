"""Headers of DICOM files as `Instance`s: what each file is, where its planes lie. No pixel is decoded.

A file's content decides, never its name. Files are of unknown origin: no header number is believed until it is sane,
no value raises, and a file that can't be read is named and left out.
"""

from __future__ import annotations

import os
import re
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from lungseg.scans.containers import SIGNATURES
from lungseg.scans.dicom.elements import BROKEN, Elements, Raw
from lungseg.scans.dicom.frames import TAGS, UnusableFileError, instances_of
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.magic import Start, is_marked, start_of
from lungseg.scans.dicom.wholeness import holds_pixels
from lungseg.scans.reader import Advance

FIRST_BYTES = 348
BUFFER_BYTES = 1 << 16
"""Read at once: holds the header of most files."""
LAST_TAG = 0x0028FFFF
"""Nothing above group 28 is read of a file with one plane."""
FRAME_GROUPS, PIXELS = 0x52009230, 0x7FE00008
META_TAG = 0x0002FFFF
LARGEST_VALUE_BYTES = 1 << 20
"""Of an element that is no sequence of frames; larger ones are skipped."""
MOST_ELEMENTS = 20_000
"""Before the pixels of one file; a file of zeros has millions."""
INFLATED_BYTES = 64 << 20
"""Of a deflated data set that is inflated for its header: a small file can inflate to any size."""
MOST_REASONS = 5
"""In one text."""
UID_FORM = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
DAMAGED = "The file is damaged or cut off within its header."


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that is DICOM but can't be used.

    Attributes:
        path: of the file.
        reason: what is wrong with it, as a sentence.
        study_uid, series_uid: that it is of; empty where its header does not reach so far.
    """

    path: Path
    reason: str
    study_uid: str = ""
    series_uid: str = ""

    def may_be_of(self, plane: Instance) -> bool:
        """Tell whether it may be a slice of the series of a plane: of any, where its header does not say."""
        if self.series_uid and plane.series_uid:
            return self.series_uid == plane.series_uid
        return not (self.study_uid and plane.study_uid) or self.study_uid == plane.study_uid


@dataclass(frozen=True, slots=True)
class Headers:
    """What files say of themselves.

    Attributes:
        instances: one for each plane, in the order of the files.
        ignored: number of files that are no DICOM images, by what they are ("DICOMDIR", "a PDF document").
        unreadable: DICOM files that are damaged.
    """

    instances: tuple[Instance, ...]
    ignored: dict[str, int]
    unreadable: tuple[UnreadableFile, ...]


def read_headers(files: Sequence[Path], *, on_progress: Advance | None = None, are_whole: bool = True) -> Headers:
    """Read the headers of files, whatever they are; never raises for a bad file, but names it.

    Args:
        files: of any kind and in any order.
        on_progress: gets the number of files that are done, and of all.
        are_whole: a picture that ends before its last pixel is damaged; False where files are beginnings of others.
    """
    instances: list[Instance] = []
    ignored: Counter[str] = Counter()
    unreadable: list[UnreadableFile] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of every value that breaks a rule
        for done, path in enumerate(files, start=1):
            try:
                instances += _instances_in(path, is_whole=are_whole)
            except _NoImageError as error:
                ignored[str(error)] += 1
            except UnusableFileError as error:
                unreadable.append(_unreadable(path, str(error)))
            except OSError as error:  # pydicom raises it for damaged sequences, too
                reason = f"The file can't be opened ({error.strerror})." if error.strerror else DAMAGED
                unreadable.append(_unreadable(path, reason))
            except (*BROKEN, zlib.error, MemoryError):
                unreadable.append(_unreadable(path, DAMAGED))
            if on_progress is not None:
                on_progress(done, len(files))
    return Headers(tuple(instances), dict(ignored), tuple(unreadable))


def _unreadable(path: Path, reason: str) -> UnreadableFile:
    """Name a file that can't be used, with the series that the part of its header which can be read is of."""
    whole: dict[int, Raw] = {}
    with suppress(*BROKEN, zlib.error, MemoryError, UnusableFileError), path.open("rb") as stream:
        start = start_of(stream.read(FIRST_BYTES))
        if start is not None:
            stream.seek(start.place)
            body, _ = _body(stream, start)
            body.stream.seek(body.place)
            for element in body.iterate(_Reader(LAST_TAG)):
                if isinstance(element, RawDataElement) and len(element.value or b"") == element.length:
                    whole[int(element.tag)] = element
    elements = Elements(whole)
    return UnreadableFile(path, reason, elements.text("StudyInstanceUID"), elements.text("SeriesInstanceUID"))


def reasons_of(unreadable: Sequence[UnreadableFile]) -> str:
    """Return why files can't be used, each reason once and not too many, as one text."""
    reasons = sorted({file.reason for file in unreadable})
    more = [f"And {len(reasons) - MOST_REASONS} more."] if len(reasons) > MOST_REASONS else []
    return " ".join([*reasons[:MOST_REASONS], *more])


class _NoImageError(Exception):
    """The file is no DICOM image; says what it is."""


@dataclass(frozen=True, slots=True)
class _Body:
    """A data set, ready to be read: its stream, the places where it begins and ends, and how it is written."""

    stream: BinaryIO
    place: int
    end: int
    transfer_syntax: str
    is_implicit: bool
    is_little_endian: bool

    def elements(self, last: int) -> Elements:
        """Read the elements up to a tag, without those that nobody asks for."""
        self.stream.seek(self.place)
        reader = _Reader(last)
        raw = {int(element.tag): element for element in self.iterate(reader)}
        if not reader.has_passed_last:
            raise UnusableFileError(DAMAGED)
        return Elements(raw)

    def iterate(self, reader: _Reader) -> Iterator[Raw]:
        """Iterate over the elements from where the stream is."""
        return reader.read(self.stream, is_implicit=self.is_implicit, is_little_endian=self.is_little_endian)


class _Reader:
    """Reads elements up to a tag; a file of a million elements is none."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.has_passed_last = False
        self.count = 0

    def read(self, stream: BinaryIO, *, is_implicit: bool, is_little_endian: bool) -> Iterator[Raw]:
        return data_element_generator(
            stream,
            is_implicit,
            is_little_endian,
            stop_when=self._stop,
            defer_size=None if self.last > FRAME_GROUPS else LARGEST_VALUE_BYTES,
            specific_tags=list(TAGS.values()),
        )

    def _stop(self, tag: int, _vr: str | None, _length: int) -> bool:
        self.count += 1
        if self.count > MOST_ELEMENTS:
            raise UnusableFileError(f"The file has more than {MOST_ELEMENTS:,} elements before its pixels.")
        self.has_passed_last = tag > self.last
        return self.has_passed_last


def _instances_in(path: Path, *, is_whole: bool) -> tuple[Instance, ...]:
    with path.open("rb", buffering=BUFFER_BYTES) as stream:
        block = stream.read(FIRST_BYTES)
        start = start_of(block)
        if start is None and is_marked(block):
            raise UnusableFileError(DAMAGED)
        if start is None:
            raise _NoImageError(_name_of(block))
        stream.seek(start.place)
        body, sop_class = _body(stream, start)
        if sop_class == MediaStorageDirectoryStorage:
            raise _NoImageError("DICOMDIR")
        elements = body.elements(LAST_TAG)
        if "NumberOfFrames" in elements:
            elements = body.elements(PIXELS - 1)
        planes = instances_of(path, elements, body.transfer_syntax)
        is_deflated = body.transfer_syntax == DeflatedExplicitVRLittleEndian
        if is_whole and not (is_deflated and body.end >= INFLATED_BYTES):  # of which only a part was inflated
            _check_pixels(body, planes[0])
        return planes


def _check_pixels(body: _Body, plane: Instance) -> None:
    """Raise UnusableFileError where a picture ends before its last pixel; the stream is behind its header."""
    needed = plane.rows * plane.columns * plane.bits_allocated // 8 * plane.frames
    if not needed or plane.samples_per_pixel != 1:  # colours may share bytes
        return
    rest = _Reader(PIXELS - 1)
    deque(body.iterate(rest), maxlen=0)
    if rest.has_passed_last and holds_pixels(
        body.stream, body.end, needed, is_implicit=body.is_implicit, is_little_endian=body.is_little_endian
    ):
        return
    slice_of_file = "" if plane.instance_number is None else f" of slice {plane.instance_number}"
    raise UnusableFileError(f"The file{slice_of_file} is cut off before its last pixel.")


def _body(stream: BinaryIO, start: Start) -> tuple[_Body, str]:
    """Return the data set of a file, inflated where it is deflated, and the SOP class of its meta information."""
    place, end, syntax, sop_class = start.place, os.fstat(stream.fileno()).st_size, "", ""
    if start.has_meta:
        group = _Reader(META_TAG).read(stream, is_implicit=False, is_little_endian=True)
        meta = Elements({int(element.tag): element for element in group})
        place, syntax, sop_class = stream.tell(), meta.text("TransferSyntaxUID"), meta.text("MediaStorageSOPClassUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = inflater.decompress(stream.read(), INFLATED_BYTES)
        place, end, stream = 0, len(inflated), BytesIO(inflated)
    stream.seek(place)
    is_implicit = not stream.read(6)[4:].isupper()  # tag, then either a name of two letters or a length
    is_little_endian = start.is_little_endian and syntax != ExplicitVRBigEndian
    if not UID_FORM.fullmatch(syntax):
        syntax = _likely_syntax(is_implicit=is_implicit, is_little_endian=is_little_endian)
    return _Body(stream, place, end, syntax, is_implicit, is_little_endian), sop_class


def _likely_syntax(*, is_implicit: bool, is_little_endian: bool) -> str:
    if is_little_endian:
        return str(ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian)
    return str(ExplicitVRBigEndian)


def _name_of(block: bytes) -> str:
    """Name a file that is no DICOM."""
    for signature in SIGNATURES:
        if re.compile(signature.start, re.DOTALL | re.IGNORECASE).match(block, signature.place):
            return signature.what
    return "another file" if block else "an empty file"
