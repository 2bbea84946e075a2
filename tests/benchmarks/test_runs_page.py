"""How soon the page Runs can be used with a thousand runs of a hundred epochs each in the database."""

import subprocess
import sys
from datetime import timedelta

import pytest

from lungseg.config import CHECKOUT
from lungseg.db import open_database
from lungseg.services.installation import Installation
from tests.run_rows import NOW, keep_epochs, keep_run, keep_scores, score_of, training_run
from tests.web import free_port

RUNS, EPOCHS = 1000, 100


@pytest.fixture
def crowded(environment):
    """A database with all the runs; returns the ids of the newest two, which have scores."""
    database = open_database(environment.database_url)
    runs = [training_run(f"search {n}", queued_at=NOW - timedelta(hours=n), seed=n) for n in range(RUNS)]
    with database.begin() as session:
        for run in runs:
            keep_run(session, run)
        for start in range(0, RUNS, 50):
            keep_epochs(session, [run.id for run in runs[start : start + 50]], EPOCHS)
        for run in runs[:2]:
            keep_scores(session, run.id, [score_of(f"lung_{n:03d}", 0.05 * n) for n in range(13)])
    database.close()
    return [run.id for run in runs[:2]]


@pytest.fixture
def address(environment, crowded):
    """A server that was used before, so that its modules are loaded."""
    port = free_port()
    command = [sys.executable, "-m", "lungseg", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("LungSeg is at")
        yield f"http://127.0.0.1:{port}/runs"
        process.terminate()


@pytest.mark.target(at_most={"median_s": 1})
def test_runs_page_with_a_thousand_runs(benchmark, address, page):
    """From the click on Runs until the table is drawn and its filter takes input."""

    def from_another_page():
        page.goto(address.replace("/runs", "/training"))
        page.get_by_role("link", name="Runs", exact=True).wait_for()

    def open_runs():
        page.get_by_role("link", name="Runs", exact=True).click()
        page.get_by_text(f"{RUNS:,} runs. Tick several").wait_for()
        page.locator(".st-key-runs_table canvas").first.wait_for()

    from_another_page()
    open_runs()
    benchmark.pedantic(open_runs, setup=from_another_page, rounds=5)


def test_two_of_a_thousand_runs_compared_by_the_server(benchmark, environment, crowded):
    """What the server computes for the page with two runs chosen: list, curves, scores, comparison."""
    from lungseg.services import comparison, training

    database = open_database(environment.database_url)
    first, second = crowded

    def compute():
        summaries = training.list_runs(Installation(environment, database))
        training.epochs_of(Installation(environment, database), (first, second))
        scores = training.scores_of(Installation(environment, database), (first, second))
        comparison.compare(scores[first], scores[second])
        return len(summaries)

    assert benchmark.pedantic(compute, rounds=5, warmup_rounds=1) == RUNS
    database.close()
