"""Cases with masks, put into an installation by the services that a worker uses."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from lungseg.db import queue
from lungseg.files import keys
from lungseg.jobs.recorder import RunRecorder
from lungseg.records.cases import Case
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.masks import Lesion
from lungseg.records.run_configs import SegmentConfig
from lungseg.records.run_results import Segmentation
from lungseg.scans import formats
from lungseg.scans.lesions import lesions_of, slice_voxels
from lungseg.segmentation.card import find_weights, read_card
from lungseg.segmentation.postprocessing import ProbabilityMap
from lungseg.segmentation.probability_io import write_map
from lungseg.services import cases, runs
from lungseg.services.installation import Installation
from tests.scan_files import geometry_of, grid_of


def add_case(settings, database, scan: Path, name: str = "", **options) -> Case:
    """Take a scan in, under the name of its file unless another is given; `options` are those of `cases.ingest`."""
    with scan.open("rb") as stream:
        return cases.ingest(Installation(settings, database), name or scan.name, stream, **options)


def add_reference(settings, database, case: Case, mask, folder: Path) -> None:
    path = folder / f"{uuid4().hex}.nii.gz"
    formats.write_mask(mask, path, geometry_of(settings.home / case.scan_path))
    cases.add_reference(Installation(settings, database), case.id, path)


CUT = ScanFinding("view.slices", ScanSeverity.WARNING, "The scan ends inside the left lung.")


def add_prediction(
    settings, database, case: Case, mask, *, probability: ProbabilityMap | None = None, findings=(CUT,), **card
) -> None:
    """Finish a run of a case with a mask, as if a worker had found it; `card` changes the checkpoint's.

    Where `mask` is None, the checkpoint's rule makes mask and lesions of the probabilities, doubtful ones among them.
    """
    scan = settings.home / case.scan_path
    grid = grid_of(scan).to_ras()
    runs.queue_segmentation(Installation(settings, database), case.id)
    with database.begin() as session:
        run = queue.claim(session, "seed", datetime.now(UTC))
    assert run is not None
    used = replace(read_card(find_weights(run.config_as(SegmentConfig).checkpoint, settings.models)), **card)
    recorder = RunRecorder(Installation(settings, database), run)
    recorder.record_provenance(used, "cpu")
    doubtful: tuple[Lesion, ...] = ()
    if mask is None:
        assert probability is not None
        outlines = used.rule.apply(probability)
        mask, lesions, doubtful = outlines.mask, outlines.lesions, outlines.doubtful
    else:
        lesions = lesions_of(mask, grid)
    mask_id = uuid4().hex
    path = settings.home / keys.mask(mask_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    formats.write_mask(mask, path, geometry_of(scan))
    if probability is not None:
        write_map(probability, settings.home / keys.probability(mask_id))
    segmentation = Segmentation(
        lesions=lesions,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        orientation=case.orientation or "",
        slice_voxels=slice_voxels(mask),
        lungs_ml=4000.0,
        seconds=8.2,
        peak_rss_mb=900.0,
        checkpoint=used.name,
        checkpoint_sha256=used.sha256,
        device="cpu",
        threshold=used.threshold,
        min_lesion_ml=used.min_lesion_ml,
        probability_is_calibrated=used.calibration is not None,
        findings=findings,
        doubtful=doubtful,
        doubtful_below=used.doubtful_below,
    )
    recorder.record_segmentation(mask_id, segmentation)
