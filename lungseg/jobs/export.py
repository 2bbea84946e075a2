"""Exporting a mask in another format as a run: made, compared with the mask, kept, and sent where that is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import ExportError, ExportMismatchError, NotFoundError, RunCancelledError
from lungseg.files import keys
from lungseg.files.atomic import passing_folder, replacing
from lungseg.files.digests import sha256_of
from lungseg.jobs.context import JobContext
from lungseg.jobs.recorder import Outcome
from lungseg.records.cases import Case
from lungseg.records.findings import statement, with_later
from lungseg.records.identities import IdentityEntry
from lungseg.records.masks import Lesion, Mask
from lungseg.records.run_configs import ExportConfig, ExportKind
from lungseg.records.run_results import Segmentation
from lungseg.records.run_states import Progress
from lungseg.records.runs import Run
from lungseg.scans.dicom.delineation import Algorithm, Delineation
from lungseg.scans.dicom.export import write_export
from lungseg.scans.dicom.source import SourceSeries, identified, read_source_series
from lungseg.scans.formats import read_mask
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import lesion_numbers
from lungseg.segmentation.postprocessing import UINT8_ONE
from lungseg.services.cases import get_case, get_mask
from lungseg.services.exports import check_offered, export_key
from lungseg.services.geometry import geometry_of
from lungseg.services.identity import entry_of
from lungseg.services.installation import Installation
from lungseg.services.rethreshold import mask_at, numbers_at, with_doubtful
from lungseg.services.runs import get_run

AGAIN = "Segment the case again."
NO_DAY = date(1970, 1, 1)
"""Of a mask whose own day would tell by how much dates were shifted, where its study has none."""

Report = Callable[[str], None]


def job(context: JobContext) -> Outcome:
    """Export a mask, and send it where its run says so.

    Raises:
        RunCancelledError: asked to stop; nothing is left.
        LungSegError: the mask can't be exported or sent, and why.
    """
    installation, config = context.installation, context.run.config_as(ExportConfig)

    def report(stage: str) -> None:
        if context.monitor.should_stop():
            raise RunCancelledError("The export was stopped.", "Ask for it again.")
        context.monitor.report(Progress(stage))

    path = installation.files.local(export_key(config))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not config.destination:
        export_mask(installation, config.mask, config.file_format, path, report=report)
        return Outcome()
    from lungseg.pacs.send import send  # noqa: PLC0415 - its libraries take half a second

    with passing_folder(path.parent) as folder:  # fits the original study, so it holds identity: it is not kept
        passing = folder / path.name
        export_mask(installation, config.mask, config.file_format, passing, original_identity=True, report=report)
        report("sending")
        send(installation.settings, config.destination, [passing])
    return Outcome()


def export_mask(
    installation: Installation,
    mask_id: str,
    kind: ExportKind,
    path: Path,
    *,
    original_identity: bool = False,
    report: Report = lambda _: None,
) -> None:
    """Write a mask of a case in a format, compared with the mask before the file is there.

    Args:
        installation: of the mask.
        mask_id: of a stored mask, or of one derived from it at another threshold, with doubtful lesions or without.
        kind: the format.
        path: file to write; unchanged if anything fails.
        original_identity: whether it is written for the original study, where identity was taken out of the case.
        report: called with each stage.

    Raises:
        NotFoundError: there is no such mask, or nothing leads back to the original study.
        ExportError: it can't be written in this format, and why.
        ScanError, StorageError: what is kept of the case can't be read, or the file not be written.
    """
    chosen = _choose(installation, mask_id)
    check_offered(chosen.case, chosen.shown, kind)
    if kind is ExportKind.NIFTI:
        report("writing")
        _copy(installation.files.local(chosen.shown.path), chosen.shown.sha256, path)
        return
    report("reading")
    delineation = _delineation_of(installation, chosen, original_identity=original_identity)
    report("writing")
    write_export(kind, delineation, path)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A mask that is exported.

    Attributes:
        case: with its geometry.
        stored: the mask that it is, or was derived from.
        shown: the mask itself.
        level: threshold of a derived mask, in 255ths; None for a stored one.
        run: that made it; None where no network did.
    """

    case: Case
    stored: Mask
    shown: Mask
    level: int | None
    run: Run | None

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """The lesions that it holds, doubtful ones among them where they are in its file."""
        has_doubtful = self.shown.id.endswith(keys.WITH_DOUBTFUL)
        return (*self.shown.lesions, *(self.shown.doubtful if has_doubtful else ()))


def _choose(installation: Installation, mask_id: str) -> _Choice:
    """Return the mask of an id; a derived one is derived again where its file was swept."""
    own_id, _, derived = mask_id.partition(".")
    stored = get_mask(installation, own_id)
    case = get_case(installation, stored.case_id)
    case = replace(case, geometry=geometry_of(installation, case))
    run = get_run(installation, stored.run_id) if stored.run_id else None
    if not derived or run is None:
        return _Choice(case, stored, stored, None, run)
    level, settings = int(derived.partition(".")[0]), installation.settings
    shown = mask_at(settings, case, stored, run, level)
    if derived.endswith(keys.WITH_DOUBTFUL):
        shown = with_doubtful(settings, case, shown, run, level)
    return _Choice(case, stored, shown, level, run)


def _delineation_of(installation: Installation, chosen: _Choice, *, original_identity: bool) -> Delineation:
    case, run = chosen.case, chosen.run
    result = run.result_as(Segmentation) if run else None
    if run is None or result is None or case.original_path is None or case.geometry is None:
        raise ExportError("What is known of the mask is not enough for an export.", "Segment the case again.")
    grid = Grid.of(case.geometry).to_ras()
    threshold = result.threshold if chosen.level is None else chosen.level / UINT8_ONE
    series = read_source_series(installation.files.local(case.original_path), grid)
    series, made_at = _dated(installation, case, series, chosen.stored.created_at, original_identity=original_identity)
    doubtful, findings = chosen.shown.doubtful, with_later(result.findings, case.findings)
    return Delineation(
        series=series,
        labels=_numbers(installation, chosen, run, grid),
        grid=grid,
        lesions=chosen.lesions,
        algorithm=Algorithm(
            version=run.code_version,
            checkpoint=result.checkpoint,
            checkpoint_sha256=result.checkpoint_sha256,
            threshold=threshold,
        ),
        made_at=made_at,
        statement=statement(len(chosen.shown.lesions), findings, len(doubtful)),
        findings=findings,
    )


def _numbers(installation: Installation, chosen: _Choice, run: Run, grid: Grid) -> NDArray[np.uint16]:
    """Return (I, J, K): the number of the lesion that each voxel belongs to."""
    if chosen.level is not None:
        return numbers_at(installation.settings, chosen.stored, run, chosen.level)
    path = installation.files.local(chosen.stored.path)
    return lesion_numbers(read_mask(path, grid, limits=installation.settings.limits), chosen.stored.lesions)


def _dated(
    installation: Installation, case: Case, series: SourceSeries, made_at: datetime, *, original_identity: bool
) -> tuple[SourceSeries, datetime]:
    """Return a series as it is kept or, where that is asked for, as it came; and when its mask was made, likewise.

    Dates of a case without identity are shifted. That of its mask is too, or it would tell by how much; where nothing
    leads back any more, it is that of the study.
    """
    entry: IdentityEntry | None = None
    is_deidentified = case.examination is not None and case.examination.is_deidentified
    if is_deidentified:
        try:
            entry = entry_of(installation, case.id)
        except NotFoundError:
            if original_identity:
                raise
    if entry and original_identity:
        return identified(series, entry), made_at
    if is_deidentified and entry is None:
        return series, datetime.combine(_study_day(series), made_at.timetz())
    return series, made_at + timedelta(days=entry.shift_days if entry else 0)


def _study_day(series: SourceSeries) -> date:
    try:
        return datetime.strptime(str(series.header.get("StudyDate") or ""), "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return NO_DAY


def _copy(source: Path, sha256: str, target: Path) -> None:
    """Copy a file, and check that the copy holds what was recorded of it."""
    try:
        with source.open("rb") as content, replacing(target) as copy:
            shutil.copyfileobj(content, copy)
            copy.flush()
            if sha256_of(Path(copy.name)) != sha256:
                raise ExportMismatchError("The file of the mask holds other bytes than were recorded.", AGAIN)
    except FileNotFoundError as error:
        raise ExportError("The file of the mask is gone.", AGAIN) from error
