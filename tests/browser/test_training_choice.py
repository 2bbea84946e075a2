"""The page Training in a browser: it trains what was chosen, and its address says which run it shows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lungseg.records.run_states import RunState
from lungseg.services import datasets, training
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run, request_stop
from tests.browser.axe import serious_findings
from tests.browser.conftest import serving, visiting
from tests.data_sets import write_data_set
from tests.installations import installation_of
from tests.run_rows import keep_epochs, keep_run, training_run

pytestmark = pytest.mark.browser
SIZES = ({"width": 1024, "height": 768}, {"width": 820, "height": 1180}, {"width": 1920, "height": 1080})


@pytest.fixture(scope="module")
def own_server(bundle_folder, tmp_path_factory):
    """A server that knows two data sets of one name."""
    root = tmp_path_factory.mktemp("root")
    (root / "home").mkdir()
    for name in ("mini", "mini2"):
        write_data_set(root / name, cases=2)
    with serving(root / "home", bundle_folder, LUNGSEG_DATA=str(root)) as started:
        settings = replace(started.settings, data_roots=(root,))
        for name in ("mini", "mini2"):
            datasets.register(Installation(settings, started.database), root / name)
        yield replace(started, settings=settings)


@pytest.fixture
def page(chromium, own_server):
    with visiting(chromium, own_server.url) as opened:
        yield opened


def start(page, database):
    """Start what the form says, and stop it before it takes the processor; returns the folder that was ordered."""
    before = {run.id for run in training.recent_runs(installation_of(database))}
    page.get_by_role("button", name="training").click()
    page.wait_for_url(lambda url: "run=" in url and url.rpartition("=")[2] not in before)
    run = get_run(installation_of(database), page.url.rpartition("=")[2])
    request_stop(installation_of(database), run.id)
    return run.dataset


def change_epochs(page, number):
    box = page.locator(".st-key-training_epochs_baseline input")
    box.fill(str(number))
    box.press("Tab")
    page.get_by_text("of memory").wait_for()
    page.wait_for_timeout(1000)


def test_training_takes_the_data_set_that_is_shown_whatever_else_is_changed(page, own_server):
    """Two data sets of one name: the first is preset, and changing the epochs alone used to choose the second."""
    database = own_server.database
    first, second = (known.folder for known in datasets.list_data_sets(installation_of(database)))
    page.goto(f"{own_server.url}/training")
    form = page.locator(".st-key-training_order")
    form.get_by_text(first, exact=True).wait_for()
    change_epochs(page, 2)
    assert form.get_by_text(first, exact=True).is_visible()
    assert start(page, database) == first
    box = page.locator(".st-key-training_data input")
    box.click()
    offered = page.locator("[role=option]")
    offered.nth(1).wait_for()
    assert [text.endswith(folder) for text, folder in zip(offered.all_inner_texts(), (first, second), strict=True)] == [
        True,
        True,
    ]
    offered.nth(1).click()
    form.get_by_text(second, exact=True).wait_for()
    change_epochs(page, 3)
    assert start(page, database) == second


def test_address_keeps_the_run_through_clicks_stop_and_reload(page, own_server):
    database, now = own_server.database, datetime.now(UTC)
    kept = [
        training_run("first", queued_at=now - timedelta(hours=3)),
        training_run(
            "at work", queued_at=now - timedelta(hours=2), state=RunState.RUNNING, started_at=now,
            heartbeat_at=now + timedelta(hours=1),
        ),
        training_run("never begun", queued_at=now, state=RunState.CANCELLED, finished_at=now),
    ]  # fmt: skip
    with database.begin() as session:
        for run in kept:
            keep_run(session, run)
        keep_epochs(session, [kept[0].id, kept[1].id], 5)
    first, at_work, _ = kept
    title = page.locator(".lungseg-title")
    page.goto(f"{own_server.url}/training")
    title.get_by_text("at work", exact=True).wait_for()
    page.wait_for_url(f"**/training?run={at_work.id}")
    with database.begin() as session:  # as the worker does when a stop was asked for
        keep_stopped(session, at_work.id)
    title.get_by_text("at work", exact=True).wait_for()
    page.get_by_text("Stopped").first.wait_for()
    page.wait_for_timeout(4000)  # the page has drawn itself anew twice
    assert title.inner_text() == "at work"
    page.locator(f".st-key-training_queued_{first.id} a").click()
    title.get_by_text("first", exact=True).wait_for()
    page.wait_for_url(f"**/training?run={first.id}")
    page.reload()
    title.get_by_text("first", exact=True).wait_for()
    page.go_back()
    title.get_by_text("at work", exact=True).wait_for()
    page.goto(f"{own_server.url}/training")  # not on the one that was cancelled before it began
    title.get_by_text("at work", exact=True).wait_for()


def keep_stopped(session, run_id):
    from lungseg.db.tables import RunRow

    row = session.get(RunRow, run_id)
    row.state, row.finished_at = RunState.CANCELLED, datetime.now(UTC)


def test_address_of_no_run_leads_on(page, own_server):
    page.goto(f"{own_server.url}/training?run={'f' * 32}")
    page.get_by_text("There is no training run at this address.").wait_for()
    page.get_by_text("Show the newest run").click()
    page.locator(".lungseg-title").wait_for()
    assert "f" * 32 not in page.url


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size["width"]))
def test_page_fits_and_is_accessible(page, own_server, size):
    page.set_viewport_size(size)
    page.goto(f"{own_server.url}/training")
    page.locator(".lungseg-title").wait_for()
    page.wait_for_timeout(1000)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert serious_findings(page) == []
