"""The files of a series as they are kept with its case: without identity, or as they came.

Pixel data is carried over byte by byte, in its own transfer syntax. Only a deflated data set becomes Explicit VR Little
Endian, which is the same without its compression.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from lungseg.errors import BurnedInError, ScanError, TruncatedScanError
from lungseg.files import atomic
from lungseg.records.examinations import Examination
from lungseg.records.identities import IdentityEntry, IdentityRule
from lungseg.scans.dicom.deidentify import Deidentifier
from lungseg.scans.dicom.elements import Elements
from lungseg.scans.dicom.encoding import Encoder, encode_meta
from lungseg.scans.dicom.overlay_bits import without_overlay_bits
from lungseg.scans.dicom.pseudonyms import PatientKey, Pseudonyms
from lungseg.scans.dicom.second_look import Traces
from lungseg.scans.dicom.source_file import SourceFile, read_source

IMPLEMENTATION = "2.25.217308496402871594338127630417266183492"
IMPLEMENTATION_NAME = "LUNGSEG"
META_TAGS = (0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013)
"""SOP class and instance, transfer syntax, implementation and its name."""
PREAMBLE = bytes(128) + b"DICM"
CT_IMAGES = frozenset({CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
SCREEN = frozenset({"SCREEN SAVE", "SCREEN_SAVE", "SCREENSAVE"})
OLDEST_TIME = (1980, 1, 1, 0, 0, 0)
"""Of members of a zip: the time at which a file was written says something of the examination."""
DATE = re.compile(r"\d{8}", re.ASCII)
PATIENT_KEYWORDS = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID")
TITLES = frozenset({0x00020016, 0x00020017, 0x00020018, 0x00020100, 0x00020102})
"""Elements of file meta information that say where a file was."""


@dataclass(frozen=True, slots=True)
class KeptOriginals:
    """What was kept of the files of a series.

    Attributes:
        examination: whose scan it is and which one, as the kept files say.
        identity: what leads back; None where the files stayed as they came.
        files: how many were kept.
        left_out: how many were not, because they are cut off or damaged.
    """

    examination: Examination
    identity: IdentityEntry | None
    files: int
    left_out: int


def keep_originals(files: Sequence[Path], target_zip: Path, rule: IdentityRule) -> KeptOriginals:
    """Write the files of one series into a zip, as 0001.dcm and so on, stored; the zip appears whole or not at all.

    Where the rule removes identity, what is written has a second look before the zip gets its name.

    Args:
        files: in the order in which they are to be kept.
        target_zip: to be written.
        rule: of the installation.

    Raises:
        BurnedInError: identity is to be removed, and pictures have text burned in or are of a screen.
        IdentityLeftError: identity is to be removed, and something of it would be left.
        TruncatedScanError: no file is whole.
        DiskFullError, StorageError: the zip can't be written.
    """
    with atomic.replacing(target_zip) as stream, ZipFile(stream, "w") as archive:
        return _copy(files, archive) if rule.keeps_identity else _Removal(archive, rule).carry_out(files)


def _copy(files: Sequence[Path], archive: ZipFile) -> KeptOriginals:
    """Keep files as they came."""
    elements: Elements | None = None
    count = 0
    for path, source in _whole(files):
        count += 1
        elements = elements or Elements(source.elements)
        _write(archive, count, path.read_bytes())
    if elements is None:
        raise _no_file()
    return KeptOriginals(_examination(elements, is_deidentified=False), None, count, len(files) - count)


class _Removal:
    """Keeps files without identity."""

    def __init__(self, archive: ZipFile, rule: IdentityRule) -> None:
        self.archive = archive
        self.secret = rule.secret
        self.cleaners: dict[tuple[PatientKey, Encoder], Deidentifier] = {}
        self.uids: dict[str, str] = {}
        self.traces = Traces()
        self.heads: list[bytes] = []
        self.first: tuple[Elements, Pseudonyms, Elements] | None = None

    def carry_out(self, files: Sequence[Path]) -> KeptOriginals:
        """Write the files, each searched for what it said itself, all for what any said; raises as `keep_originals`."""
        for _, source in _whole(files):
            self._add(source)
        if self.first is None:
            raise _no_file()
        shifts = {cleaner.pseudonyms.shift_days for cleaner in self.cleaners.values()}
        self.traces.check(b"".join(self.heads), shifts)
        original, pseudonyms, cleaned = self.first
        examination = _examination(cleaned, is_deidentified=True)
        entry = _entry(original, pseudonyms)
        return KeptOriginals(examination, entry, len(self.heads), len(files) - len(self.heads))

    def _add(self, source: SourceFile) -> None:
        elements = Elements(source.elements)
        _check_picture(elements)
        traces = Traces()
        traces.collect(source.elements)
        traces.collect({tag: element for tag, element in source.meta.items() if tag in TITLES})
        cleaner = self._cleaner(elements, source)
        cleaned = cleaner.clean(source.elements)
        head = _meta(Elements(cleaned), source.transfer_syntax) + cleaner.encoder.encode(cleaned)
        pixels = without_overlay_bits(source)
        traces.check(head, {cleaner.pseudonyms.shift_days})
        traces.check_pixels(pixels)
        self.traces.add(traces)
        self.first = self.first or (elements, cleaner.pseudonyms, Elements(cleaned))
        self.heads.append(head)
        _write(self.archive, len(self.heads), head, pixels)

    def _cleaner(self, elements: Elements, source: SourceFile) -> Deidentifier:
        patient = PatientKey(*(elements.text(keyword) for keyword in PATIENT_KEYWORDS))
        encoder = Encoder(source.is_implicit, source.is_little_endian)
        if (patient, encoder) not in self.cleaners:
            self.cleaners[patient, encoder] = Deidentifier(Pseudonyms(self.secret, patient, self.uids), encoder)
        return self.cleaners[patient, encoder]


def _whole(files: Sequence[Path]) -> Iterator[tuple[Path, SourceFile]]:
    """Yield the files that are whole."""
    for path in files:
        try:
            source = read_source(path)
        except TruncatedScanError:
            continue
        yield path, source


def _check_picture(elements: Elements) -> None:
    """Refuse pictures that hold text; no header is sure to tell, but one that does is believed."""
    is_screen = not SCREEN.isdisjoint(elements.texts("ImageType")) or elements.text("SOPClassUID") not in CT_IMAGES
    if is_screen or elements.text("BurnedInAnnotation") == "YES":
        what = "are of a screen, or no CT images," if is_screen else "have text burned in, as their header says:"
        raise BurnedInError(
            f"Pictures of the series {what} so that a patient's name may stand in them.",
            "Export the series without annotations, or let an administrator set LUNGSEG_IDENTITY to keep.",
        )


def _meta(elements: Elements, transfer_syntax: str) -> bytes:
    """Return preamble and file meta information of our own."""
    sop_class, uid = elements.text("SOPClassUID"), elements.text("SOPInstanceUID")
    texts = (sop_class, uid, transfer_syntax, IMPLEMENTATION, IMPLEMENTATION_NAME)
    return PREAMBLE + encode_meta(dict(zip(META_TAGS, texts, strict=True)))


def _write(archive: ZipFile, number: int, *parts: bytes) -> None:
    with archive.open(ZipInfo(f"{number:04d}.dcm", OLDEST_TIME), "w") as member:
        for part in parts:
            member.write(part)


def _examination(elements: Elements, *, is_deidentified: bool) -> Examination:
    date = elements.text("StudyDate")
    return Examination(
        patient=elements.text("PatientID"),
        patient_name="" if is_deidentified else elements.text("PatientName"),
        study_uid=elements.text("StudyInstanceUID"),
        series_uid=elements.text("SeriesInstanceUID"),
        frame_of_reference_uid=elements.text("FrameOfReferenceUID"),
        study_date=f"{date[:4]}-{date[4:6]}-{date[6:]}" if DATE.fullmatch(date) else "",
        description=elements.text("SeriesDescription"),
        kernel=" ".join(elements.texts("ConvolutionKernel")),
        is_deidentified=is_deidentified,
    )


def _entry(original: Elements, pseudonyms: Pseudonyms) -> IdentityEntry:
    patient = pseudonyms.patient
    return IdentityEntry(
        pseudonym=pseudonyms.code,
        patient_id=patient.patient_id,
        issuer=patient.issuer,
        patient_name=patient.name,
        birth_date=patient.birth_date,
        accession_number=original.text("AccessionNumber"),
        study_id=original.text("StudyID"),
        study_date=original.text("StudyDate"),
        shift_days=pseudonyms.shift_days,
        uids=pseudonyms.uids,
    )


def _no_file() -> ScanError:
    return TruncatedScanError(
        "Each DICOM file of the series is damaged or cut off before the end of its pixels.", "Export the series again."
    )
