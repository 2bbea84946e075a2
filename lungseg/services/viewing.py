"""What the viewer of a case shows: its scan, its newest masks, the run that made them, and where voxels lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from lungseg.config import Settings
from lungseg.decoding import JsonObject
from lungseg.errors import StorageError
from lungseg.records.cases import Case
from lungseg.records.findings import (
    NOTHING_FOUND,
    ScanFinding,
    ScanSeverity,
    doubts_in,
    is_misread,
    statement,
    with_later,
)
from lungseg.records.masks import Mask, MaskKind
from lungseg.records.run_results import Segmentation
from lungseg.records.runs import Run
from lungseg.scans.formats import read_mask, read_volume
from lungseg.scans.geometry import Grid, Orientation
from lungseg.segmentation.postprocessing import UINT8_ONE
from lungseg.services import cases, runs
from lungseg.services.file_store import files_of
from lungseg.services.geometry import geometry_of
from lungseg.services.installation import Installation
from lungseg.services.rethreshold import ThresholdState, mask_at, threshold_state, with_doubtful

if TYPE_CHECKING:
    from lungseg.figures import Figure
    from lungseg.figures.slices import GreySlices


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case as its viewer shows it.

    Attributes:
        case: the case.
        grid: RAS+ grid of the scan.
        orientation: how the file's array turns to that grid.
        model: newest mask by a network; None where there is none yet.
        reference: newest reference mask; None where there is none.
        made_by: the run that made `model`.
        latest_run: the newest run; None where none was ever queued.
        threshold: at which threshold `model` is shown; None where there is none yet.
        marked: the mask that holds `model` and its doubtful lesions too; None where there are none, or no more.
    """

    case: Case
    grid: Grid
    orientation: Orientation
    model: Mask | None
    reference: Mask | None
    made_by: Run | None
    latest_run: Run | None
    threshold: ThresholdState | None = None
    marked: Mask | None = None

    @property
    def findings(self) -> tuple[ScanFinding, ...]:
        """What the run that made `model` noticed of the scan, gravest first, and what was noticed of the case since."""
        result = self.made_by.result_as(Segmentation) if self.made_by else None
        return with_later(result.findings if result else (), self.case.findings)

    @property
    def remarks(self) -> tuple[ScanFinding, ...]:
        """The findings, gravest first; of older results, the warnings that were kept of them."""
        warnings = self.made_by.warnings if self.made_by else ()
        result = self.made_by.result_as(Segmentation) if self.made_by else None
        older = () if result and result.findings else warnings
        return (*self.findings, *(ScanFinding("", ScanSeverity.WARNING, text) for text in older))

    @property
    def probability_meaning(self) -> str:
        """What the probabilities of the model's lesions are."""
        result = self.made_by.result_as(Segmentation) if self.made_by else None
        is_calibrated = result is not None and result.probability_is_calibrated
        return "Calibrated probability that this is a lesion" if is_calibrated else "Mean probability of its voxels"

    @property
    def statement(self) -> str:
        """What the model's mask on show says."""
        lesions, doubtful = (self.model.lesions, self.model.doubtful) if self.model else ((), ())
        text = statement(len(lesions), self.findings, len(doubtful))
        return f"{text} at this threshold" if text == NOTHING_FOUND and self.is_moved else text

    @property
    def caution(self) -> str:
        """What stands above the picture of a scan that was not understood, or is incomplete; empty of others."""
        if not doubts_in(self.findings):
            return ""
        if self.model is None or not (self.model.lesions or self.model.doubtful):
            return "No statement on this scan"
        if is_misread(self.findings):
            return "No statement on this scan: what is outlined may be wrong"
        return "A part of the lungs was not searched: lesions may be missing"

    @property
    def is_moved(self) -> bool:
        """Whether `model` is shown at another threshold than the checkpoint's."""
        return self.threshold is not None and self.threshold.level != self.threshold.default


def view_of(installation: Installation, case_id: str, *, chosen: tuple[str, int] | None = None) -> CaseView:
    """Return what the viewer of a case shows.

    `chosen` is the id of a mask and the threshold, in 255ths, at which it is shown where it is the newest one.

    Raises:
        NotFoundError: there is no such case.
        ScanError: an older release took it in, and its file can't be read any more.
    """
    case = cases.get_case(installation, case_id)
    geometry = geometry_of(installation, case)
    own = Grid.of(geometry)
    masks = cases.masks_of(installation, case_id)
    model = _newest(masks, MaskKind.PREDICTION)
    view = CaseView(
        case=replace(case, geometry=geometry),
        grid=own.to_ras(),
        orientation=own.orientation,
        model=model,
        reference=_newest(masks, MaskKind.REFERENCE),
        made_by=runs.get_run(installation, model.run_id) if model and model.run_id else None,
        latest_run=runs.latest_run(installation, case_id),
    )
    return _at_threshold(installation.settings, view, chosen)


def _at_threshold(settings: Settings, view: CaseView, chosen: tuple[str, int] | None) -> CaseView:
    """Show the mask of a view at the threshold chosen for it; as stored, with the reason, where that can't be had."""
    model, run, marked = view.model, view.made_by, None
    if model is None or run is None:
        return view
    level = chosen[1] if chosen and chosen[0] == model.id else None
    threshold = threshold_state(settings, model, run, level)
    try:
        if threshold.level != threshold.default:
            model = mask_at(settings, view.case, model, run, threshold.level)
        if model.doubtful:
            marked = with_doubtful(settings, view.case, model, run, threshold.level)
    except StorageError as error:
        model, threshold = view.model, replace(threshold, level=threshold.default, reason=str(error))
    return replace(view, model=model, threshold=threshold, marked=marked)


def report(view: CaseView) -> JsonObject:
    """Return what is known of the model's mask on show as JSON-ready values.

    It holds the name that the user gave the case, as the name of the mask's file does: reports are told apart by it.
    """
    run, model, threshold = view.made_by, view.model, view.threshold
    result = run.result_as(Segmentation) if run else None
    moved = {}
    if model and threshold and view.is_moved:
        moved = {
            "threshold": threshold.level / UINT8_ONE,
            "checkpoint_threshold": threshold.default / UINT8_ONE,
            "lesions": [asdict(lesion) for lesion in model.lesions],
            "doubtful": [asdict(lesion) for lesion in model.doubtful],
            "slice_voxels": model.slice_voxels,
        }
    return {
        "intended_use": "Research use only; not a medical device.",
        "case": view.case.id,
        "case_name": view.case.name,
        "scan_sha256": view.case.scan_sha256,
        "mask_sha256": model.sha256 if model else None,
        "mask_version": model.version if model else None,
        "run": run.id if run else None,
        "code_version": run.code_version if run else None,
        "finished_at": run.finished_at.isoformat() if run and run.finished_at else None,
        **(result.report() if result else {}),
        **moved,
    }


def grey_slices(settings: Settings, view: CaseView, window: tuple[float, float]) -> GreySlices:
    """Draw the axial slices of a view's scan, without masks, in a window (centre and width, HU).

    Raises:
        ScanError: the scan can't be read any more.
    """
    from lungseg.figures import slices  # noqa: PLC0415 - plotly takes memory that most sessions never need

    volume = read_volume(files_of(settings).local(view.case.scan_path), limits=settings.limits)
    return slices.GreySlices.of(volume, window)


def slice_figure(settings: Settings, view: CaseView, grey: GreySlices) -> Figure:
    """Draw all axial slices with the masks' outlines as one figure that a browser scrubs without WebGL.

    Raises:
        ScanError: a mask can't be read any more.
    """
    from lungseg.figures import slices  # noqa: PLC0415 - as above

    model, reference = (
        read_mask(files_of(settings).local(mask.path), view.grid, limits=settings.limits) if mask else None
        for mask in (view.model, view.reference)
    )
    first = view.model or view.reference
    start = first.lesions[0].centre_index[2] if first and first.lesions else view.grid.shape[2] // 2
    return slices.slice_viewer(grey, model, reference, start=start)


def _newest(masks: tuple[Mask, ...], kind: MaskKind) -> Mask | None:
    return next((mask for mask in masks if mask.kind is kind), None)
