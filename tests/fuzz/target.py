"""A kind of file that is fuzzed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: of the kind.
        path: where a damaged one is put.
        seeds: good ones.
        damage: makes a damaged one of a seed, a generator and all seeds.
        read: reads it and uses what it gives; may raise LungSegError alone.
        share: how often it comes, beside the others.
    """

    name: str
    path: Path
    seeds: tuple[bytes, ...]
    damage: Callable[..., bytes]
    read: Callable[[Path], object]
    share: int = 2


class WrongVoxelsError(Exception):
    """A scan was accepted, and its voxels are not those that another reader finds."""
