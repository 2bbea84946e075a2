"""What an intake holds: series of DICOM files, and scans of other formats, each with what can be said against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lungseg.config import Limits
from lungseg.errors import LungSegError, NoSeriesError, ScanError
from lungseg.files import atomic
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.intakes import IntakeSurvey, SeriesKind, SeriesOffer
from lungseg.scans.dicom.headers import MOST_REASONS, UnreadableFile, read_headers, reasons_of
from lungseg.scans.dicom.magic import is_dicom
from lungseg.scans.dicom.series import Series, offers_of, series_in
from lungseg.scans.dicom.thumbnails import write_thumbnail
from lungseg.scans.formats import format_of, open_scan
from lungseg.scans.reader import Advance
from lungseg.wording import counted

FIRST_BYTES = 348
DAMAGED = "a damaged DICOM file"


@dataclass(frozen=True, slots=True)
class Contents:
    """What files hold.

    Attributes:
        survey: for people.
        series: by the key of their offer.
        scans: files of other formats, likewise; where a scan has two, its header comes first.
        unreadable: DICOM files that are damaged.
        findings: of all files together.
    """

    survey: IntakeSurvey
    series: Mapping[str, Series]
    scans: Mapping[str, tuple[Path, ...]]
    unreadable: tuple[UnreadableFile, ...]
    findings: tuple[ScanFinding, ...]


def contents_of(
    files: Mapping[Path, str],
    *,
    limits: Limits,
    ignored: Mapping[str, int] | None = None,
    lost: Sequence[str] = (),
    on_progress: Advance | None = None,
) -> Contents:
    """Look at all files; none of them is believed, and a bad one costs itself alone.

    Keys are the same whenever the same files are looked at.

    Args:
        files: in a fixed order, each with the name under which it was handed in.
        limits: of scans.
        ignored: number of files that were not even unpacked, by what they are.
        lost: why files could not be unpacked that should have been.
        on_progress: called with the number of files that were looked at, and of all.

    Raises:
        NoSeriesError: there is no scan among them; the error says what there is.
    """
    scans, others = _scans_among(files, limits)
    headers = read_headers(others, on_progress=on_progress)
    every = series_in(headers.instances)
    counts = Counter(ignored or {}) + Counter(headers.ignored) + Counter({DAMAGED: len(headers.unreadable)})
    offers = (*offers_of(every), *(offer for offer, _ in scans))
    if not offers:
        raise _nothing(counts, headers.unreadable)
    return Contents(
        IntakeSurvey(offers=offers, ignored=dict(counts)),
        {series.key: series for series in every},
        {offer.key: own for offer, own in scans},
        headers.unreadable,
        tuple(_of_lost(lost)),
    )


def undoubted(survey: IntakeSurvey) -> tuple[str, ...]:
    """Return the key of the one series to take in without asking; empty where a reader has to choose.

    That is the only one that can be taken, or the only one of a chest where the others are no scans of other formats.
    """
    usable = [offer for offer in survey.offers if not offer.refusal]
    chests = [offer for offer in usable if offer.kind is SeriesKind.CHEST_CT]
    is_clear = len(chests) == 1 and all(offer.kind is not SeriesKind.FILE for offer in usable)
    candidates = chests if is_clear else usable
    return (candidates[0].key,) if len(candidates) == 1 else ()


def preferred(survey: IntakeSurvey) -> tuple[str, ...]:
    """Return the keys of the best series of each study, for studies that come in while nobody is there to choose."""
    return tuple(offer.key for offer in survey.offers if offer.is_preferred) or undoubted(survey)


def draw_thumbnails(contents: Contents, folder: Path, *, on_progress: Advance | None = None) -> IntakeSurvey:
    """Draw a small picture of each series into a folder, and return the survey that names them."""
    offers = []
    with atomic.disk_errors("The folder of thumbnails"):
        folder.mkdir(mode=atomic.PRIVATE_FOLDER, exist_ok=True)
    for done, offer in enumerate(contents.survey.offers, 1):
        series, name = contents.series.get(offer.key), f"{offer.key}.png"
        has_picture = series is not None and write_thumbnail(series, folder / name)
        offers.append(replace(offer, thumbnail=name) if has_picture else offer)
        if on_progress:
            on_progress(done, len(contents.survey.offers))
    return replace(contents.survey, offers=tuple(offers))


def is_other_scan(path: Path, limits: Limits) -> bool:
    """Tell whether a file is a scan, or the header of one, of another format than DICOM."""
    try:
        with path.open("rb") as stream:
            if is_dicom(stream.read(FIRST_BYTES)):
                return False
        format_of([path], limits)
    except (ScanError, OSError):
        return False
    return True


def _scans_among(
    files: Mapping[Path, str], limits: Limits
) -> tuple[list[tuple[SeriesOffer, tuple[Path, ...]]], list[Path]]:
    """Return the scans of other formats than DICOM, each with its files, and all files besides."""
    scans: list[tuple[SeriesOffer, tuple[Path, ...]]] = []
    own: set[Path] = set()
    for path, name in files.items():
        if is_other_scan(path, limits):
            title = PurePosixPath(name.replace("\\", "/")).name
            blank = SeriesOffer(key=f"file-{len(scans) + 1}", kind=SeriesKind.FILE, description=title)
            offer, parts = _file_offer(path, blank, limits)
            scans.append((offer, parts))
            own.update(parts)
    return scans, [path for path in files if path not in own]


def _file_offer(path: Path, offer: SeriesOffer, limits: Limits) -> tuple[SeriesOffer, tuple[Path, ...]]:
    """Describe a scan of one file, or of a header with its voxels beside it."""
    try:
        with open_scan(path, limits=limits) as reader:
            grid = reader.grid.to_ras()
            parts = tuple(reader.files)
    except ScanError as error:
        return replace(offer, refusal=str(error)), (path,)
    shape, spacing = grid.shape, grid.spacing_mm
    offer = replace(offer, slice_mm=spacing[2], slices=shape[2], size=(shape[1], shape[0]))
    return offer, parts


def _of_lost(lost: Sequence[str]) -> Iterator[ScanFinding]:
    if lost:
        reasons = sorted(set(lost))
        more = f" And {len(reasons) - MOST_REASONS} more reasons." if len(reasons) > MOST_REASONS else ""
        text = f"{counted(len(lost), 'file')} could not be unpacked: {' '.join(reasons[:MOST_REASONS])}{more}"
        remedy = "Slices may be missing: copy or export it again."
        yield ScanFinding("intake.lost_files", ScanSeverity.WARNING, text, remedy)


def _nothing(counts: Mapping[str, int], unreadable: Sequence[UnreadableFile]) -> LungSegError:
    """Return the error of files that hold no scan."""
    listed = ", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items()))
    reasons = reasons_of(unreadable)
    return NoSeriesError(
        f"There is no scan in it{f' ({listed})' if listed else '; it is empty'}.{f' {reasons}' if reasons else ''}",
        "Hand in the folder or the archive of the CT series, as it was exported.",
    )
