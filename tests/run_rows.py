"""Training runs with their epochs and scores, put into a database as a worker would leave them."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from lungseg.db.runs import insert_run
from lungseg.db.tables import EpochRow, RunRow, ScoreRow
from lungseg.decoding import to_plain
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.scores import CaseScore
from tests.rows import new_run

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def training_run(name="first try", **changes):
    """A finished training run of thirty epochs."""
    values = {
        "kind": RunKind.TRAIN,
        "state": RunState.DONE,
        "name": name,
        "dataset": "/data/Task06_Lung",
        "checkpoint": "baseline",
        "seed": 0,
        "device": "cpu",
        "queued_at": NOW,
    }
    return new_run(None, **{**values, **changes})


def keep_run(session, run):
    """Keep a run with all of its columns, as if it had been executed."""
    insert_run(session, run)
    row = session.get(RunRow, run.id)
    row.state, row.device, row.attempts, row.warnings = run.state, run.device, run.attempts, list(run.warnings)
    row.started_at, row.finished_at, row.heartbeat_at = run.started_at, run.finished_at, run.heartbeat_at
    row.failure = {name: getattr(run.failure, name) for name in ("code", "found", "remedy")} if run.failure else None
    row.progress = (
        {name: getattr(run.progress, name) for name in ("stage", "done", "total", "left_s")} if run.progress else None
    )
    session.flush()
    return run


def keep_epochs(session, run_ids, count, *, first=1, best=0.6, loss=0.08):
    """Keep the epochs of runs from `first` to `count`: losses fall, mean Dice rises towards `best`, with some noise."""
    random = np.random.default_rng(len(run_ids))
    rows = []
    for run_id in run_ids:
        noise = random.normal(0, 0.015, (3, count))
        rows += [
            {
                "run_id": run_id,
                "epoch": epoch,
                "train_loss": float(loss + 0.5 * math.exp(-epoch / 5) + abs(noise[0, epoch - 1])),
                "validation_loss": float(loss + 0.03 + 0.5 * math.exp(-epoch / 6) + abs(noise[1, epoch - 1])),
                "mean_dice": float(np.clip(best * (1 - math.exp(-epoch / 6)) + noise[2, epoch - 1], 0, 1)),
                "learning_rate": 1e-4 * (1 + math.cos(math.pi * epoch / 30)) / 2,
                "slices_per_s": 64.0,
                "seconds": 231.0,
                "memory_mb": 1930.0,
                "finished_at": NOW + timedelta(seconds=231 * epoch),
            }
            for epoch in range(first, count + 1)
        ]
    session.execute(insert(EpochRow), rows)


def score_of(case, dice, **changes):
    """The score of one case; what is not said follows from its Dice."""
    values = {
        "hd95_mm": 30 * (1 - dice),
        "nsd_2mm": dice,
        "reference_ml": 4.0 + len(case),
        "predicted_ml": 4.5 + len(case),
        "lesions_reference": 1,
        "lesions_found": int(dice > 0),
        "false_lesions": 1,
        "seconds": 6.5,
    }
    return CaseScore(case, dice, **{**values, **changes})


def keep_scores(session, run_id, scores):
    """Keep the scores of a run."""
    session.execute(insert(ScoreRow), [{"run_id": run_id, **to_plain(score)} for score in scores])


def write_pictures(folder: Path, count=6):
    """Write example pictures as a training run does."""
    from lungseg.scans.overlay import write_png

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        picture = random.integers(20, 60, (256, 256, 3)).astype(np.uint8)
        rows, columns = np.ogrid[:256, :256]
        ring = np.abs(np.hypot(rows - 130, columns - 90 - 9 * number) - 18) < 1.5
        other = np.abs(np.hypot(rows - 134, columns - 94 - 9 * number) - 16) < 1.5
        picture[other], picture[ring] = (56, 189, 248), (255, 122, 69)
        write_png(folder / f"lung_{number + 1:03d}.png", picture)
