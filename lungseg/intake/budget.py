"""What unpacking may take, counted while it is taken, and how far it has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lungseg.config import Limits
from lungseg.errors import ExpandedBytesError, ExpansionError, TooManyFilesError, UnpackTimeError
from lungseg.scans.reader import Advance

FREE_BYTES = 256 * 1024**2
"""Up to here an archive may unpack from nothing: slices of one value do."""
FEWER = "Hand in fewer files at once."


@dataclass(slots=True, eq=False)
class Budget:
    """What one upload may take.

    Attributes:
        limits: of it.
        total: bytes of what was handed in.
        on_progress: called with the number of these bytes that were looked at, and of all.
    """

    limits: Limits
    total: int
    on_progress: Advance | None = None
    _files: int = 0
    _bytes: int = 0
    _packed: int = 0
    _bytes_of_archive: int = 0
    _behind: int = 0
    _started: float = field(default_factory=time.monotonic)

    def begin(self, packed: int) -> None:
        """Begin with a file that was handed in, of so many bytes; what it unpacks to is compared with them."""
        self._packed, self._bytes_of_archive = packed, 0
        self.check_time()

    def end(self) -> None:
        """Have done with that file."""
        self._behind += self._packed
        self.report(0)

    def report(self, position: int) -> None:
        """Tell how far that file was read."""
        if self.on_progress:
            self.on_progress(min(self._behind + position, self.total), self.total)

    def add_file(self) -> None:
        """Count a file; raises TooManyFilesError, UnpackTimeError."""
        self._files += 1
        self.check_time()
        if self._files > self.limits.files:
            raise TooManyFilesError(f"There are more than {self.limits.files:,} files.", FEWER)

    def spend(self, count: int) -> None:
        """Count unpacked bytes; raises ExpandedBytesError, ExpansionError, UnpackTimeError."""
        self._bytes += count
        self._bytes_of_archive += count
        self.check_time()
        if self._bytes > self.limits.expanded_bytes:
            raise ExpandedBytesError(f"There are more than {self.limits.expanded_bytes:,} bytes, unpacked.", FEWER)
        if self._bytes_of_archive > max(FREE_BYTES, self.limits.expansion * self._packed):
            raise ExpansionError(
                f"The archive of {self._packed:,} bytes unpacks to more than {self._bytes_of_archive:,}: no scan does.",
                "Hand in the folder of the scan itself, or export it again.",
            )

    def check_time(self) -> None:
        """Raise UnpackTimeError where it has taken too long."""
        if time.monotonic() - self._started > self.limits.unpack_s:
            raise UnpackTimeError(f"Unpacking takes more than {self.limits.unpack_s:,} s.", FEWER)
