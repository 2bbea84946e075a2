"""The doctor: every part is examined, and each lack comes with its remedy."""

import json
import os
import sys
from dataclasses import replace

import pytest

from lungseg import cli
from lungseg.services import demo, doctor
from lungseg.services.doctor import State, check_installation

PARTS = tuple(doctor.CHECKS)


@pytest.fixture
def complete(settings, small_checkpoint):
    """An installation that lacks nothing but the viewer bundle and the demo scan."""
    return replace(settings, checkpoint=str(small_checkpoint))


def finding(settings, part):
    return doctor.check_part(part, settings)


def test_every_part_is_examined_and_every_lack_has_a_remedy(complete):
    findings = check_installation(complete)
    assert tuple(found.part for found in findings) == PARTS
    lacks = {found.part for found in findings if found.state is not State.OK}
    assert lacks <= {"viewer", "demo", "disk"}
    assert {"viewer", "demo"} <= lacks
    assert all(found.remedy for found in findings if found.state is not State.OK)
    assert not any(found.remedy for found in findings if found.state is State.OK)
    assert not complete.home.joinpath("lungseg.sqlite").exists(), "the doctor makes no database"


def test_prepared_demo_is_found(complete):
    files = demo.DemoFiles.of(complete)
    complete.demo.mkdir()
    files.scan.touch()
    files.reference.touch()
    assert finding(complete, "demo").state is State.OK


def test_missing_checkpoint_is_named(complete):
    found = finding(replace(complete, checkpoint="none"), "checkpoint")
    assert (found.state, "'none'" in found.found) == (State.MISSING, True)


def test_altered_checkpoint_is_noticed(complete, small_checkpoint, tmp_path):
    for ending in (".safetensors", ".json"):
        (tmp_path / f"all-tumour{ending}").write_bytes(small_checkpoint.with_suffix(ending).read_bytes())
    with (tmp_path / "all-tumour.safetensors").open("ab") as stream:
        stream.write(b"\0")
    found = finding(replace(complete, checkpoint=str(tmp_path / "all-tumour.safetensors")), "checkpoint")
    assert found.state is State.MISSING
    assert found.found.startswith("all-tumour.safetensors has the sha256 ")


def test_part_that_can_not_be_examined_is_a_finding_not_a_crash(complete, monkeypatch):
    monkeypatch.setattr(doctor, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "PROBE_S", 0.2)
    found = check_installation(complete)[PARTS.index("device")]
    assert (found.state, "timed out" in found.found) == (State.MISSING, True)
    assert found.remedy


def test_database_that_can_not_be_used_is_noticed(complete):
    (complete.home / "lungseg.sqlite").write_text("no database, but long enough to be taken for one")
    assert finding(complete, "database").state is State.MISSING


def test_old_and_missing_packages_are_named(complete, monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text("# comment\nnumpy>=99\nno-such-package-here>=1\ntyper>=0.1\n")
    monkeypatch.setattr(doctor, "CHECKOUT", tmp_path)
    found = finding(complete, "packages")
    assert found.state is State.MISSING
    assert "numpy>=99 (found: 2" in found.found
    assert "no-such-package-here>=1 (found: none)" in found.found
    assert "typer" not in found.found


def test_full_disk_is_noticed(complete, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_DISK_GB", 1e9)
    assert finding(complete, "disk").state is State.MISSING
    monkeypatch.setattr(doctor, "LEAST_DISK_GB", 0.0)
    monkeypatch.setattr(doctor, "ENOUGH_DISK_GB", 1e9)
    assert finding(complete, "disk").state is State.WARNING


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_home_without_rights_is_noticed(complete):
    complete.home.chmod(0o500)
    assert finding(complete, "home").state is State.MISSING


@pytest.mark.parametrize(("checkpoint", "code"), [("all-tumour", 0), ("none", 1)])
def test_command_prints_json_and_says_by_its_exit_code_whether_something_is_missing(
    environment, small_checkpoint, monkeypatch, capsys, checkpoint, code
):
    monkeypatch.setenv("LUNGSEG_MODELS", str(small_checkpoint.parent))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", checkpoint)
    monkeypatch.setattr(sys, "argv", ["lungseg", "doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    findings = json.loads(capsys.readouterr().out)
    assert (ended.value.code or 0) == code
    assert tuple(found["part"] for found in findings) == PARTS
    assert set(findings[0]) == {"part", "state", "found", "remedy"}


def test_command_prints_a_table(environment, small_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lungseg", "doctor"])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().out
    assert all(part in printed for part in PARTS)
