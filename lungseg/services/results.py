"""What a run leaves in the database at its end; each function is one transaction and can be called again."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from lungseg.card import ModelCard, sha256_of
from lungseg.config import Settings
from lungseg.db import Database, queue
from lungseg.db.masks import insert_mask, next_version
from lungseg.records import Failure, Mask, MaskKind, Run, RunState, Segmentation
from lungseg.services.runs import code_version
from lungseg.services.storage import mask_path


def note_provenance(database: Database, run: Run, card: ModelCard, device: str) -> None:
    """Write down with which code and weights a claimed run is about to be executed, whatever comes of it."""
    configuration = {**run.configuration, "threshold": card.threshold, "min_lesion_ml": card.min_lesion_ml}
    with database.begin() as session:
        queue.note(
            session,
            run,
            configuration=configuration,
            checkpoint=card.name,
            checkpoint_sha256=card.sha256,
            code_version=code_version(),
            device=device,
        )


def keep_segmentation(
    settings: Settings, database: Database, run: Run, mask_id: str, segmentation: Segmentation
) -> bool:
    """Finish a run with its result: run, mask and lesions in one transaction.

    Args:
        settings: of the installation.
        database: where it is kept.
        run: as claimed.
        mask_id: of the mask whose file is already there under its final name.
        segmentation: what was found.

    Returns:
        Whether it was kept; False where the run is no longer the caller's, or its case was deleted.
    """
    sha256 = sha256_of(settings.home / mask_path(mask_id))
    now = datetime.now(UTC)
    with database.begin() as session:
        kept = queue.finish(
            session,
            run,
            RunState.DONE,
            now,
            result=segmentation.report(),
            warnings=list(segmentation.warnings),
            device=segmentation.device,
            progress=None,
        )
        if kept and run.case_id:
            insert_mask(
                session,
                Mask(
                    id=mask_id,
                    case_id=run.case_id,
                    run_id=run.id,
                    kind=MaskKind.PREDICTION,
                    version=next_version(session, run.case_id, MaskKind.PREDICTION),
                    path=mask_path(mask_id),
                    sha256=sha256,
                    volume_ml=sum(lesion.volume_ml for lesion in segmentation.lesions),
                    slice_voxels=segmentation.slice_voxels,
                    created_at=now,
                    lesions=segmentation.lesions,
                ),
            )
    return kept


def keep_outcome(database: Database, run: Run, outcome: dict[str, Any]) -> bool:
    """Finish a run that leaves files and these figures; False where it is no longer the caller's."""
    with database.begin() as session:
        return queue.finish(session, run, RunState.DONE, datetime.now(UTC), result=outcome, progress=None)


def keep_training(database: Database, run: Run, state: RunState, card: ModelCard | None) -> bool:
    """Finish a training run, DONE or CANCELLED, with the checkpoint that it kept, if any.

    Returns:
        Whether it was kept; False where the run is no longer the caller's.
    """
    kept: dict[str, Any] = {}
    if card:
        best = {key: card.training.get(key) for key in ("best_epoch", "seconds")}
        kept = {"checkpoint": card.name, "checkpoint_sha256": card.sha256, "result": best}
        kept["device"] = card.training.get("device")
    with database.begin() as session:
        return queue.finish(session, run, state, datetime.now(UTC), code_version=code_version(), progress=None, **kept)


def keep_failure(database: Database, run: Run, failure: Failure) -> bool:
    """Finish a run that failed; False where it is no longer the caller's."""
    with database.begin() as session:
        return queue.finish(session, run, RunState.FAILED, datetime.now(UTC), failure=asdict(failure))


def keep_cancelled(database: Database, run: Run) -> bool:
    """Finish a run that the user stopped; False where it is no longer the caller's."""
    with database.begin() as session:
        return queue.finish(session, run, RunState.CANCELLED, datetime.now(UTC), progress=None)


def give_back(database: Database, run: Run) -> None:
    """Put a run back into the queue, because its worker leaves."""
    with database.begin() as session:
        queue.give_back(session, run, datetime.now(UTC))
