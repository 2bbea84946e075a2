"""The memory of this machine, or of the container that this process runs in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def total_memory() -> int:
    """Return the memory of this machine in bytes, or the limit of this process's control groups where that is less."""
    return min([psutil.virtual_memory().total, *(limit for _, limit in _memory_limits())])


def free_memory() -> int:
    """Return the memory in bytes that this process can still take without swapping; cached files count as free."""
    in_groups = (limit - _used(group) for group, limit in _memory_limits())
    return max(0, min([psutil.virtual_memory().available, *in_groups]))


def _memory_limits() -> Iterator[tuple[Path, int]]:
    """Yield the control groups (version 1 and 2) that limit the memory of this process, with their limits in bytes."""
    for group in _groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(group / name)
            if limit is not None:
                yield group, limit


def _groups() -> Iterator[Path]:
    """Yield the folders of the control groups that hold this process, up to the root, whether they are there or not."""
    for line in _lines(OWN_GROUPS):
        _, controllers, name = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            root = CONTROL_GROUPS / "memory" if controllers else CONTROL_GROUPS
            group = root / name.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _used(group: Path) -> int:
    """Return the bytes that a control group holds without cached files, which the kernel takes back when needed."""
    total = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
    figures = dict(line.split(maxsplit=1) for line in _lines(group / "memory.stat"))
    prefix = "total_" if "total_inactive_file" in figures else ""  # version 1 counts without its children, too
    return total - sum(int(figures.get(f"{prefix}{name}_file", 0)) for name in ("inactive", "active"))


def _number(path: Path) -> int | None:
    """Read a number; None where there is none, such as "max" for no limit."""
    text = "".join(_lines(path))
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
