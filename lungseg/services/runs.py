"""Runs: queued, watched, stopped, repeated. The worker executes them."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

from lungseg import __version__
from lungseg.config import CHECKOUT
from lungseg.db import cases as case_rows
from lungseg.db import runs as rows
from lungseg.errors import NotFoundError, StorageError
from lungseg.records.run_configs import RunConfig, SegmentConfig
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import AFTER_ALL_DROPS, Run
from lungseg.segmentation.card import find_weights, read_card, weights_in
from lungseg.services.in_use import name_in_use
from lungseg.services.installation import Installation

COMMIT = re.compile(r"[0-9a-f]{7,64}")
LONGEST_LINE = 1024
POLL_S = 0.2


def queue_segmentation(
    installation: Installation,
    case_id: str,
    checkpoint: str | None = None,
    *,
    place: int = AFTER_ALL_DROPS,
) -> Run:
    """Queue the segmentation of a case; where the same one waits or runs already, return that, now with this place.

    Args:
        installation: of the case.
        case_id: the case.
        checkpoint: name in `models` or path of the weights; None for the one in use.
        place: of the case among those that its reader handed in together, 0 for the first or only one; without it the
            run goes after all that a reader waits for.

    Raises:
        NotFoundError: there is no such case.
        CheckpointError: there is no such checkpoint.
    """
    weights = find_weights(checkpoint or name_in_use(installation.settings), installation.settings.models)
    card = read_card(weights, to_segment=True)
    with installation.database.begin() as session:
        case_rows.get_case(session, case_id)
        latest = rows.latest_run(session, case_id, RunKind.SEGMENT)
        if latest and not latest.state.is_final and latest.checkpoint_sha256 == card.sha256:
            rows.hasten(session, latest.id, place)
            return rows.get_run(session, latest.id)
        config = SegmentConfig(
            checkpoint=card.name if weights in weights_in(installation.settings.models) else str(weights.resolve()),
            threshold=card.threshold,
            min_lesion_ml=card.min_lesion_ml,
            device=installation.settings.device,
        )
        run = replace(
            blank_run(RunKind.SEGMENT, config),
            case_id=case_id,
            checkpoint=card.name,
            checkpoint_sha256=card.sha256,
            priority=place,
        )
        rows.insert_run(session, run)
    installation.executor.wake()
    return run


def get_run(installation: Installation, run_id: str) -> Run:
    """Return a run; raises NotFoundError where there is none of this id."""
    with installation.database.read() as session:
        return rows.get_run(session, run_id)


def latest_run(installation: Installation, case_id: str) -> Run | None:
    """Return the newest segmentation run of a case; None where there is none."""
    with installation.database.read() as session:
        return rows.latest_run(session, case_id, RunKind.SEGMENT)


def ended(installation: Installation, run: Run, *, longest_s: float) -> Run:
    """Wait until a run has ended and return it; it goes on where nobody waits any more.

    Raises:
        NotFoundError: its case was deleted meanwhile.
        StorageError: it takes longer.
    """
    deadline = time.monotonic() + longest_s
    while not run.state.is_final:
        if time.monotonic() > deadline:
            raise StorageError(f"The file was not done in {longest_s:.0f} s.", "It is being made: ask again later.")
        time.sleep(POLL_S)
        run = get_run(installation, run.id)
    return run


def request_stop(installation: Installation, run_id: str) -> Run:
    """Cancel a run: at once where it waits, within a second or two where it runs; a final state stays as it is.

    Raises:
        NotFoundError: there is none of this id.
    """
    installation.executor.cancel(run_id)
    return get_run(installation, run_id)


def retry(installation: Installation, run_id: str) -> Run:
    """Queue the segmentation of a run once more with its checkpoint; the old run stays as it is.

    Raises:
        NotFoundError: there is no such run, or its case is gone.
        CheckpointError: its checkpoint is gone.
    """
    run = get_run(installation, run_id)
    if run.case_id is None:
        raise NotFoundError(f"The run {run_id} has no case.", "Choose a segmentation run.")
    return queue_segmentation(installation, run.case_id, run.config_as(SegmentConfig).checkpoint, place=0)


@cache
def code_version() -> str:
    """Name the release and, in a checkout, its commit: "0.1.0+g1a2b3c4d5e6f"."""
    commit = commit_of(CHECKOUT / ".git")
    return f"{__version__}+g{commit[:12]}" if commit else __version__


def blank_run(kind: RunKind, config: RunConfig) -> Run:
    """Make the record of a new run that waits."""
    return Run(
        id=uuid4().hex,
        kind=kind,
        state=RunState.QUEUED,
        config=config,
        code_version=code_version(),
        queued_at=datetime.now(UTC),
    )


def commit_of(git: Path) -> str | None:
    """Read the commit that a checkout stands on, without the git command; None where there is none, or no telling."""
    text = _first_line(git / "HEAD")
    if text.startswith("ref: "):  # on a branch
        text = _first_line(git / text.removeprefix("ref: "))
    return text if COMMIT.fullmatch(text) else None


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as stream:
            return stream.readline(LONGEST_LINE).strip()
    except (OSError, ValueError):
        return ""
