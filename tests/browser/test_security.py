"""The security of the server as a browser sees it: pages keep their policy, strangers get nothing."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest

from lungseg.records.run_states import Progress, RunState
from tests.browser.conftest import SCREENSHOTS, SLOW_MS, SOFTWARE_GL, launch, serving, visiting
from tests.browser.looking import HAS_MASKS
from tests.cards import save_scenes
from tests.data_sets import write_data_set
from tests.networks import save_network
from tests.phantoms import write_chest
from tests.run_rows import keep_epochs, keep_run, keep_scores, score_of, training_run, write_pictures
from tests.seeds import add_case, add_prediction, add_reference

pytestmark = pytest.mark.browser
ATTACKER, REBOUND = "attacker.example", "rebound.example"
APP = "[data-testid=stApp]"


@pytest.fixture(scope="module")
def own_server(bundle_folder, tmp_path_factory):
    """A server with `models/` of its own, in which `good` is in use."""
    home = tmp_path_factory.mktemp("home")
    save_network(home / "models", "good")
    save_scenes(home / "models")
    models = str(home / "models")
    with serving(home, bundle_folder, LUNGSEG_MODELS=models, LUNGSEG_CHECKPOINT="good", LUNGSEG_DATA="/") as started:
        yield replace(started, settings=replace(started.settings, models=home / "models", checkpoint="good"))


@pytest.fixture(scope="module")
def case(own_server, tmp_path_factory):
    """A phantom with a mask of the model and one of a reader."""
    folder = tmp_path_factory.mktemp("seeds")
    lesion = write_chest(folder / "chest.nii.gz", "LPS")
    case = add_case(own_server.settings, own_server.database, folder / "chest.nii.gz", "Phantom")
    add_prediction(own_server.settings, own_server.database, case, lesion)
    add_reference(own_server.settings, own_server.database, case, np.roll(lesion, -36, axis=0), folder)
    return case


@pytest.fixture(scope="module")
def runs(own_server):
    """A finished run, and one that goes on."""
    now = datetime.now(UTC)
    done = training_run("done", checkpoint="done", queued_at=now - timedelta(hours=3))
    card = save_network(own_server.settings.runs / done.id, "done", logit=2.0)
    live = training_run(
        "live", state=RunState.RUNNING, queued_at=now, started_at=now, heartbeat_at=now + timedelta(hours=1),
        progress=Progress("training", 1, 30, 600.0),
    )  # fmt: skip
    with own_server.database.begin() as session:
        for run, epochs in ((replace(done, checkpoint_sha256=card.sha256), 30), (live, 3)):
            keep_run(session, run)
            keep_epochs(session, [run.id], epochs)
        keep_scores(session, done.id, [score_of(f"lung_{n:03d}", 0.1 * n) for n in range(6)])
    write_pictures(own_server.settings.runs / live.id / "examples", 3)
    return done, live


def shoot(page, name):
    SCREENSHOTS.mkdir(exist_ok=True)
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / f"security-{name}.png")


def open_page(page, address):
    """Open a page of ours, which comes with its policy."""
    answer = page.goto(address)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_cases_page_keeps_its_policy(chromium, own_server, case):
    with visiting(chromium, own_server.url) as page:
        open_page(page, own_server.url)
        page.locator("button.files:enabled").wait_for()
        page.get_by_text("Phantom").first.wait_for()
        shoot(page, "cases")


def test_viewer_keeps_its_policy(chromium, own_server, case):
    with visiting(chromium, own_server.url) as page:
        open_page(page, own_server.address(case.id))
        page.wait_for_function(HAS_MASKS)
        shoot(page, "viewer")
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as started:
            page.get_by_role("button", name="Film (MP4)").click()
        assert started.value.path().stat().st_size > 0


def test_simpler_viewer_keeps_its_policy(playwright, own_server, case):
    browser = launch(playwright, "--disable-gpu", "--disable-3d-apis")
    with visiting(browser, own_server.url) as page:
        open_page(page, own_server.address(case.id))
        page.locator(".js-plotly-plot").first.wait_for()
        shoot(page, "simpler-viewer")
    browser.close()


def test_data_set_page_keeps_its_policy(chromium, own_server, tmp_path):
    folder = write_data_set(tmp_path / "set", cases=2, unlabelled=1)
    with visiting(chromium, own_server.url) as page:
        open_page(page, f"{own_server.url}/dataset")
        page.locator(".st-key-dataset_folder input").fill(str(folder))
        page.locator(".st-key-dataset_register button").click()
        page.get_by_text("slices without tumour for each slice with tumour").wait_for()
        page.locator(".st-key-dataset_figures .js-plotly-plot").nth(4).wait_for()
        shoot(page, "data-set")


def test_training_page_keeps_its_policy(chromium, own_server, runs):
    with visiting(chromium, own_server.url) as page:
        open_page(page, f"{own_server.url}/training?run={runs[1].id}")
        page.get_by_text("3 of 30").wait_for()
        page.locator(".st-key-training_examples img").nth(2).wait_for()
        page.locator(".st-key-training_curves .js-plotly-plot").first.wait_for()
        shoot(page, "training")


def test_runs_page_keeps_its_policy(chromium, own_server, runs):
    with visiting(chromium, own_server.url) as page:
        open_page(page, f"{own_server.url}/runs?run={runs[0].id}")
        page.locator(".st-key-runs_table canvas").first.wait_for()
        page.get_by_role("button", name="Promote").wait_for()
        page.locator(".js-plotly-plot").first.wait_for()
        shoot(page, "runs")


def test_checkpoint_page_keeps_its_policy(chromium, own_server):
    with visiting(chromium, own_server.url) as page:
        open_page(page, f"{own_server.url}/checkpoint?checkpoint=whole")
        page.locator(".js-plotly-plot").nth(1).wait_for()
        shoot(page, "checkpoint")


FORBIDDEN = """async (elsewhere) => {
  const blocked = new Set();
  document.addEventListener('securitypolicyviolation', (event) => blocked.add(event.effectiveDirective));
  const add = (name, fields) => document.body.append(Object.assign(document.createElement(name), fields));
  add('script', { textContent: 'window.stolen = 1' });
  add('script', { src: `${elsewhere}/a.js` });
  add('img', { src: `${elsewhere}/a.png` });
  add('iframe', { src: '/' });
  add('object', { data: '/favicon.png' });
  add('base', { href: elsewhere });
  await fetch(elsewhere).catch(() => null);
  const pause = () => new Promise((resolve) => { setTimeout(resolve, 500); });
  setTimeout(() => eval('window.stolen = 1'));  // not at once: DevTools' own calls may evaluate
  await pause();
  return [[...blocked], window.stolen === undefined];
}"""


def test_policy_is_enforced(chromium, own_server):
    page = chromium.new_page()
    page.goto(own_server.url)
    page.locator("button.files:enabled").wait_for(timeout=SLOW_MS)
    blocked, is_clean = page.evaluate(FORBIDDEN, "http://127.0.0.1:9")
    page.close()
    expected = {"script-src-elem", "script-src", "img-src", "frame-src", "object-src", "base-uri", "connect-src"}
    assert (expected - set(blocked), is_clean) == (set(), True)


@pytest.fixture(scope="module")
def attacked(playwright):
    """A browser to which the names of attackers are this machine."""
    rules = ",".join(f"MAP {name} 127.0.0.1" for name in (ATTACKER, REBOUND))
    browser = launch(playwright, *SOFTWARE_GL, f"--host-resolver-rules={rules}")
    yield browser
    browser.close()


@pytest.fixture
def elsewhere(attacked, tmp_path):
    """Open a page of another origin, with the content that a test wants."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = attacked.new_page()
        page.set_default_timeout(SLOW_MS)

        def open_page(content):
            (tmp_path / "index.html").write_text(content)
            page.goto(f"http://{ATTACKER}:{server.server_address[1]}/")
            return page

        yield open_page
        page.close()
        server.shutdown()


def test_app_is_not_shown_in_a_frame(elsewhere, own_server):
    page = elsewhere(f'<iframe src="{own_server.url}/" width="900" height="700"></iframe>')
    page.wait_for_timeout(3000)
    (frame,) = page.main_frame.child_frames
    assert frame.locator(APP).count() == 0
    assert "LungSeg" not in frame.evaluate("document.documentElement.outerHTML")
    assert "LungSeg" not in frame.title()
    shoot(page, "framed")


def test_link_from_elsewhere_still_leads_to_the_app(elsewhere, own_server):
    page = elsewhere(f'<a href="{own_server.url}/">LungSeg</a>')
    page.get_by_role("link").click()
    page.locator("button.files:enabled").wait_for()


ASKING = """async ([http, ws]) => {
  const opened = await new Promise((resolve) => {
    const socket = new WebSocket(ws);
    socket.onopen = () => resolve(true);
    socket.onerror = () => resolve(false);
  });
  const loaded = await new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(true);
    image.onerror = () => resolve(false);
    image.src = `${http}/favicon.png`;
  });
  const read = await fetch(`${http}/_stcore/health`).then(() => true, () => false);
  return [opened, loaded, read];
}"""


def test_page_of_another_origin_gets_nothing(elsewhere, own_server):
    place = urlsplit(own_server.url).netloc
    page = elsewhere("<p>attacker</p>")
    opened, loaded, read = page.evaluate(ASKING, [own_server.url, f"ws://{place}/_stcore/stream"])
    assert (opened, loaded, read) == (False, False, False)


def test_name_that_was_bent_to_this_machine_is_refused(attacked, own_server):
    page = attacked.new_page()
    page.set_default_timeout(SLOW_MS)
    port = urlsplit(own_server.url).port
    answer = page.goto(f"http://{REBOUND}:{port}/")
    assert answer.status == 421
    assert "LUNGSEG_ALLOWED_HOSTS" in page.locator("body").inner_text()
    asked = page.evaluate(ASKING, [f"http://{REBOUND}:{port}", f"ws://{REBOUND}:{port}/_stcore/stream"])
    assert asked[:2] == [False, False]
    page.wait_for_timeout(1000)
    assert page.locator(APP).count() == 0
    page.close()
