"""What tests share: an installation of their own, a chest phantom as a file, the real scans where they are at hand."""

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lungseg.config import CHECKOUT, Settings, share_processors
from lungseg.db import Database, open_database
from lungseg.services.installation import Installation
from tests.phantoms import write_chest

share_processors()

SHARED_DATA = CHECKOUT.parent / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Let nothing be skipped in continuous integration because something is missing there.

    Only what a `skipif` declares may be: it asks for another kind of machine (a GPU, a user that is not root).
    """
    report = yield
    if "CI" in os.environ and report.skipped and item.get_closest_marker("skipif") is None:
        report.outcome, report.longrepr = "failed", f"missing in continuous integration: {report.longrepr[2]}"
    return report


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty installation in a folder of its own, with the shipped checkpoints, on the CPU."""
    home = tmp_path / "home"
    home.mkdir()
    database_url = f"sqlite:///{home / 'lungseg.sqlite'}"
    models = CHECKOUT / "models"
    return Settings(home=home, models=models, database_url=database_url, device="cpu", data_roots=(tmp_path,))


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The database of `settings`, which is that of `environment` too."""
    with closing(open_database(settings.database_url)) as opened:
        yield opened


@pytest.fixture
def installation(settings: Settings, database: Database) -> Installation:
    """The installation of `settings`, as the one local user sees it."""
    return Installation(settings, database)


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same settings as `settings`, found in the environment by commands and child processes."""
    for variable in ("PORT", "HOST", "ALLOW_UNAUTHENTICATED", "VIEWER", "CHECKPOINT"):
        monkeypatch.delenv(f"LUNGSEG_{variable}", raising=False)
    monkeypatch.setenv("LUNGSEG_HOME", str(settings.home))
    monkeypatch.setenv("LUNGSEG_MODELS", str(settings.models))
    monkeypatch.setenv("LUNGSEG_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("LUNGSEG_DEVICE", settings.device)
    monkeypatch.setenv("LUNGSEG_DATA", str(settings.data_roots[0]))
    return settings


@pytest.fixture
def lungseg(environment, monkeypatch, capsys):
    """Run a command in this process; returns exit code, stdout and stderr."""

    from lungseg import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lungseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def chest_scan(tmp_path: Path) -> Path:
    """A gzipped chest phantom with one lesion, in LPS order as scanners deliver."""
    path = tmp_path / "chest.nii.gz"
    write_chest(path, "LPS")
    return path


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, with their card, of a small network that calls everything inside the lung field tumour."""
    from tests.networks import save_network

    folder = tmp_path_factory.mktemp("models")
    return folder / f"{save_network(folder).name}.safetensors"


@pytest.fixture
def segmenter(small_checkpoint: Path):
    """The network of the small checkpoint, on the processor."""
    from lungseg.segmentation.segmenter import Segmenter

    return Segmenter.load(str(small_checkpoint), models=small_checkpoint.parent, device="cpu")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real scans (../shared/data) are not at hand")
    return SHARED_DATA


@pytest.fixture(scope="session")
def demo_files():
    """The demo scan and its reference mask, as `lungseg setup` left them."""
    from lungseg.services.demo import DemoFiles

    files = DemoFiles.of(Settings.from_environment())
    if not files.are_there:
        pytest.skip("the demo scan was not prepared (lungseg demo)")
    return files
