"""What the listener has received, as files: `<study>/<series>/<instance>.dcm`, each named by the hash of a UID.

The files are the only record: whatever happens to the process, the next one knows from them alone what is there. A
study stays for a while after it was handed over, so that a slice that comes late makes the whole series again.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from lungseg.decoding import decode_file, encode
from lungseg.errors import StorageError
from lungseg.files import atomic

log = logging.getLogger(__name__)

HANDOVER = "handover.json"
SUFFIX = ".dcm"
COMPARED_BYTES = 1024**2
NAME_CHARACTERS = 32
"""Of the hash of a UID, hexadecimal."""
STAYS_S = 3600.0
"""How long a study stays after its last slice, if it was handed over."""
PAUSE_S = 30.0
"""After which a study that could not be handed over is tried again."""
OPEN_AT_MOST_S = 600.0
"""An association that is open but silent for this long keeps no study waiting."""


class Receipt(Enum):
    """What an instance that arrived is."""

    NEW = auto()
    DUPLICATE = auto()
    CONFLICT = auto()


@dataclass(frozen=True, slots=True)
class Handover:
    """Files of a study that become an intake.

    Attributes:
        intake: id of the intake.
        files: those handed over with it, relative to the folder of the study.
        earlier: those handed over before.
        is_done: whether the intake is queued; where it is not, the same is to be done again.
    """

    intake: str
    files: tuple[str, ...]
    earlier: tuple[str, ...] = ()
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class Identifiers:
    """The UIDs of an instance."""

    study: str
    series: str
    instance: str


class Inbox:
    """A folder of studies that arrive; safe to be used by several threads of one process.

    Args:
        folder: made where it is missing; passing files of killed processes are removed from it.
        clock: seconds that only grow.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._clock = folder, clock
        self._guard = threading.Lock()
        self._carried: dict[object, set[str]] = {}
        self._settled: dict[str, float] = {}
        self._put_off: dict[str, float] = {}
        atomic.make_private(folder)
        for part in (folder, *folder.glob("*"), *folder.glob("*/*")):
            atomic.remove_partials(part)
        self._last = dict.fromkeys(self._studies(), clock())  # while nobody listened nobody could send

    def keep(self, uids: Identifiers, content: bytes, association: object) -> Receipt:
        """Keep an instance, flushed to the disk; one that is there already is not written again.

        Another content under the same UID is kept beside the first, for whoever reads the series to name it.

        Raises:
            DiskFullError: there is no room.
            StorageError: the disk refuses.
        """
        study, series, instance = (_name_of(uid) for uid in (uids.study, uids.series, uids.instance))
        with self._guard:  # from now on the study is not removed
            self._carried.setdefault(association, set()).add(study)
            self._last[study] = self._clock()
        path = self.folder / study / series / f"{instance}{SUFFIX}"
        receipt = Receipt.DUPLICATE if path.exists() else Receipt.NEW
        atomic.write_first(path, content)  # of two that arrive at once, the first one stays
        if _is_content(path, content):
            return receipt
        digest = hashlib.sha256(content).hexdigest()[:NAME_CHARACTERS]
        atomic.write_first(path.with_name(f"{instance}.{digest}{SUFFIX}"), content)
        log.warning("an instance came twice with different contents; both are kept")
        return Receipt.CONFLICT

    def release(self, association: object) -> None:
        """Note that an association has ended: the studies that it carried wait for nothing else."""
        with self._guard:
            self._carried.pop(association, None)

    def due(self, quiet_s: float) -> list[str]:
        """Return the studies that are to be handed over: with new files, or a handover that was broken off.

        One whose record is damaged is logged, waits for somebody to look at it, and keeps no other.
        """
        return [study for study in self._studies() if self._is_due_now(study, quiet_s)]

    def silent_s(self, study: str) -> float:
        """Return the seconds since a slice of a study came, or since this process began."""
        with self._guard:
            return self._silent_s(study)

    def put_off(self, study: str) -> None:
        """Note that a study can't be handed over now; it is due again after a pause."""
        self._put_off[study] = self._clock() + PAUSE_S

    def begin_handover(self, study: str, intake: str) -> Handover:
        """Write down what is handed over, before that is done; returns the one that was broken off where there is one.

        All files of each series that has new ones go together, those that were handed over before included: a slice
        that comes late makes the series whole, not a second one of itself alone.

        Raises:
            StorageError: the disk refuses.
        """
        previous = self._handover(study)
        if previous and not previous.is_done:
            return previous
        earlier = {*previous.files, *previous.earlier} if previous else set()
        files = self._files(study)
        series = {Path(name).parent for name in files if name not in earlier}
        chosen = tuple(name for name in files if Path(name).parent in series)
        handover = Handover(intake, chosen, tuple(sorted(earlier)))
        self._keep_handover(study, handover)
        if earlier:
            log.warning("slices of a study came late: its series is taken in once more, as a case of its own")
        return handover

    def end_handover(self, study: str, handover: Handover) -> None:
        """Write down that a handover is done; raises StorageError where the disk refuses."""
        self._keep_handover(study, Handover(handover.intake, handover.files, handover.earlier, is_done=True))

    def path_of(self, study: str, name: str) -> Path:
        """Return the path of a file of a handover."""
        return self.folder / study / name

    def remove_old(self, stays_s: float = STAYS_S) -> int:
        """Remove studies that were handed over and have been silent for long; returns their number.

        Also forgets associations that have carried nothing for as long, should the end of one have gone unnoticed.
        """
        removed = 0
        for study in self._studies():
            with self._guard:
                if self._silent_s(study) > stays_s and self._is_handed_over(study):
                    shutil.rmtree(self.folder / study, ignore_errors=True)
                    for notes in (self._last, self._settled, self._put_off):
                        notes.pop(study, None)
                    removed += 1
        with self._guard:
            for association, studies in tuple(self._carried.items()):
                if all(study not in self._last or self._silent_s(study) > stays_s for study in studies):
                    del self._carried[association]
        return removed

    def remove_left(self, stays_s: float = STAYS_S) -> int:
        """Remove studies that were handed over, while nobody listens; returns their number.

        For how long they have been silent the times of their files say.
        """
        removed = 0
        for study in self._studies():
            folder = self.folder / study
            last_s = max((path.stat().st_mtime for path in folder.rglob("*")), default=time.time())
            if time.time() - last_s > stays_s and self._is_handed_over(study):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed

    def not_handed_over(self) -> int:
        """Return the number of studies that are not, or not with all their files, handed over."""
        return sum(not self._is_handed_over(study) for study in self._studies())

    def _is_handed_over(self, study: str) -> bool:
        try:
            handover = self._handover(study)
        except StorageError:  # `due` tells of it
            return False
        return handover is not None and handover.is_done and not self._new_files(study, handover)

    def _is_due_now(self, study: str, quiet_s: float) -> bool:
        if self._clock() < self._put_off.get(study, 0.0):
            return False
        try:
            return self._is_due(study, quiet_s)
        except StorageError as error:
            log.error("%s %s", error.found, error.remedy)  # noqa: TRY400 - its trace says no more
            self.put_off(study)
            return False

    def _is_due(self, study: str, quiet_s: float) -> bool:
        with self._guard:
            silent_s, is_carried, last_s = self._silent_s(study), self._is_carried(study), self._last[study]
        if self._settled.get(study) == last_s:
            return False
        handover = self._handover(study)
        if handover and not handover.is_done:
            return True
        if silent_s < (OPEN_AT_MOST_S if is_carried else quiet_s):
            return False
        if self._new_files(study, handover):
            return True
        self._settled[study] = last_s
        return False

    def _new_files(self, study: str, handover: Handover | None) -> set[str]:
        return set(self._files(study)).difference((*handover.files, *handover.earlier) if handover else ())

    def _is_carried(self, study: str) -> bool:
        return any(study in studies for studies in self._carried.values())

    def _silent_s(self, study: str) -> float:
        return self._clock() - self._last.setdefault(study, self._clock())

    def _studies(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir())

    def _files(self, study: str) -> list[str]:
        folder = self.folder / study
        return sorted(str(path.relative_to(folder)) for path in folder.glob(f"*/*{SUFFIX}"))

    def _handover(self, study: str) -> Handover | None:
        path = self.folder / study / HANDOVER
        return decode_file(Handover, path, _damaged) if atomic.is_file(path) else None

    def _keep_handover(self, study: str, handover: Handover) -> None:
        atomic.write_bytes(self.folder / study / HANDOVER, encode(handover))


def first_files(study: Path) -> Iterator[tuple[Path, int]]:
    """Yield of each series in the folder of a study a file and the number of its instances, conflicts counted once."""
    for series in sorted(study.iterdir()):
        names = [path for path in series.glob(f"*{SUFFIX}") if path.stem.isalnum()] if series.is_dir() else []
        if names:
            yield names[0], len(names)


def _is_content(path: Path, content: bytes) -> bool:
    """Tell whether a file has exactly this content, without a copy of it in memory."""
    view = memoryview(content)
    with path.open("rb") as stream:
        pieces = iter(lambda: stream.read(COMPARED_BYTES), b"")
        place = 0
        for piece in pieces:
            if piece != view[place : place + len(piece)]:
                return False
            place += len(piece)
    return place == len(content)


def _name_of(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:NAME_CHARACTERS]


def _damaged(reason: str) -> StorageError:
    return StorageError(
        f"The record of what was handed over is damaged ({reason}).",
        f"Remove {HANDOVER} in the folder of that study below listener/inbox: it is then taken in again.",
    )
