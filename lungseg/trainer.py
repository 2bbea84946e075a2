"""The child process of a training run: the engine at work, its reports written into the database.

The worker starts it and waits. It ends when its work is done, when it is asked to stop, or when the worker is gone:
two processes never train the same run.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from lungseg import overlay
from lungseg.card import ModelCard
from lungseg.config import Settings
from lungseg.db import Database, open_database
from lungseg.db import training as rows
from lungseg.errors import LungSegError, RunCancelledError
from lungseg.records import CaseScore, EpochRecord, Run, RunState
from lungseg.services import results
from lungseg.services.failures import failure_of
from lungseg.services.pulse import Pulse
from lungseg.services.runs import get_run
from lungseg.services.training import EXAMPLES, LOG, order_of
from lungseg.training.order import EpochReport, Listener
from lungseg.training.recipe import train_order

log = logging.getLogger(__name__)

STANDARD_INPUT = 0
PREDECESSOR_S = 120.0
"""How long to wait for an earlier child of the same run, whose worker was killed, to end."""


def execute(settings: Settings, run_id: str, attempt: int) -> None:
    """Train a claimed run; every way out of it is recorded.

    Args:
        settings: of the installation.
        run_id: the run.
        attempt: the claim; where another one has begun since, nothing is done.

    Raises:
        NotFoundError: there is no such run.
    """
    with closing(open_database(settings.database_url)) as database:
        run = get_run(database, run_id)
        if run.state is not RunState.RUNNING or run.attempts != attempt:
            log.info("run %s: not ours any more", run.id)
            return
        folder = settings.runs / run.id
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock").acquire(timeout=PREDECESSOR_S), _logging_to(folder / LOG):
            _Training(settings, database, run).carry_out()


class _Training:
    """A claimed run at work."""

    def __init__(self, settings: Settings, database: Database, run: Run) -> None:
        self._settings, self._database, self._run = settings, database, run
        self._leaves = threading.Event()

    def carry_out(self) -> None:
        """Train, and write down what came of it."""
        log.info("attempt %d", self._run.attempts)
        try:
            with _on_terminate(self._leaves.set), Pulse(self._database, self._run) as pulse:
                order = order_of(self._settings, self._database, self._run)
                card = train_order(order, self._listener(pulse), resume=True)
                is_stopped = pulse.should_stop()
            self._conclude(card, is_stopped=is_stopped)
        except RunCancelledError:
            self._conclude(None, is_stopped=not self._leaves.is_set())
        except LungSegError as error:
            log.error("%s", error)  # noqa: TRY400 - our own errors say all there is to say
            results.keep_failure(self._database, self._run, failure_of(error))
        except Exception as error:
            log.exception("the run failed")
            results.keep_failure(self._database, self._run, failure_of(error))

    def _conclude(self, card: ModelCard | None, *, is_stopped: bool) -> None:
        if self._leaves.is_set() and not is_stopped and not (card and card.training.get("finished")):
            log.info("back into the queue")
            results.give_back(self._database, self._run)
            return
        state = RunState.CANCELLED if is_stopped or card is None else RunState.DONE
        log.info("%s", state.lower())
        results.keep_training(self._database, self._run, state, card)

    def _listener(self, pulse: Pulse) -> Listener:
        return Listener(
            on_progress=pulse.tell,
            on_epoch=self._keep_epoch,
            on_scores=self._keep_scores,
            on_examples=self._keep_examples,
            on_notice=self._keep_notice,
            should_stop=lambda: self._leaves.is_set() or pulse.should_stop(),
        )

    def _keep_epoch(self, report: EpochReport) -> None:
        log.info("%s", _line(report))
        record = EpochRecord(
            run_id=self._run.id,
            epoch=report.epoch,
            train_loss=report.train_loss,
            validation_loss=report.validation_loss,
            mean_dice=report.mean_dice,
            learning_rate=report.learning_rate,
            slices_per_s=report.slices_per_s,
            seconds=report.seconds,
            memory_mb=report.memory_mb,
            finished_at=datetime.now(UTC),
        )
        with self._database.begin() as session:
            rows.keep_epoch(session, record)

    def _keep_scores(self, scores: tuple[CaseScore, ...]) -> None:
        with self._database.begin() as session:
            rows.keep_scores(session, self._run.id, scores)

    def _keep_examples(self, pictures: list[NDArray[np.uint8]]) -> None:
        folder = self._settings.runs / self._run.id / EXAMPLES
        for number, picture in enumerate(pictures):
            partial = folder / f"{number:02d}.partial"
            overlay.write_png(partial, picture)
            os.replace(partial, folder / f"{number:02d}.png")

    def _keep_notice(self, text: str) -> None:
        log.warning("%s", text)
        with self._database.begin() as session:
            rows.add_warning(session, self._run.id, text)


def watch_parent() -> None:
    """End this process at once when the worker that started it is gone: its end of the standard input closes."""

    def wait() -> None:
        # not `sys.stdin.read`, whose lock a process forked meanwhile would wait for
        while os.read(STANDARD_INPUT, 1):
            pass
        log.error("the worker is gone; this process ends")
        os._exit(1)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def _line(report: EpochReport) -> str:
    validation = "" if report.validation_loss is None else f", validation {report.validation_loss:.4f}"
    dice = "" if report.mean_dice is None else f", mean Dice {report.mean_dice:.3f}"
    best = ", best so far" if report.is_best else ""
    return (
        f"epoch {report.epoch} of {report.epochs}: loss {report.train_loss:.4f}{validation}{dice}{best}; "
        f"{report.slices_per_s:.1f} slices/s, {report.seconds:.0f} s"
    )


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Write what the package logs into a file that the pages show."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("lungseg")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def _on_terminate(leave: Callable[[], None]) -> Iterator[None]:
    """Call `leave` at SIGTERM or SIGINT instead of ending at once."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        leave()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
