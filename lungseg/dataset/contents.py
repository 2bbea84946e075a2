"""By what it is told whether data are the same: hashes of contents, which a glance at the file system spares mostly."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lungseg.decoding import Whole
from lungseg.errors import DataChangedError

SHORT = 8
"""Hexadecimal digits of a fingerprint that are shown."""
MOST_NAMED = 5
GONE, NEW = "gone", "new"


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read.

    Attributes:
        size: in bytes.
        changed_ns: time of its last change, which copying tools set back (`cp -p`, `rsync -t`).
        noted_ns: time at which the file system last noted anything of it, which nobody sets; None in what releases up
            to 0.1 wrote, as the two below.
        inode: its number in the file system.
        sha256: of its bytes.
    """

    size: Whole
    changed_ns: int
    noted_ns: int | None = None
    inode: int | None = None
    sha256: str | None = None

    @classmethod
    def seen(cls, file: Path) -> FileState:
        """Look at a file without reading it; raises OSError."""
        state = file.stat()
        return cls(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)

    @classmethod
    def read(cls, file: Path) -> FileState:
        """Look at a file and hash it; raises OSError.

        Raises:
            DataChangedError: it changed meanwhile.
        """
        before = cls.seen(file)
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if cls.seen(file) != before:
            raise changed_meanwhile(file)
        return cls(before.size, before.changed_ns, before.noted_ns, before.inode, digest)

    def is_seen_at(self, file: Path) -> bool:
        """Tell whether the file system says that a file is this one, unchanged; nothing is read."""
        try:
            seen = FileState.seen(file)
        except OSError:
            return False
        ours = (self.size, self.changed_ns, self.noted_ns, self.inode)
        return self.sha256 is not None and ours == (seen.size, seen.changed_ns, seen.noted_ns, seen.inode)

    def is_at(self, file: Path) -> bool:
        """Tell whether a file still has this content; it is read where the file system leaves a doubt."""
        if self.is_seen_at(file):
            return True
        try:
            return self.sha256 is not None and FileState.read(file).sha256 == self.sha256
        except (OSError, DataChangedError):
            return False


def changed_meanwhile(file: Path) -> DataChangedError:
    """Say that a file changed while it was read."""
    return DataChangedError(f"{file.name} changed while it was read.", "Wait until it is written, then start again.")


def fingerprint(lines: Iterable[str]) -> str:
    """Return the sha256 of lines, in whatever order they come."""
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="backslashreplace")).hexdigest()


def short(fingerprint: str) -> str:
    """Return what is shown of a fingerprint."""
    return fingerprint[:SHORT]


def relative(file: Path, root: Path) -> str:
    """Name a file as seen from its data set."""
    return os.path.relpath(file, root)


Record = dict[str, dict[str, str]]
"""Of each case what it consists of: the sha256 of scan and mask, its patient, what counts as tumour."""


def changes_between(before: Record, now: Record) -> tuple[str, ...]:
    """Say which cases are not what they were, and in what: `lung_001: mask`, `lung_002: gone`."""
    said = []
    for case in sorted({*before, *now}):
        if case not in now or case not in before:
            said.append(f"{case}: {GONE if case in before else NEW}")
            continue
        parts = [part for part in sorted({*before[case], *now[case]}) if before[case].get(part) != now[case].get(part)]
        if parts:
            said.append(f"{case}: {', '.join(parts)}")
    return tuple(said)


def listed(changes: tuple[str, ...]) -> str:
    """Name changes in a sentence, the first few."""
    more = f" and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
    return "; ".join(changes[:MOST_NAMED]) + more
