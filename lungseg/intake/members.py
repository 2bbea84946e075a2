"""What every kind of archive provides: its members, one after the other, in small pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

Spend: TypeAlias = Callable[[int], None]
"""Counts bytes that were unpacked; raises where there are too many."""
AGAIN = "Export it again, or copy it again from its source."


class MemberKind(StrEnum):
    """What a member is; all but a file are left where they are, under these words."""

    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a link"
    DEVICE = "a device"
    SPARSE = "a file with holes"
    PROGRAM = "a document or a program"


@dataclass(frozen=True, slots=True, eq=False)
class ArchiveMember:
    """A member of an archive.

    Attributes:
        name: as the archive has it, with its folders; for messages, and to know what belongs together.
        kind: what it is.
        size: bytes that it claims to have; None where nothing says.
        pieces: yields its content, once, while the archive stands at this member; raises DamagedArchiveError.
    """

    name: str
    kind: MemberKind
    size: int | None
    pieces: Callable[[], Iterator[bytes]]


class Archive(Protocol):
    """An open archive.

    Attributes:
        is_sequential: whether nobody knows where the next member begins if one is damaged.
    """

    is_sequential: bool

    def members(self) -> Iterator[ArchiveMember]:
        """Yield the members in the order in which they lie; raises DamagedArchiveError."""

    def position(self) -> int:
        """Return how many bytes of the file lie behind the reader."""
