"""Whether data are the same: by hashes of their contents, which mostly need not be computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lungseg.decoding import Whole
from lungseg.errors import DataChangedError


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read.

    Attributes:
        size: in bytes.
        changed_ns: time of its last change, which copying tools set back (`cp -p`, `rsync -t`).
        noted_ns: time of the last change of its inode, which no tool sets; None, as the two below, in what releases up
            to 0.1 wrote.
        inode: its number in the file system.
        sha256: of its bytes.
    """

    size: Whole
    changed_ns: int
    noted_ns: int | None = None
    inode: int | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, file: Path) -> FileState:
        """Return what the file system says of a file, which is not read; raises OSError."""
        state = file.stat()
        return cls(state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)

    @classmethod
    def read(cls, file: Path) -> FileState:
        """Return what the file system says of a file, and its hash; raises OSError.

        Raises:
            DataChangedError: it changed meanwhile.
        """
        before = cls.of(file)
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if cls.of(file) != before:
            raise changed_meanwhile(file)
        return replace(before, sha256=digest)

    def is_unchanged(self, file: Path) -> bool:
        """Tell whether the file system says that a file is this one, unchanged; nothing is read."""
        try:
            now = FileState.of(file)
        except OSError:
            return False
        ours = (self.size, self.changed_ns, self.noted_ns, self.inode)
        return self.sha256 is not None and ours == (now.size, now.changed_ns, now.noted_ns, now.inode)

    def matches(self, file: Path) -> bool:
        """Tell whether a file still has this content; it is read where the file system leaves a doubt."""
        try:
            return self.is_unchanged(file) or (self.sha256 is not None and FileState.read(file).sha256 == self.sha256)
        except (OSError, DataChangedError):
            return False


def changed_meanwhile(file: Path) -> DataChangedError:
    """Make the error of a file that changed while it was read."""
    return DataChangedError(f"{file.name} changed while it was read.", "Wait until it is written, then start again.")


def fingerprint(lines: Iterable[str]) -> str:
    """Return the sha256 of lines, in whatever order they come."""
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="backslashreplace")).hexdigest()


Record = dict[str, dict[str, str]]
"""What each case consists of: the sha256 of scan and mask, its patient, what counts as tumour."""


def changes_between(before: Record, now: Record) -> tuple[str, ...]:
    """Name the cases that changed and their parts that differ: `lung_001: mask`, `lung_002: gone`, `lung_003: new`."""
    changes = []
    for case in sorted({*before, *now}):
        if case not in now or case not in before:
            changes.append(f"{case}: {'gone' if case in before else 'new'}")
            continue
        parts = [part for part in sorted({*before[case], *now[case]}) if before[case].get(part) != now[case].get(part)]
        if parts:
            changes.append(f"{case}: {', '.join(parts)}")
    return tuple(changes)


def first_few(texts: Sequence[str], most: int = 5, separator: str = "; ") -> str:
    """Join the first of several texts, and say how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more
