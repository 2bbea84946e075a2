"""Unpacking what was handed in: files, folders, zip and tar archives, gzipped files; nothing in them is believed.

Everything is written under names of ours, and counted while it is written. A member that can't be taken costs itself
alone and is named; what only somebody makes who wants to fill the disk ends the whole.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lungseg.config import Limits
from lungseg.errors import (
    ArchiveError,
    DamagedArchiveError,
    ExpandedBytesError,
    ExpansionError,
    MemberBytesError,
    NestedArchiveError,
    TooManyFilesError,
    UnpackTimeError,
)
from lungseg.files.atomic import PRIVATE_FOLDER, disk_errors
from lungseg.intake.archives import Opener, opener_of
from lungseg.intake.budget import Budget
from lungseg.intake.members import Archive, ArchiveMember, MemberKind
from lungseg.intake.pairs import HEADERS, link_or_copy, pairs_among
from lungseg.scans.reader import Advance, is_left_out
from lungseg.wording import counted

OF_SYSTEMS = "left by an operating system"
EMPTY = "an empty file"
LOST = "lost in an archive"
MOST_REASONS = 20
"""Different ones that are kept apart; an archive can give each member one of its own."""
ENDING = (TooManyFilesError, ExpandedBytesError, ExpansionError, UnpackTimeError)
"""Errors that end the whole, wherever they come from."""


@dataclass(frozen=True, slots=True)
class LostMember:
    """A file that could not be taken out of its archive.

    Attributes:
        name: as its archive has it; it may tell of the patient.
        error: why.
    """

    name: str
    error: ArchiveError


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was handed in, unpacked.

    Attributes:
        files: in the folder that was named; a header stands for the file beside it that holds its voxels.
        ignored: number of files that were not taken, by what they are.
        lost: files that should have been taken; they are counted in `ignored`, too, with the reason.
        names: under which `files` were handed in, with their folders; they may tell of the patient.
    """

    files: tuple[Path, ...]
    ignored: dict[str, int]
    lost: tuple[LostMember, ...]
    names: Mapping[Path, str]


def unpack(
    sources: Sequence[Path],
    target: Path,
    *,
    limits: Limits,
    names: Mapping[Path, str] | None = None,
    on_progress: Advance | None = None,
) -> Unpacked:
    """Unpack files, folders and archives into a folder.

    Plain files are linked, or copied where that can't be; they are `000001`, `000002` ..., as the members of archives
    are. A header with its voxels is a folder of that kind. Archives may lie in others down to `limits.archive_depth`.

    Args:
        sources: what was handed in; it stays.
        target: folder to make; after an error what is in it is the caller's to remove.
        limits: of files.
        names: under which files were handed in, where their own names don't tell; voxels are found beside their header
            by them, and nothing else is.
        on_progress: called with the number of bytes of the sources that were looked at, and of all.

    Raises:
        ArchiveError: an archive that was handed in can't be unpacked, none of its members can, or a limit is passed.
        StorageError: the disk is full, the folder can't be written to, or a source can't be read.
    """
    with disk_errors("The folder of what is unpacked"):
        target.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        ignored: Counter[str] = Counter()
        entries = [
            entry
            for source in sources
            for entry in _entries_of(source, (names or {}).get(source, source.name), ignored)
        ]
        budget = Budget(limits, sum(entry.path.stat().st_size for entry in entries), on_progress)
        return _Unpacking(target, budget, ignored).run(entries)


def unpacked_files(target: Path) -> tuple[Path, ...]:
    """Return the files of a folder that `unpack` has filled, as it returned them; none where there is no such folder.

    Which of them was handed in under what name is not known any more.
    """
    entries = sorted(target.iterdir()) if target.is_dir() else ()
    headers = {entry: [entry / name for name in HEADERS if (entry / name).is_file()] for entry in entries}
    return tuple(path for entry in entries for path in (headers[entry] if entry.is_dir() else [entry]))


def is_archive(path: Path) -> bool:
    """Tell whether a file is one that `unpack` unpacks."""
    return opener_of(path) is not None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file on the disk: one of a source, or one that was written here."""

    path: Path
    name: str
    is_ours: bool


def _entries_of(source: Path, name: str, ignored: Counter[str]) -> Iterator[_Entry]:
    """Yield the files of a source; no link is followed but the source itself."""
    if not source.is_dir():
        yield _Entry(source, name, is_ours=False)
        return
    for parent, folders, inner in os.walk(source):
        folders.sort()
        for path in (Path(parent, part) for part in sorted(inner)):
            state, own = path.lstat(), path.relative_to(source).as_posix()
            if _is_wanted(own, _kind_of(state.st_mode), state.st_size, ignored):
                yield _Entry(path, own, is_ours=False)


def _kind_of(mode: int) -> MemberKind:
    if stat.S_ISREG(mode):
        return MemberKind.FILE
    return MemberKind.LINK if stat.S_ISLNK(mode) else MemberKind.DEVICE


def _is_wanted(name: str, kind: MemberKind, size: int | None, ignored: Counter[str]) -> bool:
    """Tell whether to take a file; counts what is not taken."""
    if kind is MemberKind.FOLDER:
        return False
    if any(is_left_out(part) for part in PurePosixPath(name.replace("\\", "/")).parts if part.strip(".")):
        ignored[OF_SYSTEMS] += 1
    elif kind is not MemberKind.FILE:
        ignored[kind.value] += 1
    elif size == 0:
        ignored[EMPTY] += 1
    else:
        return True
    return False


@dataclass(slots=True, eq=False)
class _Unpacking:
    """One call of `unpack`."""

    target: Path
    budget: Budget
    ignored: Counter[str]
    files: dict[Path, str] = field(default_factory=dict)
    lost: list[LostMember] = field(default_factory=list)
    number: int = 0

    def run(self, entries: Sequence[_Entry]) -> Unpacked:
        for _ in entries:
            self.budget.add_file()
        self._settle(entries, 0)
        if not self.files and self.lost:
            raise self.lost[0].error
        return Unpacked(tuple(self.files), dict(self.ignored), tuple(self.lost), self.files)

    def _settle(self, entries: Sequence[_Entry], depth: int) -> None:
        """Join headers with their voxels, unpack what is packed, and take the rest as it is.

        `depth` is the number of archives that the entries came out of.
        """
        pairs = pairs_among([(entry.path, entry.name) for entry in entries])
        parts = {path for pair in pairs.values() for path in (pair.header, pair.voxels)}
        for entry in entries:
            if depth == 0:
                self.budget.begin(entry.path.stat().st_size)
            if entry.path in pairs:
                self.files[pairs[entry.path].write(self._next())] = entry.name
            elif entry.path not in parts:
                self._take(entry, depth)
            if depth == 0:
                self.budget.end()
        for entry in entries:
            if entry.is_ours and entry.path in parts:
                entry.path.unlink()

    def _take(self, entry: _Entry, depth: int) -> None:
        """Unpack an archive, or take any other file as it is."""
        opener = opener_of(entry.path)
        if opener:
            self._expand(entry, opener, depth)
        elif entry.is_ours:
            self.files[entry.path] = entry.name
        else:
            path = self._next()
            link_or_copy(entry.path, path)
            self.files[path] = entry.name

    def _expand(self, entry: _Entry, opener: Opener, depth: int) -> None:
        """Unpack an archive; one that lies in another and can't be unpacked costs itself alone."""
        limits = self.budget.limits
        try:
            if depth >= limits.archive_depth:
                raise NestedArchiveError(
                    f"{counted(depth + 1, 'archive')} lie one in the other.", "Unpack the innermost ones yourself."
                )
            with opener(entry.path, limits.files, self.budget.spend) as archive:
                inner = list(self._written(archive, entry.name, depth))
        except ArchiveError as error:
            if depth == 0 or isinstance(error, ENDING):
                raise
            self._lose(entry.name, error)
        else:
            self._settle(inner, depth + 1)
        if entry.is_ours:
            entry.path.unlink()

    def _written(self, archive: Archive, name: str, depth: int) -> Iterator[_Entry]:
        """Write the members of an archive to the disk, one after the other; yields them."""
        for member in archive.members():
            self.budget.check_time()
            if member.kind is MemberKind.SPARSE:
                self.budget.add_file()
                self._lose(member.name, _with_holes())
                continue
            if not _is_wanted(member.name, member.kind, member.size, self.ignored):
                continue
            self.budget.add_file()
            path, own = self._next(), member.name or name.removesuffix(".gz")
            try:
                self._write(path, member, archive, depth)
            except ArchiveError as error:
                path.unlink(missing_ok=True)
                if isinstance(error, ENDING) or (archive.is_sequential and not isinstance(error, MemberBytesError)):
                    raise
                self._lose(own, error)
            else:
                yield _Entry(path, own, is_ours=True)

    def _write(self, path: Path, member: ArchiveMember, archive: Archive, depth: int) -> None:
        size = member.size or 0
        self._check_length(size)
        with path.open("xb") as stream:
            written = 0
            for piece in member.pieces():
                written += len(piece)
                self._check_length(written)
                stream.write(piece)
                if depth == 0:
                    self.budget.report(archive.position())

    def _check_length(self, size: int) -> None:
        most = self.budget.limits.file_bytes
        if size > most:
            raise MemberBytesError(
                f"A member has more than {most:,} bytes.", "Hand in the scan alone, or crop it to the chest."
            )

    def _lose(self, name: str, error: ArchiveError) -> None:
        self.lost.append(LostMember(name, error))
        reason = f"{LOST} ({error.found.rstrip('.')})"
        is_one_too_many = reason not in self.ignored and len(self.ignored) >= MOST_REASONS
        self.ignored[LOST if is_one_too_many else reason] += 1

    def _next(self) -> Path:
        """Return a path in the folder that nothing has yet."""
        self.number += 1
        return self.target / f"{self.number:06}"


def _with_holes() -> ArchiveError:
    return DamagedArchiveError(
        "A file is packed without its zeros (tar --sparse).", "Pack it again without that option."
    )
