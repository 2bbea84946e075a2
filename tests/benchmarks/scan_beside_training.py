"""How long a reader waits beside other work: `python -m tests.benchmarks.scan_beside_training` prints a table.

A real server with its worker in a home of its own. A scan is handed in, again and again, while the machine is idle,
while a run trains, validates, scores, or prepares a data set; each time from the moment in which its run is queued (the
end of the upload) to its start and to its mask.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lungseg.config import CHECKOUT, Settings
from lungseg.db import Database, open_database
from lungseg.records.run_configs import TrainConfig
from lungseg.records.run_states import RunState
from lungseg.records.runs import Run
from lungseg.services import cases, datasets, runs, training
from lungseg.services.home import open_home, open_installation
from lungseg.services.installation import Installation
from tests.installations import installation_of
from tests.presets import install_presets
from tests.web import free_port

DATA = CHECKOUT.parent / "shared" / "data" / "chest_ct_msd_layout"
POLL_S = 0.02
PATIENCE_S = 900.0
MANY = 1000


@dataclass(frozen=True)
class Times:
    """Of one scan, from its upload's end.

    Attributes:
        started_s: until its run was going.
        done_s: until its mask was there.
    """

    started_s: float
    done_s: float


class Bench:
    """An installation with a server and a worker.

    Args:
        settings: of it.
        database: its database.
        scan: what readers hand in.
        data: the data set that is trained on.
    """

    def __init__(self, settings: Settings, database: Database, scan: Path, data: Path) -> None:
        self._settings, self._database = settings, database
        self._scan, self._data = scan, data

    def hand_in(self) -> Times:
        """Hand the scan in and wait for its mask."""
        with self._scan.open("rb") as stream:
            case = cases.ingest(Installation(self._settings, self._database), self._scan.name, stream)
        run = runs.queue_segmentation(Installation(self._settings, self._database), case.id, place=0)
        queued_s = time.monotonic()
        _wait_for(lambda: self._now(run.id).state is not RunState.QUEUED)
        started_s = time.monotonic() - queued_s
        _wait_for(lambda: self._now(run.id).state.is_final)
        assert self._now(run.id).state is RunState.DONE, self._now(run.id).failure
        return Times(started_s, time.monotonic() - queued_s)

    def idle(self) -> Times:
        """Hand in where nothing else goes on."""
        return self.hand_in()

    def training(self, preset: str) -> Times:
        """Hand in between the steps of an epoch."""
        run_id = self._train(preset, MANY)
        times = self._beside(run_id, "training")
        self._end(run_id)
        return times

    def validating(self) -> Times:
        """Hand in while an epoch is validated; its steps are few, so that it soon is."""
        run_id = self._train("brief", MANY)
        times = self._beside(run_id, "validating")
        self._end(run_id)
        return times

    def scoring(self) -> Times:
        """Hand in while a checkpoint is scored."""
        run = training.queue_evaluation(Installation(self._settings, self._database), self._data)
        times = self._beside(run.id, "loading")
        self._end(run.id)
        return times

    def preparing(self) -> Times:
        """Hand in while the scans of a data set are read."""
        data_set = datasets.register(Installation(self._settings, self._database), self._data)
        assert data_set.run is not None
        times = self._beside(data_set.run.id, "looking for files")
        self._end(data_set.run.id)
        datasets.forget(Installation(self._settings, self._database), data_set.id)
        return times

    def _train(self, preset: str, epochs: int) -> str:
        fields = TrainConfig(data=self._data, preset=preset, epochs=epochs, name="beside")
        return training.queue_training(Installation(self._settings, self._database), fields).id

    def _beside(self, run_id: str, stage: str) -> Times:
        """Hand in as soon as a run has come to a stage; what it does meanwhile costs it no attempt."""
        _wait_for(lambda: (at := self._now(run_id).progress) and at.stage == stage and (not at.total or at.done > 2))
        times = self.hand_in()
        assert self._now(run_id).attempts == 1
        return times

    def _end(self, run_id: str) -> None:
        runs.request_stop(installation_of(self._database), run_id)
        _wait_for(lambda: self._now(run_id).state.is_final)

    def _now(self, run_id: str) -> Run:
        return runs.get_run(installation_of(self._database), run_id)


def _wait_for(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(POLL_S)


@contextmanager
def _installation(folder: Path, data: Path) -> Iterator[tuple[Settings, Database]]:
    """Run a server with its worker in a home of its own."""
    home = folder / "home"
    (home / "demo").mkdir(parents=True)
    port = free_port()
    settings = Settings(
        home=home, models=CHECKOUT / "models", database_url=f"sqlite:///{home / 'lungseg.sqlite'}", port=port,
        data_roots=(data,),
    )  # fmt: skip
    open_home(settings)
    install_presets(settings.home)
    environment = settings.to_environment()
    environment["PYTHONPATH"] = str(CHECKOUT)
    with closing(open_database(settings.database_url)) as database, (folder / "serve.log").open("wb") as log:
        open_installation(Installation(settings, database))
        command = [sys.executable, "-m", "lungseg", "serve"]
        with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=log, stderr=log) as server:
            try:
                yield settings, database
            finally:
                server.terminate()


def main(
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    scan: Annotated[Path | None, typer.Option(help="Default: the demo scan.")] = None,
    data: Annotated[Path, typer.Option(help="Data set in the layout of the Decathlon.")] = DATA,
    preset: Annotated[list[str] | None, typer.Option(help="What is trained beside.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Of the rows, beside the idle machine.")] = None,
) -> None:
    """Measure every situation in turn, so that what else the machine does meets all of them alike."""
    scan = scan or Settings.from_environment().demo / "scan.nii.gz"
    with tempfile.TemporaryDirectory() as folder, _installation(Path(folder), data.resolve()) as (settings, database):
        bench = Bench(settings, database, scan, data.resolve())
        situations: dict[str, Callable[[], Times]] = {"idle": bench.idle}
        for name in preset or ["neighbours"]:
            situations[f"training {name}"] = partial(bench.training, name)
        situations |= {"validating": bench.validating, "scoring": bench.scoring, "preparing": bench.preparing}
        chosen = {name: act for name, act in situations.items() if not only or name in {"idle", *only}}
        bench.hand_in()  # starts the worker, loads the network
        found: dict[str, list[Times]] = {name: [] for name in chosen}
        for _ in range(repeats):
            for name, measure in chosen.items():
                found[name].append(measure())
                typer.echo(f"{name}: {found[name][-1]}, load {os.getloadavg()[0]:.1f}")
    _show(found)


def _show(found: dict[str, list[Times]]) -> None:
    idle_s = statistics.median(times.done_s for times in found["idle"])
    typer.echo("| | started: median, longest, s | mask: median, longest, s | against idle |\n|---|---|---|---|")
    for name, all_times in found.items():
        started, done = [each.started_s for each in all_times], [each.done_s for each in all_times]
        typer.echo(
            f"| {name} | {statistics.median(started):.2f}, {max(started):.2f} | {statistics.median(done):.1f}, "
            f"{max(done):.1f} | {statistics.median(done) / idle_s:.2f} |"
        )


if __name__ == "__main__":
    typer.run(main)
