"""The pages Training and Runs in a browser: live without a reload, chosen by ticks, promoted through the dialog."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lungseg.records.run_states import Progress, RunState
from lungseg.services import in_use, training
from lungseg.services.installation import Installation
from tests.browser.axe import serious_findings
from tests.browser.conftest import serving, visiting
from tests.networks import save_network
from tests.run_rows import keep_epochs, keep_run, keep_scores, score_of, training_run, write_pictures

pytestmark = pytest.mark.browser
GOOD = (0.31, 0.5, 0.61, 0.7, 0.41, 0.8)
BAD = (0.2, 0.4, 0.5, 0.6, 0.3, 0.7)
SIZES = ({"width": 1440, "height": 900}, {"width": 1024, "height": 768})
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
        assert serious_findings(page) == []


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


def test_table_offers_no_export_that_would_hold_formulas(page, own_server, kept):
    page.goto(f"{own_server.url}/runs")
    page.locator(".st-key-runs_table canvas").first.wait_for()
    page.locator(".st-key-runs_table").hover()
    buttons = page.locator('[data-testid="stElementToolbarButton"] button')
    buttons.last.wait_for()
    labels = {button.get_attribute("aria-label") for button in buttons.all() if button.is_visible()}
    assert labels == {"Show/hide columns", "Search", "Fullscreen"}


def test_worse_checkpoint_is_promoted_with_a_comment_alone(page, own_server, kept):
    bad = kept[1]
    page.goto(f"{own_server.url}/runs?run={bad.id}")
    page.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("A reason is needed.").wait_for()
    assert serious_findings(page) == []
    page.wait_for_timeout(5000)  # the page behind has drawn itself anew meanwhile
    dialog.get_by_role("button", name="Promote all the same").click()
    dialog.get_by_text("give a comment").wait_for()
    dialog.locator(".st-key-runs_promote_by input").fill("R. Kay")
    dialog.locator("textarea").fill("finds the small ones")
    dialog.locator("textarea").press("Control+Enter")
    dialog.get_by_role("button", name="Promote all the same").click()
    said = page.locator(".lungseg-said")
    said.get_by_text("bad is in models/ now. LUNGSEG_CHECKPOINT names good").wait_for()
    assert dialog.count() == 0
    button = page.get_by_role("button", name="Delete").bounding_box()
    assert said.bounding_box()["y"] + said.bounding_box()["height"] <= button["y"]  # it covers nothing
    (made,) = in_use.promotions(own_server.settings)
    assert (made.name, made.before, made.by, made.comment) == ("bad", "good", "R. Kay", "finds the small ones")
    card = json.loads((own_server.settings.models / "bad.json").read_text())
    assert card["training"]["promotion"]["comment"] == "finds the small ones"


def test_run_is_deleted_and_the_page_is_right_at_once(page, own_server, kept):
    """The dialog used to end in a crash, and the table went on listing the run, ticked."""
    gone = [training_run(f"gone {number}", queued_at=datetime.now(UTC)) for number in range(2)]
    with own_server.database.begin() as session:
        for run in gone:
            keep_run(session, run)
            keep_epochs(session, [run.id], 3)
    page.goto(f"{own_server.url}/runs?run={gone[0].id}")
    page.locator(".lungseg-title", has_text="gone 0").wait_for()
    before = count_of_runs(page)
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("can't be undone").wait_for()
    assert serious_findings(page) == []
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="detached")
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    page.locator(".lungseg-said", has_text="gone 0 deleted.").wait_for()
    page.get_by_text("Tick a run to see its curves").wait_for()
    assert dialog.count() == 0
    assert "run=" not in page.url
    assert count_of_runs(page) == before - 1
    assert page.locator("[data-testid=stException], .lungseg-error").count() == 0
    remove_while_asked(page, own_server, gone[1])


def remove_while_asked(page, own_server, run):
    """Another window deletes the run while this one asks whether to delete it."""
    page.goto(f"{own_server.url}/runs?run={run.id}")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("can't be undone").wait_for()
    training.delete_run(Installation(own_server.settings, own_server.database), run.id)
    dialog.get_by_role("button", name="Delete").click()
    dialog.get_by_text("deleted meanwhile").wait_for()
    dialog.locator(".st-key-runs_dialog_back button").click()
    page.get_by_text("Tick a run to see its curves").wait_for()


def count_of_runs(page):
    return int(page.locator(".st-key-runs_below .lungseg-quiet").inner_text().split()[0])


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size["width"]))
@pytest.mark.parametrize("chosen", [(), (0,), (0, 1)], ids=["none", "one", "two"])
def test_page_fits_and_is_accessible(page, own_server, kept, chosen, size):
    page.set_viewport_size(size)
    page.goto(f"{own_server.url}/runs?{'&'.join(f'run={kept[number].id}' for number in chosen)}")
    page.locator(".st-key-runs_table canvas").first.wait_for()
    page.wait_for_timeout(1500)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert serious_findings(page) == []
