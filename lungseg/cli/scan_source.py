"""What a command takes for one scan: a file, or the one series of a folder or an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lungseg.config import Settings
from lungseg.errors import ScanError, SeriesError
from lungseg.files.atomic import is_file, is_folder, passing_folder
from lungseg.records.findings import ScanFinding, statement
from lungseg.records.intakes import SeriesOffer
from lungseg.records.run_states import Progress
from lungseg.wording import counted

if TYPE_CHECKING:
    from lungseg.records.run_results import Segmentation
    from lungseg.scans.dicom.series import Series
    from lungseg.segmentation.postprocessing import LesionMask

FIRST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ScanSource:
    """A scan to segment.

    Attributes:
        path: of the scan, or of the canonical one that its series became.
        series: that it was made of; None where the scan is the very file that was named.
        findings: what was repaired, or is uncertain.
    """

    path: Path
    series: Series | None = None
    findings: tuple[ScanFinding, ...] = ()


@contextmanager
def scan_source(path: Path, key: str, tell: Callable[[Progress], None], work_in: Path) -> Iterator[ScanSource]:
    """Open a scan for the block: a file of a scan as it is; a folder, an archive or a DICOM file by the intake's way.

    Args:
        path: file or folder.
        key: of the series to take; empty for the only one that can be taken.
        tell: takes the progress.
        work_in: folder in which to unpack, where only the user can look: files name the patient.

    Raises:
        SeriesError: there are several series that can be taken, none is named, or none has the name; it lists them.
        ScanError: there is no scan, or it can't be used.
    """
    if not key and is_file(path) and not _may_hold_several(path):
        yield ScanSource(path)
        return
    if not is_file(path) and not is_folder(path):
        raise ScanError(f"There is no file or folder {path}.", "Give the path of a scan, its folder or its archive.")
    with passing_folder(work_in) as work:
        yield _taken(path, key, work, tell)


def is_dicom_name(path: Path) -> bool:
    """Tell whether a mask of this name is written in DICOM."""
    return path.suffix.lower() == ".dcm"


def write_seg(
    source: ScanSource, result: Segmentation, lesions: LesionMask, path: Path, *, with_doubtful: bool
) -> None:
    """Write the lesions of a mask as a DICOM segmentation of the series that they were found in, verified.

    Raises:
        ExportError: the mask has no lesion, or its series can't be referred to.
        StorageError: it can't be written; what stood under the name is untouched.
    """
    from lungseg import __version__
    from lungseg.records.run_configs import ExportKind
    from lungseg.scans.dicom.delineation import Algorithm, Delineation
    from lungseg.scans.dicom.export import write_export
    from lungseg.scans.dicom.source import read_source_series
    from lungseg.scans.lesions import lesion_numbers

    planes = source.series.instances if source.series else ()
    lesions_in_seg = (*result.lesions, *result.doubtful) if with_doubtful else result.lesions
    inside = lesions.labels > 0 if with_doubtful else lesions.mask
    delineation = Delineation(
        series=read_source_series(list(dict.fromkeys(plane.path for plane in planes)), lesions.probability.grid),
        labels=lesion_numbers(inside, lesions_in_seg),
        grid=lesions.probability.grid,
        lesions=lesions_in_seg,
        algorithm=Algorithm(
            version=__version__,
            checkpoint=result.checkpoint,
            checkpoint_sha256=result.checkpoint_sha256,
            threshold=result.threshold,
        ),
        made_at=datetime.now(UTC),
        statement=statement(len(result.lesions), result.findings, len(result.doubtful)),
        findings=result.findings,
    )
    write_export(ExportKind.SEG, delineation, path)


def _taken(path: Path, key: str, work: Path, tell: Callable[[Progress], None]) -> ScanSource:
    from lungseg.intake.survey import contents_of
    from lungseg.intake.take import take
    from lungseg.intake.unpack import unpack

    limits = Settings.from_environment().limits

    def report(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: tell(Progress(stage, done, total))

    unpacked = unpack([path], work / "files", limits=limits, on_progress=report("unpacking"))
    contents = contents_of(
        unpacked.names,
        limits=limits,
        ignored=unpacked.ignored,
        lost=[member.error.found for member in unpacked.lost],
        on_progress=report("looking at files"),
    )
    chosen = _choose(contents.survey.offers, key)
    taken = take(contents, chosen, work, None, limits=limits, on_progress=report("reading slices"))
    return ScanSource(taken.path, contents.series.get(chosen), taken.findings)


def _choose(offers: tuple[SeriesOffer, ...], key: str) -> str:
    """Return the key of the series to take: the one that is named, else the only one; never one of several."""
    usable = {offer.key: offer for offer in offers if not offer.refusal}
    if key in usable:
        return key
    if key:
        raise SeriesError(f"There is no series {key}.", _list(usable.values()))
    if not usable:
        reasons = " ".join(f"{_describe(offer)}: {offer.refusal}" for offer in offers)
        raise SeriesError(f"No series can be segmented. {reasons}", "Hand in the CT series of the chest.")
    if len(usable) > 1:
        raise SeriesError(f"There are {len(usable)} series that can be segmented.", _list(usable.values()))
    return next(iter(usable))


def _list(offers: Iterable[SeriesOffer]) -> str:
    """Say which series can be named."""
    return f"Name one by --series: {'; '.join(f'{offer.key} is {_describe(offer)}' for offer in offers)}."


def _describe(offer: SeriesOffer) -> str:
    """Name a series by its description, kernel and slices."""
    kernel = f", kernel {offer.kernel}" if offer.kernel else ""
    distance = f" of {offer.slice_mm:.3g} mm" if offer.slice_mm else ""
    preferred = " (preferred)" if offer.is_preferred else ""
    note = f", {offer.note.rstrip('.')}" if offer.note else ""
    return (
        f"{offer.description or offer.kind.value}{kernel}, {counted(offer.slices, 'slice')}{distance}{note}{preferred}"
    )


def _may_hold_several(path: Path) -> bool:
    """Tell whether a file is an archive, or DICOM, of which one file may hold several stacks."""
    from lungseg.intake.unpack import is_archive
    from lungseg.scans.dicom.magic import is_dicom

    with path.open("rb") as stream:
        block = stream.read(FIRST_BYTES)
    return is_dicom(block) or is_archive(path)
