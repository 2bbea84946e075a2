"""Limits follow the machine and the control groups that this process is in."""

from types import SimpleNamespace

import pytest

from lungseg import config
from lungseg.config import GIGABYTE, Limits, free_memory, total_memory

MEGABYTE = 1024**2


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 8 GB, 5 of them free, without control groups as long as none are written."""
    (tmp_path / "own").write_text("")
    monkeypatch.setattr(config, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(config, "OWN_GROUPS", tmp_path / "own")
    memory = SimpleNamespace(total=8 * GIGABYTE, available=5 * GIGABYTE)
    monkeypatch.setattr(config.psutil, "virtual_memory", lambda: memory)
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
    monkeypatch.setattr(config.psutil, "virtual_memory", lambda: SimpleNamespace(total=256 * GIGABYTE))
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
