"""Uploads that go on where they broke off: they outlive the connection, the page and the server.

Each upload is two files under `keys.RESUMABLE`: the bytes that have come, whose number is where it goes on, and beside
them what the browser announced. So a killed server leaves nothing to repair. Whoever writes an upload, takes it in or
removes it holds a lock of the kernel on its bytes. Nothing of it can be seen elsewhere before it is whole and taken in.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from lungseg.config import Limits, Settings
from lungseg.decoding import Natural, decode_file, encode
from lungseg.errors import LungSegError, NotFoundError, SetupError, StorageError, TooLargeError, UploadBusyError
from lungseg.files import atomic, keys
from lungseg.services.file_store import files_of
from lungseg.services.storage import check_disk, write_all

log = logging.getLogger(__name__)

ID = re.compile(r"[0-9a-f]{32}")
BYTES_END, NOTE_END = ".upload", ".json"
HALF_S = 24 * 3600.0
"""A half upload to which nothing was added for this long goes."""
WHOLE_S = 7 * 24 * 3600.0
"""So does a whole one that no page has taken in."""
UNNOTED_S = 600.0
"""So do bytes without a note, as a kill between the two leaves them."""
SCAN_ENDS = (".nii", ".nii.gz")
MOST_IN_GROUP = 10_000
MOST_UPLOADS = 5000
"""At once, half or whole: a page looks through all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a browser says of an upload before its first byte.

    Attributes:
        name: of the file, folder or archive; shown, never used on the disk.
        size: in bytes.
        group: 32 hexadecimal digits that the uploads of one intake share; a scan is a group of its own.
        count: number of uploads in the group.
        place: of the group in its drop, 0 for the first.
        part: of the group, 0 for the first. One may be there twice: a browser that hears no answer begins it again.
    """

    name: str
    size: Natural
    group: str
    count: Natural
    place: Natural
    part: Natural = 0

    @property
    def is_scan(self) -> bool:
        """Whether it is one NIfTI file, which becomes a case at once."""
        return self.count == 1 and self.name.lower().endswith(SCAN_ENDS)


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as it stands.

    Attributes:
        id: ours, which leads to it.
        announcement: what was said of it.
        path: of its bytes.
        offset: how many of them have come.
        touched_s: Unix time of the last one.
    """

    id: str
    announcement: Announcement
    path: Path
    offset: int
    touched_s: float

    @property
    def is_whole(self) -> bool:
        """Whether all its bytes have come."""
        return self.offset == self.announcement.size

    @property
    def expires_s(self) -> float:
        """Unix time from which it is gone, unless something is added."""
        return self.touched_s + (WHOLE_S if self.is_whole else HALF_S)


def begin_upload(settings: Settings, announcement: Announcement) -> Upload:
    """Make an empty upload.

    Raises:
        TooLargeError: it will be larger than the limit of its kind.
        UploadBusyError: there are very many already.
        DiskFullError: the disk has no room for it.
        StorageError: its folder can't be written to.
    """
    _check_size(announcement, settings.limits)
    folder = _folder(settings)
    upload_id = secrets.token_hex(16)
    with atomic.disk_errors("The folder of uploads"):
        folder.mkdir(mode=atomic.PRIVATE_FOLDER, parents=True, exist_ok=True)
        check_disk(folder, announcement.size)
        if sum(1 for _ in folder.iterdir()) >= 2 * MOST_UPLOADS:
            remedy = "Wait until some of them are; half uploads go after a day."
            raise UploadBusyError(f"There are {MOST_UPLOADS:,} uploads already that are not taken in.", remedy)
        os.close(os.open(_bytes_of(folder, upload_id), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        atomic.write_bytes(_note_of(folder, upload_id), encode(announcement))
    return upload_of(settings, upload_id)


def upload_of(settings: Settings, upload_id: str) -> Upload:
    """Return an upload as it stands; raises NotFoundError where there is none of this id, or it has expired."""
    if not ID.fullmatch(upload_id):
        raise _gone(upload_id)
    folder = _folder(settings)
    path = _bytes_of(folder, upload_id)
    try:
        announcement = decode_file(Announcement, _note_of(folder, upload_id), _gone)
        state = path.stat()
    except OSError as error:
        raise _gone(upload_id) from error
    upload = Upload(upload_id, announcement, path, state.st_size, state.st_mtime)
    if upload.expires_s <= time.time() or upload.offset > announcement.size:
        raise _gone(upload_id)
    return upload


class Writer:
    """Appends to an upload that it has locked; `offset` is the number of its bytes."""

    def __init__(self, upload: Upload, stream: FileIO) -> None:
        self.offset = upload.offset
        self.size = upload.announcement.size
        self._folder = upload.path.parent
        self._stream = stream

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            DiskFullError: the disk has no room for it.
            StorageError: it can't be written.
        """
        with atomic.disk_errors("The upload"):
            check_disk(self._folder, len(piece))
        try:
            write_all(self._stream, piece)
        finally:
            self.offset = self._stream.tell()

    def flush(self) -> None:
        """See to it that a power cut leaves the bytes; raises DiskFullError or StorageError."""
        with atomic.disk_errors("The upload"):
            os.fsync(self._stream.fileno())


@contextmanager
def writing(settings: Settings, upload_id: str) -> Iterator[Writer]:
    """Lock an upload and open it at its end.

    Raises:
        NotFoundError: there is none of this id.
        UploadBusyError: somebody else writes it, takes it in or removes it.
        StorageError: it can't be opened.
    """
    with _locked(settings, upload_id) as (upload, stream):
        stream.seek(upload.offset)
        yield Writer(upload, stream)


def discard_upload(settings: Settings, upload_id: str) -> None:
    """Remove an upload, whole or not; raises as `writing`."""
    with _locked(settings, upload_id) as (upload, _):
        _unlink(upload.path)


@contextmanager
def taking_in(settings: Settings, group: str) -> Iterator[tuple[Upload, ...]]:
    """Lock the uploads of a group, all of them whole, for somebody who makes cases of them.

    They are gone after the block, whether it ends well or by an error of ours or of theirs; a block that is stopped
    from outside leaves them, and so does one that fails by the state of the installation (SetupError, StorageError).
    What the block has moved away stays there.

    Yields:
        One upload for each part, in order.

    Raises:
        NotFoundError: one of them is not there or not whole.
        UploadBusyError: somebody else takes them in already.
        StorageError: they can't be opened.
    """
    with ExitStack() as stack:
        members = [upload.id for upload in _uploads(settings) if upload.announcement.group == group]
        uploads = [stack.enter_context(_locked(settings, upload_id))[0] for upload_id in sorted(members)]
        parts = _parts_of(uploads)
        if not parts:
            raise _gone(group)
        is_settled = False
        try:
            yield parts
            is_settled = True
        except (SetupError, StorageError):
            raise
        except Exception:
            is_settled = True
            raise
        finally:
            if is_settled:
                for upload in uploads:
                    _unlink(upload.path)


def forgotten_groups(settings: Settings, age_s: float) -> tuple[str, ...]:
    """Return groups that have been whole for so long, oldest first: the page that sent them was closed too early."""
    groups: dict[str, list[Upload]] = {}
    for upload in sorted(_uploads(settings), key=lambda upload: upload.touched_s):
        groups.setdefault(upload.announcement.group, []).append(upload)
    latest_s = time.time() - age_s
    return tuple(
        group
        for group, uploads in groups.items()
        if _parts_of(uploads) and max(upload.touched_s for upload in uploads) <= latest_s
    )


def sweep_uploads(settings: Settings) -> int:
    """Remove what has expired and what kills have left, and return the number of uploads that went."""
    folder = _folder(settings)
    atomic.remove_partials(folder)
    now, removed = time.time(), 0
    paths = atomic.files_in(folder)
    for path in paths:
        if path.name.endswith(BYTES_END) and _is_expired(settings, path, now):
            removed += _remove_unlocked(settings, path, now)
        elif path.name.endswith(NOTE_END) and not path.with_suffix(BYTES_END).exists():
            _unlink(path.with_suffix(BYTES_END))
    return removed


def _check_size(announcement: Announcement, limits: Limits) -> None:
    """Raise TooLargeError where the limit of its kind is exceeded."""
    limit = limits.file_bytes if announcement.is_scan else limits.upload_bytes
    if announcement.size > limit:
        what = "The file" if announcement.is_scan else "The upload"
        remedy = "Crop the scan to the chest, or compress it." if announcement.is_scan else "Upload fewer at once."
        raise TooLargeError(f"{what} has {announcement.size:,} bytes, more than {limit:,}.", remedy)


def _parts_of(uploads: Iterable[Upload]) -> tuple[Upload, ...]:
    """Return one whole upload for each part of their group, in order; empty where a part is missing."""
    whole = {upload.announcement.part: upload for upload in uploads if upload.is_whole}
    counts = {upload.announcement.count for upload in whole.values()}
    return tuple(whole[part] for part in sorted(whole)) if counts == {len(whole)} else ()


def _uploads(settings: Settings) -> Iterator[Upload]:
    """Yield all uploads that have not expired, in no order."""
    for path in atomic.files_in(_folder(settings)):
        if path.name.endswith(NOTE_END):
            with suppress(NotFoundError):
                yield upload_of(settings, path.stem)


@contextmanager
def _locked(settings: Settings, upload_id: str) -> Iterator[tuple[Upload, FileIO]]:
    """Lock an upload as it then stands, and open its bytes."""
    path = upload_of(settings, upload_id).path
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(FileIO(path, "r+b"))
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError as error:
            raise _gone(upload_id) from error
        except BlockingIOError as error:
            raise UploadBusyError("The upload is in use.", "Wait a moment: it goes on by itself.") from error
        except OSError as error:
            raise StorageError(
                f"The upload can't be opened ({error.strerror}).", "Check the rights of LUNGSEG_HOME."
            ) from error
        upload = upload_of(settings, upload_id)  # whoever held the lock before may have removed or lengthened it
        yield replace(upload, offset=os.fstat(stream.fileno()).st_size), stream


def _is_expired(settings: Settings, path: Path, now: float) -> bool:
    """Tell whether bytes belong to no upload, and are not those of one that is just being made."""
    try:
        upload_of(settings, path.stem)
    except NotFoundError:
        with suppress(OSError):
            return now - path.stat().st_mtime > UNNOTED_S
    return False


def _remove_unlocked(settings: Settings, path: Path, now: float) -> bool:
    """Remove an expired upload unless somebody is at it, or was just now; tells whether it went."""
    try:
        with FileIO(path, "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_expired = _is_expired(settings, path, now)
            if is_expired:
                _unlink(path)
    except OSError:
        return False
    return is_expired


def _unlink(path: Path) -> None:
    """Remove the note first: bytes without one are no upload."""
    for file in (path.with_suffix(NOTE_END), path):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s can't be removed: %s", file.name, error.strerror)


def _folder(settings: Settings) -> Path:
    return files_of(settings).local(keys.RESUMABLE)


def _bytes_of(folder: Path, upload_id: str) -> Path:
    return folder / f"{upload_id}{BYTES_END}"


def _note_of(folder: Path, upload_id: str) -> Path:
    return folder / f"{upload_id}{NOTE_END}"


def _gone(_: str) -> LungSegError:
    return NotFoundError(
        "The upload is not there any more: it was taken in already, or has expired.",
        "Look whether it is in the list; else upload the file again.",
    )
