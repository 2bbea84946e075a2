"""The pages Training and Runs in a browser: live without a reload, chosen by ticks, promoted through the dialog."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lungseg.records import Progress, RunState
from tests.browser.conftest import serving, visiting
from tests.networks import save_network
from tests.run_rows import keep_epochs, keep_run, keep_scores, score_of, training_run, write_pictures

pytestmark = pytest.mark.browser
GOOD = (0.31, 0.5, 0.61, 0.7, 0.41, 0.8)
BAD = (0.2, 0.4, 0.5, 0.6, 0.3, 0.7)
HEAD_PX, ROW_PX = 35, 28
"""Heights in the table of runs."""


@pytest.fixture(scope="module")
def own_server(bundle_folder, tmp_path_factory):
    """A server with `models/` of its own, in which `good` is in use."""
    home = tmp_path_factory.mktemp("home")
    models = home / "models"
    with serving(home, bundle_folder, LUNGSEG_MODELS=str(models), LUNGSEG_CHECKPOINT="good") as started:
        yield replace(started, settings=replace(started.settings, models=models))


@pytest.fixture(scope="module")
def kept(own_server):
    """Two finished runs, newest last, and one that goes on."""
    settings, now = own_server.settings, datetime.now(UTC)
    runs = []
    for name, dice, hours in (("good", GOOD, 9), ("bad", BAD, 5)):
        run = training_run(name, checkpoint=name, queued_at=now - timedelta(hours=hours))
        folder = settings.runs / run.id
        card = save_network(folder, name, logit=1.0 + len(name))
        if name == "good":
            save_network(settings.models, name, logit=1.0 + len(name))
        runs.append((replace(run, checkpoint_sha256=card.sha256), dice))
    ahead = now + timedelta(hours=1)  # no worker takes it for lost
    live = training_run(
        "live", state=RunState.RUNNING, queued_at=now, started_at=now, heartbeat_at=ahead,
        progress=Progress("training", 1, 30, 600.0),
    )  # fmt: skip
    with own_server.database.begin() as session:
        for run, dice in runs:
            keep_run(session, run)
            keep_epochs(session, [run.id], 30)
            keep_scores(session, run.id, [score_of(f"lung_{n:03d}", value) for n, value in enumerate(dice)])
        keep_run(session, live)
        keep_epochs(session, [live.id], 3)
    write_pictures(settings.runs / live.id / "examples", 3)
    return [runs[0][0], runs[1][0], live]


@pytest.fixture
def page(chromium, own_server):
    with visiting(chromium, own_server.url) as opened:
        yield opened


def test_new_epochs_reach_two_browsers_without_a_reload(page, chromium, own_server, kept):
    live = kept[2]
    with visiting(chromium, own_server.url) as other:
        for each in (page, other):
            each.goto(f"{own_server.url}/training?run={live.id}")
            each.get_by_text("3 of 30").wait_for()
            each.locator(".st-key-training_examples img").nth(2).wait_for()
        with own_server.database.begin() as session:
            keep_epochs(session, [live.id], 4, first=4)
        for each in (page, other):
            each.get_by_text("4 of 30").wait_for()
            each.locator(".st-key-training_curves .js-plotly-plot").first.wait_for()


def test_ticks_choose_runs_and_a_reload_keeps_them(page, own_server, kept):
    good, bad, _ = kept
    page.goto(f"{own_server.url}/runs")
    grid = page.locator(".st-key-runs_table canvas").first
    grid.wait_for()
    for row in (2, 1):  # newest first: live, bad, good
        grid.click(position={"x": 16, "y": HEAD_PX + ROW_PX * row + ROW_PX // 2}, force=True)
        page.wait_for_url(lambda url, row=row: (good, bad)[2 - row].id in url)
    page.get_by_text("bad is worse").wait_for()
    page.reload()
    page.get_by_text("bad is worse").wait_for()
    page.locator(".st-key-runs_scatter .js-plotly-plot").first.wait_for()


def test_worse_checkpoint_is_promoted_with_a_comment_alone(page, own_server, kept):
    bad = kept[1]
    page.goto(f"{own_server.url}/runs?run={bad.id}")
    page.get_by_role("button", name="Promote").click()
    page.get_by_text("Kept out.").wait_for()
    page.wait_for_timeout(5000)  # the page behind has drawn itself anew meanwhile
    page.get_by_role("dialog").get_by_role("button", name="Promote all the same").click()
    page.get_by_text("give a comment").wait_for()
    page.get_by_role("dialog").locator("textarea").fill("finds the small ones")
    page.get_by_role("dialog").locator("textarea").press("Control+Enter")
    page.get_by_role("dialog").get_by_role("button", name="Promote all the same").click()
    page.get_by_text("bad is in models/ now.").wait_for()
    card = json.loads((own_server.settings.models / "bad.json").read_text())
    assert card["training"]["promotion"]["comment"] == "finds the small ones"
