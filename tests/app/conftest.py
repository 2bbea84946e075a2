"""Pages run without a browser; every test has an installation and a session of its own."""

import gzip
import hashlib
import secrets
from collections.abc import Callable, Iterator

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from lungseg.config import CHECKOUT, Settings
from lungseg.services import viewer_bundle
from lungseg.ui import upload
from lungseg.ui.drop_zone import Arrivals
from tests.uploads import Browser
from tests.web import start_no_worker

ENTRY = CHECKOUT / "lungseg" / "ui" / "entry.py"
VIEWER_PAGE = "../../pages/viewer.py"


@pytest.fixture
def bundle(environment: Settings, monkeypatch):
    """A viewer bundle, as far as the server can tell."""
    script = b"export class Niivue {}"
    monkeypatch.setattr(viewer_bundle, "SHA256", hashlib.sha256(script).hexdigest())
    path = viewer_bundle.status(environment).path
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(script))


@pytest.fixture
def models(environment: Settings, tmp_path, monkeypatch):
    """A folder of checkpoints; `whole` segments where it is there."""
    monkeypatch.setenv("LUNGSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", "whole")
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def open_page(environment: Settings, monkeypatch) -> Iterator[Callable[..., AppTest]]:
    """Open the list of cases, or the viewer of a case; no worker is started."""
    start_no_worker(monkeypatch)
    st.cache_resource.clear()
    st.cache_data.clear()

    def run(*, viewer: bool = False, case: str | None = None) -> AppTest:
        page = AppTest.from_file(str(ENTRY), default_timeout=30).run()
        if viewer:
            if case is not None:
                page.query_params["case"] = case
            page.switch_page(VIEWER_PAGE).run()
        return page

    yield run
    st.cache_resource.clear()


class Zone:
    """The drop zone as its script leaves it to the page: uploads that have arrived, by their groups."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.arrivals = Arrivals("", ())
        self.taken: set[str] = set()

    def area(self, _settings, taken) -> Arrivals:
        self.taken = set(taken)
        return self.arrivals

    def drop(self, page: AppTest, *files: tuple[str, bytes]) -> AppTest:
        """Upload files, each a group of its own, and let the page hear of them."""
        groups = tuple(secrets.token_hex(16) for _ in files)
        browser = Browser(self.settings)
        for place, ((name, content), group) in enumerate(zip(files, groups, strict=True)):
            browser.whole(content, name, group=group, place=str(place))
        return self.report(page, *groups)

    def report(self, page: AppTest, *groups: str) -> AppTest:
        self.arrivals = Arrivals(secrets.token_hex(4), groups)
        return page.run()


@pytest.fixture
def zone(environment: Settings, monkeypatch) -> Zone:
    """A drop zone in place of that whose script no page without a browser runs."""
    made = Zone(environment)
    monkeypatch.setattr(upload, "drop_area", made.area)
    return made
