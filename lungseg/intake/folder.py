"""The folder of an intake: what was handed in, unpacked, looked through, and what has become of it.

The process that hands in writes `upload/` and `intake.json`; the one process that carries its run out writes all else.
Every name in it is ours.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from lungseg.decoding import decode_file, encode
from lungseg.errors import LungSegError, NotFoundError, StorageError
from lungseg.files.atomic import is_file, write_bytes
from lungseg.records.intakes import Intake, IntakeLedger, IntakeSurvey

Record = TypeVar("Record")

WITHOUT_RECORD = "Something handed in, whose record is damaged"
"""What an intake is called of which nobody knows any more what its reader called it."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of an intake after unpacking.

    Attributes:
        names: under which files were handed in, by their names in `IntakeFolder.files`, in order; empty where no
            reader has to see it.
        ignored: number of files that were not taken, by what they are.
        lost: why files could not be unpacked that should have been, one for each.
    """

    names: dict[str, str]
    ignored: dict[str, int]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IntakeFolder:
    """A folder at `path`, which may be gone."""

    path: Path

    @property
    def upload(self) -> Path:
        """The folder of what was handed in, as it came."""
        return self.path / "upload"

    @property
    def files(self) -> Path:
        """The folder of the unpacked files."""
        return self.path / "files"

    @property
    def thumbnails(self) -> Path:
        """The folder of the small pictures of the series."""
        return self.path / "thumbnails"

    @property
    def work(self) -> Path:
        """The folder of what is being made now."""
        return self.path / "work"

    def intake(self) -> Intake:
        """Return what was handed in; where its record is damaged, what is known without it: the files are there.

        Raises:
            NotFoundError: it is gone.
        """
        path = self.path / "intake.json"
        try:
            return decode_file(Intake, path, _damaged)
        except StorageError as error:
            try:
                made_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            except OSError:
                raise _gone() from error
        return Intake(id=self.path.name, name=WITHOUT_RECORD, created_at=made_at)

    def keep_intake(self, intake: Intake) -> None:
        """Write what was handed in; raises StorageError, as all that write here."""
        write_bytes(self.path / "intake.json", encode(intake))

    @property
    def has_record(self) -> bool:
        """Whether it is there: neither being made nor removed."""
        return is_file(self.path / "intake.json")

    @property
    def is_damaged(self) -> bool:
        """Whether the record of what was handed in is there, and can't be read."""
        try:
            return self.intake().name == WITHOUT_RECORD
        except NotFoundError:
            return False

    def listing(self) -> Listing | None:
        """Return the unpacked files; None where they are not complete."""
        return _read(Listing, self.path / "listing.json")

    def keep_listing(self, listing: Listing) -> None:
        """Write that the unpacked files are complete."""
        write_bytes(self.path / "listing.json", encode(listing))

    def survey(self) -> IntakeSurvey | None:
        """Return what was found; None where nobody has looked yet."""
        return _read(IntakeSurvey, self.path / "survey.json")

    def keep_survey(self, survey: IntakeSurvey) -> None:
        """Write what was found."""
        write_bytes(self.path / "survey.json", encode(survey))

    def ledger(self) -> IntakeLedger:
        """Return what has become of the series."""
        return _read(IntakeLedger, self.path / "ledger.json") or IntakeLedger()

    def keep_ledger(self, ledger: IntakeLedger) -> None:
        """Write what has become of the series."""
        write_bytes(self.path / "ledger.json", encode(ledger))

    def remove(self) -> None:
        """Remove all of it; its record goes first, so that nobody sees a part."""
        (self.path / "intake.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def _read(kind: type[Record], path: Path) -> Record | None:
    """Return a record that can be made again where it is damaged; None then, and where there is none."""
    if not is_file(path):
        return None
    try:
        return decode_file(kind, path, _damaged)
    except StorageError:
        return None


def _damaged(reason: str) -> LungSegError:
    return StorageError(f"A record of the intake is damaged ({reason}).", "It is made again.")


def _gone() -> LungSegError:
    return NotFoundError("What was handed in is not there any more.", "It was taken in or discarded; hand it in again.")
