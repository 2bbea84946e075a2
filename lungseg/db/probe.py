"""Reads the first bytes of a SQLite file beside the connections that have it open.

SQLite holds POSIX locks on its file, and the kernel drops all locks of a process on a file when the process closes any
descriptor of it (sqlite.org, "How To Corrupt An SQLite Database File", 2.2). So all probes of this process share a
descriptor; the last of them closes it, after its connections.
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
_descriptors: dict[Inode, tuple[int, int]] = {}
"""Descriptor of each file, and the number of probes that use it."""


class Probe:
    """Looks at one database file, and at those that take its place."""

    def __init__(self) -> None:
        self._inodes: set[Inode] = set()

    def shows_sqlite(self, path: Path, inode: Inode) -> bool:
        """Tell whether a file begins as SQLite's do; it may have been emptied or overwritten under its name."""
        with suppress(OSError), _guard:
            if inode not in self._inodes:
                descriptor, count = _descriptors.get(inode) or (_open(path, inode), 0)
                _descriptors[inode] = descriptor, count + 1
                self._inodes.add(inode)
            return os.pread(_descriptors[inode][0], len(MAGIC), 0) == MAGIC
        return False

    def close(self) -> None:
        """Release the descriptors; to be called when all connections of the caller are closed."""
        with _guard:
            for inode in self._inodes:
                descriptor, count = _descriptors.pop(inode)
                if count > 1:
                    _descriptors[inode] = descriptor, count - 1
                else:
                    os.close(descriptor)
            self._inodes.clear()


def _open(path: Path, inode: Inode) -> int:
    """Open a file; raises FileNotFoundError where another one has its name by now, and leaves that open, see above."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    state = os.fstat(descriptor)
    if (state.st_dev, state.st_ino) != inode:
        raise FileNotFoundError(path)
    return descriptor
