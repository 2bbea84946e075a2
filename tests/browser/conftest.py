"""A real server, a real worker and a real Chromium with a software renderer."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from lungseg.config import CHECKOUT, Settings
from lungseg.db import Database, open_database
from lungseg.errors import SetupError
from lungseg.services import viewer_bundle
from tests.browser.looking import HAS_MASKS
from tests.phantoms import write_chest
from tests.seeds import add_case, add_prediction, add_reference
from tests.web import free_port

WINDOW = {"width": 1440, "height": 900}
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
READY_S = 60
SLOW_MS = 60_000
SCREENSHOTS = CHECKOUT / "test-results"
NOTE_VIOLATIONS = """document.addEventListener('securitypolicyviolation', (event) => {
  console.error(`Content Security Policy: ${event.effectiveDirective} blocks ${event.blockedURI}`);
});"""
SHOWN_VIEWER = """Object.defineProperty(window, 'shownViewer', { get: () => {
  const hosts = [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')];
  return hosts.map((host) => host.shadowRoot?.querySelector('.viewer')?.lungsegViewer).find(Boolean);
} });"""
"""The viewer on screen, as its element names it for whoever looks on."""
AS_OPENED = """() => {
  const viewer = window.shownViewer, { state } = viewer;
  state.set({ window: [-600, 1500], opacity: 0.35, isContour: false, visible: { model: true, reference: true },
    zoom: 1, pan: [0, 0, 0] });
  Object.assign(state, { lesion: null, index: state.firstIndex() });
  viewer.pointer.forget();
  viewer.picture.stage.focus();
  viewer.enlarge(state.enlarged);
}"""
WAITING = """async ([argument, timeout]) => {
  const condition = CONDITION;
  const deadline = performance.now() + timeout;
  while (!await condition(argument)) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${condition}`);
    await new Promise((resolve) => { setTimeout(resolve, 10); });
  }
}"""


@dataclass(frozen=True)
class Server:
    url: str
    settings: Settings
    database: Database

    def address(self, case_id: str) -> str:
        return f"{self.url}/viewer?case={case_id}"


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory) -> Path:
    """The folder of the viewer's bundle: as `lungseg setup` left it, else fetched now."""
    settings = Settings.from_environment()
    if not viewer_bundle.status(settings).is_ready:
        settings = replace(settings, viewer_folder=tmp_path_factory.mktemp("viewer"))
        try:
            viewer_bundle.install(settings)
        except SetupError as error:
            pytest.skip(f"the viewer bundle is not at hand: {error}")
    return settings.viewer


@contextmanager
def serving(home: Path, bundle_folder: Path, **variables: str):
    """Run `streamlit run app.py` on a free port, with a worker that ends with it."""
    port = free_port()
    database_url = f"sqlite:///{home / 'lungseg.sqlite'}"
    settings = Settings(
        home=home,
        models=CHECKOUT / "models",
        database_url=database_url,
        viewer_folder=bundle_folder,
        data_roots=(home.parent,),
    )
    environment = settings.to_environment() | {"LUNGSEG_VIEWER": str(bundle_folder)} | variables
    command = [sys.executable, "-m", "streamlit", "run", str(CHECKOUT / "app.py"), f"--server.port={port}"]
    with (home / "web.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    database = open_database(database_url)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield Server(f"http://127.0.0.1:{port}", settings, database)
    finally:
        database.close()
        stop(process.pid)
        process.wait()


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{url}/_stcore/health", timeout=1):
            return
        time.sleep(0.1)
    pytest.fail("the server did not answer in time")


def stop(pid: int) -> None:
    """End a process and those that it started."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(family, timeout=10)[1]:
            process.kill()


@pytest.fixture(scope="session")
def server(bundle_folder, small_checkpoint, tmp_path_factory):
    """A server whose checkpoint calls everything inside the lungs tumour: quick, and sure to find something."""
    with serving(tmp_path_factory.mktemp("home"), bundle_folder, LUNGSEG_CHECKPOINT=str(small_checkpoint)) as started:
        yield started


@pytest.fixture(scope="session")
def playwright():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as started:
        yield started


def launch(playwright, *flags: str):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium")
    arguments = [*flags, *(["--no-sandbox"] if os.getuid() == 0 else [])]
    return playwright.chromium.launch(executable_path=chromium, args=arguments)


@pytest.fixture(scope="session")
def chromium(playwright):
    browser = launch(playwright, *SOFTWARE_GL)
    yield browser
    browser.close()


@contextmanager
def visiting(browser, url: str, **context):
    """Open a window; at its end no script of it may have failed, and nothing may have been asked of other hosts.

    Nor may anything have been blocked by the policy for its content. `context` is Playwright's, for a window of another
    kind.
    """
    page = browser.new_page(**{"viewport": WINDOW} | context)
    page.set_default_timeout(SLOW_MS)
    page.wait_for_function = partial(wait_for_function, page)
    page.add_init_script(NOTE_VIOLATIONS + SHOWN_VIEWER)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(f"script: {error}"))
    page.on("console", lambda message: failures.extend(complaint(message.text)))
    page.on("request", lambda request: failures.extend(foreign(request.url, url)))
    yield page
    page.close()
    assert failures == []


def wait_for_function(page, condition: str, *, arg=None, timeout: int = SLOW_MS) -> None:
    """Wait as Playwright does, which has the page make code of a text for it: the page's policy forbids that."""
    source = condition if "=>" in condition else f"() => ({condition})"
    page.evaluate(WAITING.replace("CONDITION", source), [arg, timeout])


def complaint(text: str) -> list[str]:
    """Return what the console says of a policy, in a list; empty for anything else."""
    return [text] if "content security policy" in text.lower() or "permissions policy" in text.lower() else []


def foreign(address: str, url: str) -> list[str]:
    """Name an address that lies beyond the server, in a list; empty for its own."""
    own = (url, url.replace("http", "ws", 1), "blob:", "data:")
    return [] if address.startswith(own) else [f"foreign: {address}"]


@pytest.fixture
def page(chromium, server):
    with visiting(chromium, server.url) as opened:
        yield opened


@pytest.fixture(scope="session")
def phantom_case(server, small_checkpoint, tmp_path_factory):
    """A phantom with a lesion in the right lung as the model's mask, and one in the left lung as reference."""
    folder = tmp_path_factory.mktemp("phantom")
    settings = replace(server.settings, checkpoint=str(small_checkpoint))
    lesion = write_chest(folder / "chest.nii.gz", "LPS")
    case = add_case(settings, server.database, folder / "chest.nii.gz", "Phantom")
    add_prediction(settings, server.database, case, lesion)
    add_reference(settings, server.database, case, np.roll(lesion, -36, axis=0), folder)
    return case


@pytest.fixture(scope="module")
def opened_viewer(chromium, server, phantom_case):
    with visiting(chromium, server.url) as page:
        page.goto(server.address(phantom_case.id))
        page.wait_for_function(HAS_MASKS)
        yield page


@pytest.fixture
def viewer(opened_viewer):
    """The viewer as it opens, on a page that the tests of a module share."""
    opened_viewer.mouse.move(700, 20)
    opened_viewer.evaluate(AS_OPENED)
    return opened_viewer
