"""Every page in its states: nothing that axe-core finds serious, one first heading, a title of its own."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from lungseg.db import queue
from lungseg.jobs.recorder import RunRecorder
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.run_states import Failure
from lungseg.services import runs
from lungseg.services.installation import Installation
from tests.browser.axe import serious_findings
from tests.browser.conftest import SCREENSHOTS, serving, visiting
from tests.browser.looking import HAS_MASKS
from tests.cards import save_scenes
from tests.data_sets import write_data_set
from tests.narrowing import existing
from tests.networks import save_network
from tests.phantoms import SHAPE, write_chest
from tests.run_rows import keep_epochs, keep_run, keep_scores, score_of, training_run
from tests.seeds import add_case, add_prediction, add_reference

pytestmark = pytest.mark.browser
TITLES = {
    "": "Cases",
    "viewer": "Viewer",
    "pacs": "PACS",
    "dataset": "Data set",
    "training": "Training",
    "runs": "Runs",
    "checkpoint": "Checkpoint",
}
DOUBT = ScanFinding("lungs.not_recognised", ScanSeverity.NOT_UNDERSTOOD, "The lungs are cut.")


def serve(home, bundle_folder):
    save_network(home / "models", "good")
    save_scenes(home / "models")
    variables = {"LUNGSEG_MODELS": str(home / "models"), "LUNGSEG_CHECKPOINT": "good", "LUNGSEG_DATA": str(home.parent)}
    return serving(home, bundle_folder, **variables)


@pytest.fixture(scope="module")
def empty(bundle_folder, tmp_path_factory):
    """A server without any case, data set or run."""
    with serve(tmp_path_factory.mktemp("empty"), bundle_folder) as started:
        yield started


@pytest.fixture(scope="module")
def full(bundle_folder, tmp_path_factory):
    """A server with a case for each way that a segmentation ends, a data set and a run."""
    home = tmp_path_factory.mktemp("full")
    with serve(home, bundle_folder) as started:
        server = replace(started, settings=replace(started.settings, models=home / "models", checkpoint="good"))
        folder = tmp_path_factory.mktemp("scans")
        yield server, seed_cases(server, folder), seed_run(server)


def seed_cases(server, folder):
    settings, database = server.settings, server.database
    lesion = write_chest(folder / "chest.nii.gz", "LPS")
    seeded = {
        name: add_case(settings, database, folder / "chest.nii.gz", name)
        for name in ("plain", "failed", "doubtful", "segmented")
    }
    runs.queue_segmentation(Installation(settings, database), seeded["failed"].id)
    with database.begin() as session:
        claimed = existing(queue.claim(session, "seed", datetime.now(UTC)))
    failure = Failure("scan.no_lung", "No lung was found.", "Upload a scan of a chest.")
    RunRecorder(Installation(settings, database), claimed).record_failure(failure)
    add_prediction(settings, database, seeded["doubtful"], np.zeros(SHAPE, bool), findings=(DOUBT,))
    add_prediction(settings, database, seeded["segmented"], lesion)
    add_reference(settings, database, seeded["segmented"], np.roll(lesion, -36, axis=0), folder)
    return seeded


def seed_run(server):
    run = training_run("done", checkpoint="done", queued_at=datetime.now(UTC) - timedelta(hours=3))
    card = save_network(server.settings.runs / run.id, "done", logit=2.0)
    with server.database.begin() as session:
        keep_run(session, replace(run, checkpoint_sha256=card.sha256))
        keep_epochs(session, [run.id], 5)
        keep_scores(session, run.id, [score_of(f"lung_{n:03d}", 0.1 * n) for n in range(6)])
    return run


def check(page, name):
    """Look at a page when it has come to rest."""
    page.wait_for_timeout(1500)
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"accessible-{name}.png")
    assert serious_findings(page) == []


@pytest.mark.parametrize("path", TITLES)
def test_empty_installation(chromium, empty, path):
    with visiting(chromium, empty.url) as page:
        page.goto(f"{empty.url}/{path}")
        page.get_by_role("heading", level=1, name=TITLES[path]).wait_for(state="attached")
        check(page, f"empty-{path or 'cases'}")
        assert page.locator("h1").count() == 1
        assert page.title() == f"{TITLES[path]} · LungSeg"


def test_cases(chromium, full):
    server, _, _ = full
    with visiting(chromium, server.url) as page:
        page.goto(server.url)
        page.get_by_role("link", name="segmented").wait_for()
        check(page, "cases")


@pytest.mark.parametrize("action", ["Rename", "Delete"])
def test_dialogs_of_cases(chromium, full, action):
    server, _, _ = full
    with visiting(chromium, server.url) as page:
        page.goto(server.url)
        page.get_by_role("button", name="Actions for plain").click()
        page.get_by_role("option", name=action).or_(page.get_by_role("menuitem", name=action)).first.click()
        page.get_by_role("dialog").wait_for()
        check(page, f"dialog-{action.lower()}")
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").wait_for(state="detached")


@pytest.mark.parametrize("name", ["plain", "failed", "doubtful", "segmented"])
def test_viewer(chromium, full, name):
    server, seeded, _ = full
    with visiting(chromium, server.url) as page:
        page.goto(server.address(seeded[name].id))
        page.wait_for_function(HAS_MASKS)
        check(page, f"viewer-{name}")
        page.get_by_role("button", name="Export").click(force=True)
        check(page, f"viewer-{name}-export")


def test_viewer_of_no_case(chromium, full):
    server, _, _ = full
    with visiting(chromium, server.url) as page:
        page.goto(server.address("f" * 32))
        page.get_by_role("alert").wait_for()
        check(page, "viewer-wrong")


def test_pages_of_data_and_runs(chromium, full, tmp_path_factory):
    server, _, run = full
    folder = write_data_set(server.settings.home.parent / f"set-{run.id[:6]}", cases=2, unlabelled=1)
    with visiting(chromium, server.url) as page:
        page.goto(f"{server.url}/dataset")
        page.locator(".st-key-dataset_folder input").fill(str(folder))
        page.locator(".st-key-dataset_register button").click()
        page.locator(".st-key-dataset_figures .js-plotly-plot").nth(4).wait_for()
        check(page, "data-set")
        page.goto(f"{server.url}/training?run={run.id}")
        page.locator(".js-plotly-plot").first.wait_for()
        check(page, "training")
        page.goto(f"{server.url}/runs?run={run.id}")
        page.locator(".js-plotly-plot").first.wait_for()
        check(page, "runs")
        page.get_by_role("button", name="Promote").click()
        page.get_by_role("dialog").wait_for()
        check(page, "runs-promote")
        page.goto(f"{server.url}/checkpoint?checkpoint=whole")
        page.locator(".js-plotly-plot").nth(1).wait_for()
        check(page, "checkpoint")
