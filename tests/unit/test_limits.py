"""Settings of an installation; limits follow the machine and the control groups that this process is in."""

from dataclasses import fields
from types import SimpleNamespace

import psutil
import pytest

from lungseg import machine as own_machine
from lungseg.config import GIGABYTE, Limits, Settings
from lungseg.errors import SetupError
from lungseg.machine import free_memory, total_memory
from lungseg.pacs_settings import PacsSettings

MEGABYTE = 1024**2


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 8 GB, 5 of them free, without control groups as long as none are written."""
    (tmp_path / "own").write_text("")
    monkeypatch.setattr(own_machine, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(own_machine, "OWN_GROUPS", tmp_path / "own")
    memory = SimpleNamespace(total=8 * GIGABYTE, available=5 * GIGABYTE)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    return tmp_path


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")


def test_machine_of_8_gb_survives_the_largest_scan(machine):
    limits = Limits()
    assert limits.volume_bytes == 2 * GIGABYTE
    assert limits.memory_bytes == 4 * GIGABYTE
    assert free_memory() == 5 * GIGABYTE


def test_larger_machine_accepts_no_more_than_a_scan_needs(machine, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=256 * GIGABYTE))
    assert Limits() == Limits(volume_bytes=2 * GIGABYTE, memory_bytes=5 * GIGABYTE)


def test_container_with_a_limit_of_its_own(machine):
    (machine / "own").write_text("0::/\n")
    group(machine / "groups", memory_max=2 * GIGABYTE, memory_current=1800 * MEGABYTE)
    (machine / "groups" / "memory.stat").write_text(
        f"anon {500 * MEGABYTE}\ninactive_file {900 * MEGABYTE}\nactive_file {100 * MEGABYTE}\n"
    )
    assert total_memory() == 2 * GIGABYTE
    assert Limits().volume_bytes == GIGABYTE // 2
    assert free_memory() == (2048 - 1800 + 1000) * MEGABYTE


def test_limit_of_a_group_further_out(machine):
    (machine / "own").write_text("0::/system.slice/lungseg.service\n")
    group(machine / "groups" / "system.slice" / "lungseg.service", memory_max="max")
    group(machine / "groups" / "system.slice", memory_max=3 * GIGABYTE, memory_current=4 * GIGABYTE)
    assert total_memory() == 3 * GIGABYTE
    assert free_memory() == 0


def test_version_1(machine):
    (machine / "own").write_text("5:cpu:/other\n4:memory:/docker/abc\n0::/docker/abc\n")
    root = machine / "groups" / "memory"
    group(root, memory_limit_in_bytes=2**63 - 4096)
    group(root / "docker" / "abc", memory_limit_in_bytes=4 * GIGABYTE, memory_usage_in_bytes=3 * GIGABYTE)
    (root / "docker" / "abc" / "memory.stat").write_text(
        f"inactive_file 7\ntotal_inactive_file {GIGABYTE}\ntotal_active_file 0\n"
    )
    assert total_memory() == 4 * GIGABYTE
    assert free_memory() == 2 * GIGABYTE


def test_system_without_control_groups(machine):
    (machine / "own").unlink()
    assert total_memory() == 8 * GIGABYTE


def test_a_child_process_reads_every_setting_of_its_parent(monkeypatch, tmp_path):
    values = {
        "home": tmp_path / "h", "models": tmp_path / "m", "database_url": "sqlite:///x.sqlite", "host": "10.1.2.3",
        "port": 81, "device": "cpu", "allow_unauthenticated": True, "allowed_hosts": ("a.example", "b.example"),
        "viewer_folder": tmp_path / "v", "checkpoint": "mine", "identity": "keep",
        "data_roots": (tmp_path / "a", tmp_path / "b"),
        "limits": Limits(file_bytes=1, volume_bytes=2, memory_bytes=3, axis_voxels=4),
        "pacs": PacsSettings(
            "https://p/dicom-web", tmp_path / "l", tmp_path / "t", tmp_path / "c", 7,
            ("a=B@h:104", "b=http://h/x"), "b",
            "ME", "10.0.0.1", 104, ("PACS", "CT1"), 9,
        ),
    }  # fmt: skip
    assert set(values) == {field.name for field in fields(Settings)}
    parent, default = Settings(**values), Settings()
    assert not [name for name in values if getattr(parent, name) == getattr(default, name)]
    for name, value in parent.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == parent


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("LUNGSEG_PORT", "http", "LUNGSEG_PORT is 'http'. Set it to a number from 1 to 65535."),
        ("LUNGSEG_PORT", "65536", "LUNGSEG_PORT is 65536. Set it to a number from 1 to 65535."),
        ("LUNGSEG_DEVICE", "tpu", "LUNGSEG_DEVICE is 'tpu'. Set it to auto, cpu or cuda."),
        ("LUNGSEG_IDENTITY", "yes", "LUNGSEG_IDENTITY is 'yes'. Set it to remove or keep."),
        ("LUNGSEG_MAX_FILE_BYTES", "2 GB", "LUNGSEG_MAX_FILE_BYTES is '2 GB'. Set it to a number of bytes."),
        ("LUNGSEG_MAX_AXIS_VOXELS", "0", "LUNGSEG_MAX_AXIS_VOXELS is '0'. Set it to a number of voxels."),
    ],
)
def test_value_that_can_not_be_used_is_refused_with_a_sentence(monkeypatch, variable, value, sentence):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SetupError) as caught:
        Settings.from_environment()
    assert str(caught.value) == sentence
