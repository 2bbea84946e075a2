"""Files appear whole or not at all; what a killed process leaves is known for what it is, and goes."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap

import pytest

from lungseg.cli.output import write_report
from lungseg.errors import DiskFullError, StorageError
from lungseg.files import atomic
from tests.narrowing import existing

STALLED_WRITER = """
import sys, time
from pathlib import Path
from lungseg.files import atomic
with atomic.replacing(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def stalled(tmp_path):
    """A process in the middle of writing `tmp_path/out/mask.nii.gz`."""
    target = tmp_path / "out" / "mask.nii.gz"
    with subprocess.Popen([sys.executable, "-c", STALLED_WRITER, target], stdout=subprocess.PIPE, text=True) as process:
        assert existing(process.stdout).readline() == "writing\n"
        yield process
        process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_is_replaced_at_the_end_of_the_block_only(tmp_path):
    path = tmp_path / "new" / "a.bin"
    atomic.write_bytes(path, b"old")
    with atomic.replacing(path) as stream:
        stream.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["a.bin"]


def test_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    atomic.write_bytes(path, b"old")
    with pytest.raises(ValueError, match="in the middle"), atomic.replacing(path) as stream:
        stream.write(b"half")
        raise ValueError("in the middle")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, StorageError)]
)
def test_what_the_disk_refuses_is_an_error_of_ours(tmp_path, number, kind):
    with pytest.raises(StorageError) as raised, atomic.replacing(tmp_path / "a.bin"):
        raise OSError(number, os.strerror(number))
    assert type(raised.value) is kind
    assert names(tmp_path) == []


def test_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't be written"):
        atomic.write_bytes(tmp_path / "file" / "a.bin", b"x")


def test_partial_of_a_killed_process_goes_at_the_next_write(stalled, tmp_path):
    folder = tmp_path / "out"
    (partial,) = names(folder)
    assert atomic.OWN_PARTIAL.fullmatch(partial)
    assert atomic.remove_partials(folder) == 0, "it is still being written"
    stalled.send_signal(signal.SIGKILL)
    stalled.wait()
    atomic.write_bytes(folder / "other.bin", b"x")
    assert names(folder) == ["other.bin"]


def test_folder_goes_after_its_block_and_after_a_kill(tmp_path):
    with atomic.passing_folder(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").touch()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert atomic.remove_partials(tmp_path / "out") == 0, "it is in use"
    assert names(tmp_path / "out") == []
    code = """
        import os, signal, sys
        from pathlib import Path
        from lungseg.files.atomic import passing_folder
        with passing_folder(Path(sys.argv[1])) as folder:
            (folder / "a").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "out")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path / "out")) == 1
    assert atomic.remove_partials(tmp_path / "out") == 1
    assert names(tmp_path / "out") == []
    assert atomic.remove_partials(tmp_path / "none") == 0


def test_all_of_a_folder_is_flushed(tmp_path, monkeypatch):
    for name in ("a", "deep/b", "deep/er/c"):
        atomic.write_bytes(tmp_path / "all" / name, b"x")
    flushed = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.add(os.fstat(descriptor).st_ino))
    atomic.flush_all(tmp_path / "all")
    assert flushed == {path.stat().st_ino for path in (tmp_path, tmp_path / "all", *(tmp_path / "all").rglob("*"))}
    with pytest.raises(StorageError, match="can't be written"):
        atomic.flush_all(tmp_path / "none" / "such")


def test_partials_of_others_stay_in_a_folder_that_is_not_ours(tmp_path):
    for name in (".0123456789abcdef.partial", "film.partial"):
        (tmp_path / name).touch()
    atomic.write_bytes(tmp_path / "mask.nii.gz", b"x")
    assert names(tmp_path) == [".0123456789abcdef.partial", "film.partial", "mask.nii.gz"]
    assert atomic.remove_partials(tmp_path) == 2


def test_json_that_no_reader_takes_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report({"dice": float("nan")}, tmp_path / "a.json")
    assert names(tmp_path) == []


def test_home_of_an_earlier_release_is_closed_to_others(tmp_path):
    home = tmp_path / "home"
    (home / "scans").mkdir(parents=True, mode=0o755)
    (home / "scans" / "a.nii").touch(0o644)
    atomic.make_private(home)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.rglob("*"))}
    assert modes == {"home": 0o700, "scans": 0o700, "a.nii": 0o600}
