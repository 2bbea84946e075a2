"""A look at the first bytes of a SQLite file beside the connections that have it open.

SQLite holds POSIX locks on its file, and the kernel drops all of a process's locks on a file when the process closes
any descriptor of it (sqlite.org, "How To Corrupt An SQLite Database File", 2.2). So a descriptor is shared by all
probes of this process, and closed only when the last of them is, after its connections.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

Inode = tuple[int, int]
"""Device and number of a file."""

MAGIC = b"SQLite format 3\0"

_guard = threading.Lock()
_shared: dict[Inode, tuple[int, int]] = {}
"""Descriptor of each file that is probed, and by how many probes."""


class Probe:
    """Looks at one database file, and at those that take its place."""

    def __init__(self) -> None:
        self._used: set[Inode] = set()

    def shows_sqlite(self, path: Path, inode: Inode) -> bool:
        """Tell whether a file begins as those of SQLite do; it may have been emptied or overwritten under its name."""
        with suppress(OSError), _guard:
            if inode not in self._used:
                descriptor, count = _shared.get(inode) or (_opened(path, inode), 0)
                _shared[inode] = descriptor, count + 1
                self._used.add(inode)
            return os.pread(_shared[inode][0], len(MAGIC), 0) == MAGIC
        return False

    def close(self) -> None:
        """Give the descriptors up; to be called when all connections of the caller are closed."""
        with _guard:
            for inode in self._used:
                descriptor, count = _shared.pop(inode)
                if count > 1:
                    _shared[inode] = descriptor, count - 1
                else:
                    os.close(descriptor)
            self._used.clear()


def _opened(path: Path, inode: Inode) -> int:
    """Open a file; raises FileNotFoundError where another one has its name by now, which stays open, see above."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    state = os.fstat(descriptor)
    if (state.st_dev, state.st_ino) != inode:
        raise FileNotFoundError(path)
    return descriptor
