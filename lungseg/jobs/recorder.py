"""What a run leaves in the database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from lungseg.db import queue, training
from lungseg.db import runs as rows
from lungseg.db.masks import insert_mask, next_version
from lungseg.errors import StorageError
from lungseg.files import keys
from lungseg.files.digests import sha256_of
from lungseg.records.masks import Mask, MaskKind
from lungseg.records.run_configs import CheckpointUse
from lungseg.records.run_results import RunResult, Segmentation
from lungseg.records.run_states import Failure, RunState
from lungseg.records.runs import EpochRecord, Run
from lungseg.records.scores import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.services import manifests
from lungseg.services.installation import Installation
from lungseg.services.runs import code_version

log = logging.getLogger(__name__)

RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0)

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")


def _retried(record: Callable[Parameters, Value]) -> Callable[Parameters, Value]:
    """Let a transaction be tried again where the database is locked."""

    @wraps(record)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Value:
        for pause_s in RETRY_PAUSES_S:
            try:
                return record(*args, **kwargs)
            except StorageError as error:
                log.warning("trying again in %.1f s: %s", pause_s, error.found)
                time.sleep(pause_s)
        return record(*args, **kwargs)

    return call


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has reached.

    Attributes:
        result: of its kind; None where the kind has none.
        card: of the checkpoint that it has made; None where it makes none.
    """

    result: RunResult | None = None
    card: ModelCard | None = None

    @property
    def columns(self) -> Mapping[str, object]:
        """The fields of the run's record that change."""
        columns: dict[str, object] = {"result": self.result} if self.result else {}
        if self.card:
            columns |= {
                "checkpoint": self.card.name,
                "checkpoint_sha256": self.card.sha256,
                "device": self.card.training.device,
            }
        return columns


class RunRecorder:
    """Records what a claimed run reaches, and how it ends.

    Each method is one transaction, tried again where the database is locked; it raises StorageError only after long
    trying. What ends a run returns whether it did: False where the run is no longer the caller's.
    """

    def __init__(self, installation: Installation, run: Run) -> None:
        self._database = installation.database
        self._files = installation.files
        self._run = run

    def record_provenance(self, card: ModelCard, device: str) -> None:
        """Record, before the work begins, with which code and weights the run is executed."""
        config = replace(
            self._run.config_as(CheckpointUse),
            threshold=card.threshold,
            min_lesion_ml=card.min_lesion_ml,
            min_flatness=card.min_flatness,
            calibration=card.calibration,
            doubtful_below=card.doubtful_below,
            whole_scans=card.on_whole_scans,
            operating_points=card.operating_points,
        )
        self._record_columns(
            config=config,
            checkpoint=card.name,
            checkpoint_sha256=card.sha256,
            code_version=code_version(),
            device=device,
        )

    def record_code(self) -> None:
        """Record which code carries the run out."""
        self._record_columns(code_version=code_version())

    @_retried
    def record_epoch(self, record: EpochRecord, best: Outcome | None = None) -> None:
        """Record an epoch; where it is the best so far, with what the run has reached by it."""
        with self._database.begin() as session:
            training.keep_epoch(session, record)
            if best:
                queue.record_on_run(session, self._run, **best.columns)

    @_retried
    def record_scores(self, scores: tuple[CaseScore, ...]) -> None:
        """Replace the scores of the run."""
        with self._database.begin() as session:
            training.keep_scores(session, self._run.id, scores)

    @_retried
    def record_score(self, score: CaseScore) -> None:
        """Record the score of one case."""
        with self._database.begin() as session:
            training.keep_score(session, self._run.id, score)

    @_retried
    def record_warning(self, text: str) -> None:
        """Add a sentence to the warnings of the run."""
        with self._database.begin() as session:
            training.add_warning(session, self._run.id, text)

    @_retried
    def record_crash(self, end: str) -> None:
        """Record that the process of the run ended in the middle of it; nothing where the run had ended before.

        The run itself is queued again by the worker, as any stale one.
        """
        with self._database.begin() as session:
            run = rows.get_run(session, self._run.id)
            if run.state is RunState.RUNNING and run.attempts == self._run.attempts:
                training.add_warning(session, run.id, f"Attempt {run.attempts} {end} before the run was done.")

    def record_done(self, outcome: Outcome) -> bool:
        """End the run, which has done its work."""
        return self._finish(RunState.DONE, progress=None, **outcome.columns)

    def record_failure(self, failure: Failure) -> bool:
        """End the run, which failed."""
        return self._finish(RunState.FAILED, failure=asdict(failure))

    def record_cancelled(self) -> bool:
        """End the run, which the user stopped."""
        return self._finish(RunState.CANCELLED, progress=None)

    @_retried
    def release(self) -> None:
        """Put the run back into the queue, because its worker leaves."""
        with self._database.begin() as session:
            queue.release(session, self._run, datetime.now(UTC))

    @_retried
    def record_segmentation(self, mask_id: str, segmentation: Segmentation) -> bool:
        """End the run with its result: run, mask and lesions in one transaction.

        Args:
            mask_id: of the mask whose file is there under `keys.incoming_mask`; it gets its place with its record.
            segmentation: what the network outlined.

        Returns:
            Whether it was recorded; False where the run is no longer the caller's, or its case was deleted.
        """
        incoming, key = keys.incoming_mask(mask_id), keys.mask(mask_id)
        is_new = self._files.exists(incoming)  # an earlier try may have moved it before its commit failed
        sha256 = sha256_of(self._files.local(incoming if is_new else key))
        columns = {"result": segmentation, "warnings": list(segmentation.warnings), "progress": None}
        case_id, now = self._run.case_id or "", datetime.now(UTC)
        with self._database.begin() as session:
            if not queue.finish(session, self._run, RunState.DONE, now, device=segmentation.device, **columns):
                return False
            mask = Mask(
                id=mask_id,
                case_id=case_id,
                run_id=self._run.id,
                kind=MaskKind.PREDICTION,
                version=next_version(session, case_id, MaskKind.PREDICTION),
                path=key,
                sha256=sha256,
                volume_ml=sum(lesion.volume_ml for lesion in segmentation.lesions),
                slice_voxels=segmentation.slice_voxels,
                created_at=now,
                lesions=segmentation.lesions,
                doubtful=segmentation.doubtful,
            )
            insert_mask(session, mask)
            if is_new:
                self._files.rename(incoming, key)
            run = rows.get_run(session, self._run.id)
        manifests.keep_mask(self._files, mask, run)
        return True

    @_retried
    def _record_columns(self, **columns: Any) -> None:
        with self._database.begin() as session:
            queue.record_on_run(session, self._run, **columns)

    @_retried
    def _finish(self, state: RunState, **columns: Any) -> bool:
        with self._database.begin() as session:
            return queue.finish(session, self._run, state, datetime.now(UTC), **columns)
