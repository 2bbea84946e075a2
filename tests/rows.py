"""Records for the tests of the database."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from lungseg.records.cases import Case
from lungseg.records.masks import Lesion, Mask, MaskKind
from lungseg.records.run_configs import (
    EvaluateConfig,
    MeasureConfig,
    PrepareConfig,
    SegmentConfig,
    TrainConfig,
    VideoConfig,
)
from lungseg.records.run_results import Segmentation
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import Run


def new_case(**changes):
    case_id = uuid4().hex
    case = Case(
        id=case_id,
        name="chest.nii.gz",
        scan_path=f"scans/{case_id}.nii.gz",
        scan_sha256="a" * 64,
        scan_bytes=123_456_789_012,
        shape=(96, 80, 40),
        spacing_mm=(3.0, 3.2, 6.0),
        orientation="LPS",
        is_demo=False,
        created_at=datetime.now(UTC),
    )
    return replace(case, **changes)


CONFIGS = {
    RunKind.SEGMENT: SegmentConfig(checkpoint="x", device="cpu"),
    RunKind.EVALUATE: EvaluateConfig(checkpoint="x", device="cpu", data=Path("/data/Task06_Lung")),
    RunKind.PREPARE: PrepareConfig(data_set="d" * 32),
    RunKind.TRAIN: TrainConfig(preset="baseline", data=Path("/data/Task06_Lung"), epochs=30, batch=8),
    RunKind.MEASURE: MeasureConfig(preset="baseline", batch=8, device="cpu"),
    RunKind.VIDEO: VideoConfig(mask=f"masks/{'d' * 32}.nii.gz"),
}


SEGMENTATION = Segmentation(
    lesions=(), shape=(96, 80, 40), spacing_mm=(3.0, 3.2, 6.0), orientation="LPS", slice_voxels=(0,) * 40,
    lungs_ml=4000.0, seconds=1.5, peak_rss_mb=500.0, checkpoint="x", checkpoint_sha256="b" * 64, device="cpu",
    threshold=0.5, min_lesion_ml=1.0,
)  # fmt: skip


def new_run(case_id, **changes):
    kind = changes.get("kind", RunKind.SEGMENT)
    run = Run(
        id=uuid4().hex,
        kind=kind,
        state=RunState.QUEUED,
        case_id=case_id,
        config=changes.get("config", CONFIGS.get(kind)),
        checkpoint="x",
        checkpoint_sha256="b" * 64,
        code_version="0.1.0",
        queued_at=datetime.now(UTC),
    )
    return replace(run, **changes)


def new_mask(case_id, **changes):
    mask_id = uuid4().hex
    lesions = tuple(
        Lesion(
            number=number,
            volume_ml=volume_ml,
            centre_mm=(1.5, -2.5, 300.25),
            centre_index=(10, 20, 30),
            extent_mm=(4.0, 5.0, 6.0),
            slices=(28, 32),
            probability=probability,
        )
        for number, volume_ml, probability in ((1, 7.25, 0.75), (2, 1.5, None))
    )
    mask = Mask(
        id=mask_id,
        case_id=case_id,
        run_id=None,
        kind=MaskKind.PREDICTION,
        version=1,
        path=f"masks/{mask_id}.nii.gz",
        sha256="c" * 64,
        volume_ml=8.75,
        slice_voxels=(0, 3, 5),
        created_at=datetime.now(UTC),
        lesions=lesions,
    )
    return replace(mask, **changes)
