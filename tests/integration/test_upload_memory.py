"""Uploads pass through a real server on their way to the disk: its memory stays what it was."""

import http.client

import pytest

from lungseg.services import cases
from tests.benchmarks.uploads import load, write_refused_scan
from tests.browser.conftest import serving
from tests.installations import installation_of
from tests.phantoms import write_chest
from tests.sessions import Session, peak_rss, rss_mb, web_process

MEGABYTES = 60
ROOM_MB = 50
"""What the web process may hold more than before; each upload alone is larger."""


@pytest.fixture
def server(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with serving(home, tmp_path) as started:
        yield started


@pytest.mark.slow
def test_uploads_leave_neither_memory_nor_files_behind(server, tmp_path):
    home = server.settings.home
    scan = write_refused_scan(tmp_path / "noise.nii", MEGABYTES)
    figures = load(server.url, web_process(), home, sessions=3, scans=[scan, scan], at_once=2)
    assert figures.left == 0
    assert figures.peak - figures.before < ROOM_MB
    assert figures.open - figures.before < ROOM_MB
    assert figures.closed - figures.before < ROOM_MB
    assert cases.list_cases(installation_of(server.database)) == ()

    for name, codes in (("one.nii.gz", "LPS"), ("three.nii.gz", "RAS")):
        write_chest(tmp_path / name, codes)
    session = Session(server.url)
    texts = session.drop(
        ("one.nii.gz", tmp_path / "one.nii.gz"), ("two.nii", scan), ("three.nii.gz", tmp_path / "three.nii.gz")
    )
    session.close()
    outcomes = next(text for text in texts if text.startswith('<ul class="lungseg-outcomes"'))
    assert any("<b>one.nii.gz</b>, <b>three.nii.gz</b> taken in. 1 not taken in." in text for text in texts)
    assert outcomes.count("scan.dimensions") == 1
    for summary in cases.list_cases(installation_of(server.database)):
        assert (home / summary.case.scan_path).read_bytes() == (tmp_path / summary.case.name).read_bytes()
    assert list(home.rglob("*.upload")) == []


@pytest.mark.slow
def test_uploaders_of_streamlit_leave_no_memory_behind_either(server, tmp_path):
    scan = write_refused_scan(tmp_path / "noise.nii", MEGABYTES)
    session, process = Session(server.url), web_process()
    session.delete(session.hand_to_streamlit("small.nii", write_refused_scan(tmp_path / "small.nii", 1)))
    before = rss_mb(process)
    with peak_rss(process) as highest:
        addresses = [session.hand_to_streamlit("noise.nii", scan) for _ in range(3)]
        assert len(list(server.settings.home.rglob("*.upload"))) == len(addresses)
        assert rss_mb(process) - before < ROOM_MB
    assert highest[0] - before < ROOM_MB
    for address in addresses:
        assert session.delete(address) == http.client.NO_CONTENT
    session.close()
    assert list(server.settings.home.rglob("*.upload")) == []
