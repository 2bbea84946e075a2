"""The public names, docs/python.md as it is written, and a wheel in an environment of its own."""

import http.client
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import lungseg
from lungseg.config import CHECKOUT, SHIPPED_CHECKPOINT
from tests.phantoms import write_chest
from tests.runs_at_work import wait_for
from tests.web import free_port

EXAMPLES = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs" / "python.md").read_text(encoding="utf-8"), re.S)
SOURCES = (
    *("lungseg", "pages", "models", ".streamlit", "app.py", "setup.py", "pyproject.toml"),
    *("requirements.txt", "requirements-dev.txt", "README.md", "LICENSE"),
)
WHAT_IS_LOADED = "import sys, lungseg; print([name for name in ('numpy', 'torch', 'pydantic') if name in sys.modules])"


def test_every_public_name_is_there():
    assert [name for name in lungseg.__all__ if getattr(lungseg, name, None) is None] == []
    absent = "nothing"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(lungseg, absent)


def test_import_alone_loads_no_library():
    command = [sys.executable, "-c", WHAT_IS_LOADED]
    told = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_documentation_works_as_it_is_written(tmp_path, monkeypatch, capsys):
    write_chest(tmp_path / "scan.nii.gz")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) == 4
    printed = []
    for example in EXAMPLES:
        exec(compile(example, "docs/python.md", "exec"), {})  # noqa: S102 - our own documentation
        printed.append(capsys.readouterr().out)
    assert (tmp_path / "mask.nii.gz").is_file()
    assert printed[2].endswith(" ml\n")
    assert printed[3].startswith("scan.")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, Path]:
    """A wheel of the checkout in an empty environment: its Python, and where its packages lie.

    The libraries that it needs are those of this environment; the package itself comes from the wheel alone.
    """
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"  # a build leaves files behind, which would go into the next wheel
    for name in SOURCES:
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copyfile
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        copy(CHECKOUT / name, sources / name)
    build = [sys.executable, "-m", "pip", "wheel", str(sources), "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(folder)], check=True, capture_output=True, cwd=folder)
    (wheel,) = folder.glob("lungseg-*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, cwd=folder)
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    (packages / "libraries.pth").write_text(_libraries(folder / "libraries" / "site-packages"), encoding="utf-8")
    return python, packages


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, for a user who has set nothing."""
    for name in [name for name in os.environ if name.startswith(("LUNGSEG_", "PYTHON"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user" / "data"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def run(command, folder) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_segments_from_anywhere(installed, elsewhere):
    python, packages = installed
    write_chest(elsewhere / "scan.nii.gz")
    assert run([python, "-c", "import lungseg; print(lungseg.__file__)"], elsewhere).startswith(str(packages))
    checkpoint = ["--checkpoint", SHIPPED_CHECKPOINT]
    run([python, "-m", "lungseg", "segment", "scan.nii.gz", "-o", "mask.nii.gz", *checkpoint], elsewhere)
    assert (elsewhere / "mask.nii.gz").is_file()


def test_wheel_serves_from_anywhere(installed, elsewhere, tmp_path, monkeypatch):
    python, _ = installed
    port = free_port()
    monkeypatch.setenv("LUNGSEG_PORT", str(port))
    with subprocess.Popen([python, "-m", "lungseg", "serve"], cwd=elsewhere, stdout=subprocess.PIPE) as server:
        try:
            wait_for(lambda: answers(port, "/_stcore/health"))
            assert answers(port, "/cases")
            assert (tmp_path / "user" / "data" / "lungseg" / "lungseg.sqlite").is_file()
        finally:
            server.terminate()
    assert not list(elsewhere.iterdir())


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _libraries(folder: Path) -> str:
    """Link the libraries of this environment, but not the editable install that leads to the checkout."""
    own = Path(next(path for path in sys.path if path.endswith("site-packages")))
    folder.mkdir(parents=True)
    for entry in own.iterdir():
        if "lungseg" not in entry.name and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return f"{folder}\n"
