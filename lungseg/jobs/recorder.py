"""What a run leaves in the database; each function is one transaction and can be called again (`retrying`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

from lungseg.config import Settings
from lungseg.db import Database, queue, training
from lungseg.db import runs as rows
from lungseg.db.masks import insert_mask, next_version
from lungseg.errors import StorageError
from lungseg.files import atomic
from lungseg.records import CaseScore, EpochRecord, Failure, Mask, MaskKind, Run, RunState, Segmentation
from lungseg.segmentation.card import ModelCard, sha256_of
from lungseg.services import manifests
from lungseg.services.runs import code_version
from lungseg.services.storage import incoming_mask_path, mask_path

log = logging.getLogger(__name__)

RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0)

Kept = TypeVar("Kept")


def retrying(action: Callable[[], Kept]) -> Kept:
    """Do what must reach the database, again where that is locked; raises StorageError only after long trying."""
    for pause_s in RETRY_PAUSES_S:
        try:
            return action()
        except StorageError as error:
            log.warning("trying again in %.1f s: %s", pause_s, error.found)
            time.sleep(pause_s)
    return action()


def note_provenance(database: Database, run: Run, card: ModelCard, device: str) -> None:
    """Write down with which code and weights a claimed run is about to be executed, whatever comes of it."""
    configuration = {
        **run.configuration,
        "threshold": card.threshold,
        "min_lesion_ml": card.min_lesion_ml,
        "calibration": asdict(card.calibration) if card.calibration else None,
        "doubtful_below": card.doubtful_below,
        "whole_scans": asdict(whole) if (whole := card.on_whole_scans) else None,
        "operating_points": [asdict(point) for point in card.operating_points],
    }
    with database.begin() as session:
        queue.record_on_run(
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
        mask_id: of the mask whose file is there under `incoming_mask_path`; it gets its place with its record.
        segmentation: what was found.

    Returns:
        Whether it was kept; False where the run is no longer the caller's, or its case was deleted.
    """
    incoming, kept_file = settings.home / incoming_mask_path(mask_id), settings.home / mask_path(mask_id)
    is_new = incoming.is_file()  # an earlier try may have moved it before its commit failed
    sha256 = sha256_of(incoming if is_new else kept_file)
    now = datetime.now(UTC)
    mask = None
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
            mask = Mask(
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
                doubtful=segmentation.doubtful,
            )
            insert_mask(session, mask)
            if is_new:
                atomic.move(incoming, kept_file)
            done = rows.get_run(session, run.id)
    if mask is not None:
        manifests.keep_mask(settings, mask, done)
    return kept


def keep_done(database: Database, run: Run, **columns: Any) -> bool:
    """Finish a run that has done its work, with these columns; False where it is no longer the caller's."""
    with database.begin() as session:
        return queue.finish(session, run, RunState.DONE, datetime.now(UTC), progress=None, **columns)


def note_code(database: Database, run: Run) -> None:
    """Write down which code carries a claimed run out."""
    with database.begin() as session:
        queue.record_on_run(session, run, code_version=code_version())


def keep_epoch(database: Database, run: Run, record: EpochRecord, **columns: Any) -> None:
    """Keep an epoch of a claimed run; where it is the best so far, `columns` say which checkpoint the run has now."""
    with database.begin() as session:
        training.keep_epoch(session, record)
        if columns:
            queue.record_on_run(session, run, **columns)


def keep_scores(database: Database, run: Run, scores: tuple[CaseScore, ...]) -> None:
    """Replace the scores of a run."""
    with database.begin() as session:
        training.keep_scores(session, run.id, scores)


def keep_score(database: Database, run: Run, score: CaseScore) -> None:
    """Keep the score of one case."""
    with database.begin() as session:
        training.keep_score(session, run.id, score)


def keep_warning(database: Database, run: Run, text: str) -> None:
    """Add a sentence to the warnings of a run."""
    with database.begin() as session:
        training.add_warning(session, run.id, text)


def keep_loss(database: Database, run: Run, end: str) -> None:
    """Say on a run that its process ended in the middle of it; nothing where it had come to an end before.

    The run itself is taken back by the worker as any lost one.
    """
    with database.begin() as session:
        now = rows.get_run(session, run.id)
        if now.state is RunState.RUNNING and now.attempts == run.attempts:
            training.add_warning(session, run.id, f"Attempt {run.attempts} {end} before the run was done.")


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
        queue.release(session, run, datetime.now(UTC))
