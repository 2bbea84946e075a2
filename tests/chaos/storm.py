"""The storm: load and kills side by side, then the reckoning."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lungseg.config import CHECKOUT, Settings
from lungseg.db import Database, open_database
from lungseg.errors import LungSegError
from lungseg.files import atomic
from lungseg.files.digests import sha256_of
from lungseg.records.run_configs import TrainConfig
from lungseg.records.run_states import RunKind, RunState
from lungseg.services import cases, home, runs, storage, training
from lungseg.services.installation import Installation
from lungseg.services.local_executor import signs_of_worker
from lungseg.services.run_folder import signs_of_run
from lungseg.services.watchdog import read_signs
from tests.data_sets import write_data_set
from tests.installations import installation_of
from tests.networks import save_network
from tests.phantoms import write_chest
from tests.presets import install_presets
from tests.web import free_port

CASE_EVERY_S = (1.0, 6.0)
KILL_EVERY_S = (2.0, 9.0)
TARGETS = ("worker", "worker", "child", "child", "web", "serve", "worker stopped", "child stopped")
EPOCHS = 8
CALM_S = 900.0
"""How long the queue may take to empty after the storm."""


@dataclass
class Report:
    """What came of it: figures in the order in which they are printed, and what was lost."""

    figures: dict[str, object] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)


class Storm:
    """An installation in a folder of its own, its load and its misfortunes.

    Args:
        folder: for everything.
        seed: of the choice of victims and moments.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it chooses victims
        self._folder = folder
        card = save_network(folder / "models")
        url = f"sqlite:///{folder / 'home' / 'lungseg.sqlite'}"
        port = free_port()
        self._settings = Settings(
            home=folder / "home", models=folder / "models", database_url=url, device="cpu", port=port,
            checkpoint=card.name, data_roots=(folder,),
        )  # fmt: skip
        self._server: subprocess.Popen[bytes] | None = None
        self._kills: Counter[str] = Counter()
        self._taken_in: dict[str, str] = {}
        self._masks: dict[str, str] = {}
        self._epochs: dict[tuple[str, int], float] = {}
        self._refused: Counter[str] = Counter()

    def rage(self, seconds: float) -> Report:
        """Go on for so long, wait until the queue is empty, then look what is there."""
        write_chest(self._folder / "chest.nii.gz", "LPS")
        data = write_data_set(self._folder / "set")
        home.open_home(self._settings)
        install_presets(self._settings.home)
        self._settings.demo.mkdir()
        began = time.monotonic()
        with closing(open_database(self._settings.database_url)) as database:
            home.open_installation(Installation(self._settings, database))
            try:
                self._go_on(database, data, began + seconds)
                stormed_s = time.monotonic() - began
                self._calm(database)
                calm_s = time.monotonic() - began - stormed_s
            finally:
                self._stop_server()
            return self._reckon(database, stormed_s, calm_s)

    def _go_on(self, database: Database, data: Path, until_s: float) -> None:
        next_case_s = next_kill_s = time.monotonic()
        while (now := time.monotonic()) < until_s:
            self._keep_server()
            self._note(database)
            if now >= next_case_s:
                self._take_in(database)
                self._train(database, data)
                next_case_s = now + self._random.uniform(*CASE_EVERY_S)
            if now >= next_kill_s:
                self._kill(database)
                next_kill_s = now + self._random.uniform(*KILL_EVERY_S)
            time.sleep(0.1)

    def _calm(self, database: Database) -> None:
        end = time.monotonic() + CALM_S
        while time.monotonic() < end and training.is_any_active(installation_of(database)):
            self._keep_server()
            self._note(database)
            time.sleep(0.2)

    def _take_in(self, database: Database) -> None:
        try:
            with (self._folder / "chest.nii.gz").open("rb") as stream:
                case = cases.ingest(Installation(self._settings, database), "chest.nii.gz", stream)
            self._taken_in[case.id] = case.scan_sha256
            runs.queue_segmentation(Installation(self._settings, database), case.id, place=0)
        except LungSegError as error:
            self._refused[error.code] += 1

    def _train(self, database: Database, data: Path) -> None:
        """Keep one training run in the queue or at work."""
        active = [run for run in training.recent_runs(installation_of(database)) if not run.state.is_final]
        if not active:
            fields = TrainConfig(data=data, preset="small", device="cpu", epochs=EPOCHS, name="storm")
            training.queue_training(Installation(self._settings, database), fields)

    def _note(self, database: Database) -> None:
        """Remember what the database says is kept: it must be there in the end."""
        for summary in cases.list_cases(installation_of(database)):
            if summary.run and summary.run.state is RunState.DONE and summary.run.id not in self._masks:
                for mask in cases.masks_of(installation_of(database), summary.case.id):
                    self._masks[mask.run_id or ""] = mask.sha256
        known = [run.id for run in training.recent_runs(installation_of(database))]
        for run_id, epochs in training.epochs_of(installation_of(database), known).items():
            for epoch in epochs:
                self._epochs[run_id, epoch.epoch] = epoch.train_loss

    def _kill(self, database: Database) -> None:
        target = self._random.choice(TARGETS)
        process = self._victim(database, target.split()[0])
        if process is None:
            return
        with suppress(ProcessLookupError, psutil.Error):
            os.kill(process, signal.SIGSTOP if target.endswith("stopped") else signal.SIGKILL)
            self._kills[target] += 1

    def _victim(self, database: Database, target: str) -> int | None:
        if self._server is None or self._server.poll() is not None:
            return None
        if target == "serve":
            return self._server.pid
        if target == "web":
            children = psutil.Process(self._server.pid).children()
            return next((child.pid for child in children if "streamlit" in child.cmdline()), None)
        if target == "worker":
            signs = read_signs(signs_of_worker(self._settings))
            return signs.process if signs else None
        for run in training.recent_runs(installation_of(database)):
            if run.state is RunState.RUNNING and (signs := read_signs(signs_of_run(self._settings, run.id))):
                return signs.process
        return None

    def _keep_server(self) -> None:
        """Start the server again where it has ended, as a service manager does."""
        if self._server is not None and self._server.poll() is None:
            return
        environment = self._settings.to_environment()
        environment["PYTHONPATH"] = str(CHECKOUT)
        with (self._folder / "serve.log").open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "lungseg", "serve"], cwd=CHECKOUT, env=environment, stdout=log, stderr=log
            )

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(30)
            self._server.kill()
            self._server.wait()

    def _reckon(self, database: Database, stormed_s: float, calm_s: float) -> Report:
        report = Report()
        summaries = {summary.case.id: summary for summary in cases.list_cases(installation_of(database))}
        states: Counter[str] = Counter()
        for summary in summaries.values():
            states[summary.run.state if summary.run else "none"] += 1
        report.losses += [*self._find_losses(database, set(summaries)), *self._find_lost_work(database)]
        storage.sweep(Installation(self._settings, database))
        partial = [path.name for path in self._settings.home.rglob("*") if atomic.PARTIAL.fullmatch(path.name)]
        report.losses += [f"the partial file {name} stays" for name in partial]
        with closing(sqlite3.connect(self._settings.home / "lungseg.sqlite")) as plain:
            (integrity,) = plain.execute("PRAGMA integrity_check").fetchone()
        if integrity != "ok":
            report.losses.append(f"the database is damaged: {integrity}")
        trained = [
            summary.run
            for summary in training.list_runs(installation_of(database))
            if summary.run.kind is RunKind.TRAIN
        ]
        report.figures = {
            "storm, s": round(stormed_s),
            "until the queue was empty after it, s": round(calm_s),
            **{f"kills: {name}": count for name, count in sorted(self._kills.items())},
            "cases taken in": len(self._taken_in),
            "refused with a reason": dict(self._refused),
            "cases there": len(summaries),
            **{f"segmentations {state.lower()}": count for state, count in sorted(states.items())},
            "masks seen": len(self._masks),
            "epochs seen": len(self._epochs),
            **{f"training runs {state.lower()}": n for state, n in sorted(Counter(r.state for r in trained).items())},
            "failures": dict(Counter(run.failure.code for run in trained if run.failure)),
            "lost": len(report.losses),
        }
        return report

    def _find_losses(self, database: Database, case_ids: set[str]) -> Iterator[str]:
        for case_id, sha256 in self._taken_in.items():
            if case_id not in case_ids:
                yield f"case {case_id}"
            elif not self._is_whole(cases.get_case(installation_of(database), case_id).scan_path, sha256):
                yield f"scan of case {case_id}"
        masks = {
            mask.run_id or "": mask
            for case_id in case_ids
            for mask in cases.masks_of(installation_of(database), case_id)
        }
        for run_id, sha256 in self._masks.items():
            if run_id not in masks or not self._is_whole(masks[run_id].path, sha256):
                yield f"mask of run {run_id}"

    def _find_lost_work(self, database: Database) -> Iterator[str]:
        for (run_id, number), loss in self._epochs.items():
            kept = {
                epoch.epoch: epoch.train_loss
                for epoch in training.epochs_of(installation_of(database), (run_id,))[run_id]
            }
            if kept.get(number) != loss:
                yield f"epoch {number} of run {run_id}: {kept.get(number)} instead of {loss}"
        for summary in training.list_runs(installation_of(database)):
            if not summary.run.state.is_final:
                yield f"run {summary.run.id} did not end: {summary.run.state}"

    def _is_whole(self, name: str, sha256: str) -> bool:
        path = self._settings.home / name
        return path.is_file() and sha256_of(path) == sha256
