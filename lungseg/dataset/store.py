"""The slice store: the slices of a data set on a network's canvas, memory-mapped, with all that is known of each case.

::

    STORE/index.json           layout version, canvas, the data set as it was found
    STORE/alike.json           cases that show one examination
    STORE/<case>.hu.npy        (K, 256, 256) int16: axial slices as films are hung, HU averaged over the area of a pixel
    STORE/<case>.tumour.npy    (K, 256, 256) uint8: 1 in tumour, 2 where nobody knows, by nearest neighbour; only where
                               there is a mask
    STORE/<case>.case.png      small picture of the slice with most tumour
    STORE/<case>.case.json     what its files and arrays were, facts, tumour pixels of each slice; written last

Slices are those of `preprocessing`, before HU are scaled: `hu / 3071` is what `Preprocessing().slice_stack` gives, to
half a HU. A case whose scan or mask can't be used has its JSON alone. Names too long for files are cut.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from lungseg.dataset import contents
from lungseg.dataset.contents import FileState
from lungseg.dataset.fingerprint import CaseFacts, LoadedCase, ScanFacts, facts_of, read_pair
from lungseg.dataset.labels import Legend
from lungseg.dataset.layout import CaseFiles, DataSet, with_text_paths
from lungseg.dataset.likeness import Likeness, alike
from lungseg.dataset.parallel import UNREADABLE, OnProgress, ShouldStop, Work, map_in_processes
from lungseg.decoding import JsonObject, Natural, decode_file, decode_value
from lungseg.errors import DataChangedError, DataSetError
from lungseg.files import atomic
from lungseg.files.arrays import ArrayHeader, read_array_header
from lungseg.records import Failure
from lungseg.scans import overlay
from lungseg.scans.canvas import CanvasGeometry, Preprocessing, to_display
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume

LAYOUT = 2
"""Version of the store's layout; one of a newer release is refused."""
READABLE = (1, LAYOUT)
"""Layouts that can be opened; in the first, contents have no hashes, and labels were not read."""
INDEX, LOCK, ALIKE = "index.json", ".lock", "alike.json"
CANVAS = Preprocessing()
"""Size of the canvas, and the HU to which slices are clipped before they are averaged."""
AIR_HU = -1000.0
"""What lies beside a slice on its canvas."""
TUMOUR, IGNORED = 1, 2
HU_TYPE, TUMOUR_TYPE = np.dtype(np.int16), np.dtype(np.uint8)
SMALL_PICTURE_PX = 144
HU_END, TUMOUR_END, PICTURE_END, CASE_END = ".hu.npy", ".tumour.npy", ".case.png", ".case.json"
ARRAY_ENDS = (HU_END, TUMOUR_END)
CASE_FILES = (*ARRAY_ENDS, PICTURE_END, CASE_END)
PASSING = frozenset({UNREADABLE, DataChangedError.code})
"""Codes of failures that may be gone the next time: such a case is read again."""
LONGEST_START = 120
"""Bytes that are left of a name that is too long."""
LONGEST_VERSION = 40
MOST_LAYOUTS = 4096
"""Files whose header is remembered; a few hundred bytes each."""


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case of the store.

    Attributes:
        folder: the store.
        scan: its scan, for validation on the whole volume.
        mask: its mask; None where it has none.
        facts: all that was measured.
        slice_tumour_px: tumour pixels of each slice on the canvas.
        legend: what the values of its mask stand for.
        files: scan and mask as they were read.
        arrays: its arrays as they were written, by their endings.
    """

    folder: Path
    scan: Path
    mask: Path | None
    facts: CaseFacts
    slice_tumour_px: tuple[int, ...]
    legend: Legend | None = None
    files: Mapping[str, FileState | None] = field(default_factory=dict)
    arrays: Mapping[str, FileState] = field(default_factory=dict)

    @property
    def case(self) -> str:
        """Its name."""
        return self.facts.case

    @property
    def patient(self) -> str:
        """Who it shows."""
        return self.facts.patient

    @property
    def pair(self) -> CaseFiles:
        """Its files, to be read again."""
        return CaseFiles(self.case, self.patient, self.scan, self.mask, self.legend)

    @property
    def record(self) -> dict[str, str]:
        """What it consists of, as far as that makes a difference to training; see `contents.Record`."""
        hashes = {name: state.sha256 for name, state in self.files.items() if state and state.sha256}
        classes = "" if self.legend is None else f"{self.legend.tumour}, ignored {self.legend.ignored}"
        return {**hashes, "patient": self.patient, "tumour class": classes}

    @property
    def has_ignored(self) -> bool:
        """Whether there are pixels of which nobody knows what they are."""
        return self.facts.mask is not None and self.facts.mask.ignored_voxels > 0

    @property
    def content_sha256(self) -> str:
        """Of the scan's voxels."""
        return self.facts.content_sha256

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the scan's voxels, along R, A, S."""
        return self._scan_facts.spacing_mm

    @property
    def frame(self) -> CanvasGeometry:
        """Where its slices lie on their canvas."""
        return CanvasGeometry.of(Grid(self._scan_facts.shape, np.diag([*self.spacing_mm, 1.0])), CANVAS.size)

    @property
    def hu(self) -> NDArray[np.int16]:
        """Map the slices into memory: (K, size, size) int16, k = 0 is the lowest. Each call opens the file: keep it."""
        return _mapped(_file(self.folder, self.case, HU_END), HU_TYPE, len(self.slice_tumour_px))

    @property
    def tumour(self) -> NDArray[np.uint8]:
        """Map the masks of the slices into memory: (K, size, size) uint8, 1 in tumour, 2 where nobody knows."""
        return _mapped(_file(self.folder, self.case, TUMOUR_END), TUMOUR_TYPE, len(self.slice_tumour_px))

    def hu_of(self, first: int, last: int) -> NDArray[np.int16]:
        """Read the slices first <= k < last: (last - first, size, size) int16. Quicker than to map all."""
        path = _file(self.folder, self.case, HU_END)
        return _read(path, _header(path, HU_TYPE, len(self.slice_tumour_px)), first, last)

    def tumour_of(self, k: int) -> NDArray[np.uint8]:
        """Read the mask of a slice: (size, size) uint8, 1 in tumour, 2 where nobody knows."""
        path = _file(self.folder, self.case, TUMOUR_END)
        mask: NDArray[np.uint8] = _read(path, _header(path, TUMOUR_TYPE, len(self.slice_tumour_px)), k, k + 1)[0]
        return mask

    @property
    def _scan_facts(self) -> ScanFacts:
        if self.facts.scan is None:
            raise DataSetError(f"The scan of {self.case} can't be used.", "Look into the findings of the data set.")
        return self.facts.scan

    @property
    def picture(self) -> Path:
        """PNG of the slice with most tumour."""
        return picture_path(self.folder, self.case)


@dataclass(frozen=True, slots=True)
class SliceStore:
    """A store that is complete.

    Attributes:
        folder: where it lies.
        data_set: what it was made from, as it was found then.
        facts: of all cases, those that could not be used among them.
        cases: usable ones with a mask, sorted.
        unlabelled: usable ones without.
        fingerprint: sha256 of what it was made of, names, sizes and contents; None where a release up to 0.1 made it.
        alike: cases that show one examination.
    """

    folder: Path
    data_set: DataSet
    facts: tuple[CaseFacts, ...]
    cases: tuple[StoredCase, ...]
    unlabelled: tuple[StoredCase, ...]
    fingerprint: str | None = None
    alike: tuple[Likeness, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> SliceStore:
        """Open a store.

        Raises:
            DataSetError: it is none, is not complete, is damaged, or was made by another layout.
        """
        folder = atomic.resolved(folder)
        data_set, layout = _read_index(folder)
        kept = [_kept(folder, pair) for pair in data_set.pairs]
        stored = [_stored(folder, each) if each and (each.is_hashed or layout < LAYOUT) else None for each in kept]
        missing = [pair.case for pair, case in zip(data_set.pairs, stored, strict=True) if case is None]
        if missing:
            raise DataSetError(
                f"The store {folder} is not complete: {len(missing)} of {len(data_set.pairs)} cases are missing, or "
                "damaged.",
                "Run `lungseg prepare` again: it goes on where it ended.",
            )
        usable = [case for case in stored if case and case.facts.is_usable]
        return cls(
            folder=folder,
            data_set=data_set,
            facts=tuple(case.facts for case in stored if case),
            cases=tuple(case for case in usable if case.mask),
            unlabelled=tuple(case for case in usable if not case.mask),
            fingerprint=_fingerprint(data_set, [case.files for case in stored if case]) if layout == LAYOUT else None,
            alike=_read_alike(folder),
        )


def picture_path(folder: Path, case: str) -> Path:
    """Name the small picture of a case in a store."""
    return _file(folder, case, PICTURE_END)


def is_readable_layout(folder: Path) -> bool:
    """Tell whether a folder is a store of a layout that this release reads, complete or not."""
    return _index_of(folder).get("store_layout") in READABLE


def check_arrays(cases: Iterable[StoredCase]) -> None:
    """Check that the arrays of cases are those that were written; read only where the file system leaves a doubt.

    Raises:
        DataChangedError: some are not.
    """
    changed = tuple(
        f"{case.case}: {'scan' if end == HU_END else 'mask'}"
        for case in cases
        for end, state in case.arrays.items()
        if atomic.is_file(_file(case.folder, case.case, end)) and not state.is_at(_file(case.folder, case.case, end))
    )
    if changed:
        raise DataChangedError(
            f"The slices of the store changed while they were in use ({contents.listed(changed)}).",
            "What was trained before is kept. Let nobody prepare the data set while it is trained on; start a new run.",
        )


def changed_sources(cases: Iterable[StoredCase]) -> tuple[str, ...]:
    """Name cases whose scan or mask is another one by now than what the store was made of; missing files are none."""
    return tuple(
        f"{case.case}: {name}"
        for case in cases
        for name, file in (("scan", case.scan), ("mask", case.mask))
        if file and (state := case.files.get(name)) and state.sha256 and atomic.is_file(file) and not state.is_at(file)
    )


def is_store(folder: Path) -> bool:
    """Tell whether a folder is a slice store, of whatever layout, rather than a data set."""
    return "store_layout" in _index_of(folder)


def prepare(
    data_set: DataSet,
    folder: Path,
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> SliceStore:
    """Make the store of a data set, or bring it up to date: what is there and unchanged is not made again.

    A case that can't be used does not stop the others; its facts say why. A store of an older layout is made anew.

    Args:
        data_set: what to prepare.
        folder: of the store; made where it does not exist.
        workers: processes at once; None for as many as the machine has processors and memory for.
        on_progress: told of each case that is done.
        should_stop: asked a few times a second.

    Raises:
        DataSetError: the folder holds something else or a store of a newer layout, or another process is preparing it.
        StorageError: it can't be written.
        RunCancelledError: `should_stop` said so; the next call goes on from there.
    """
    folder = atomic.resolved(folder)
    _check_target(folder)
    with atomic.disk_errors(f"The store {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            _write_json(folder / INDEX, {"store_layout": LAYOUT, "canvas": CANVAS.size, "data_set": data_set.to_json()})
            _remove_others(folder, data_set)
            orders = [(folder, pair) for pair in data_set.pairs if not _is_current(folder, pair)]
            for _ in map_in_processes(
                Work("preparing", _prepare_case, _leave_out),
                orders,
                workers=workers,
                on_progress=on_progress,
                should_stop=should_stop,
            ):
                pass
            _write_alike(folder, data_set)
    return SliceStore.open(folder)


def _prepare_case(order: tuple[Path, CaseFiles]) -> str:
    """Make the files of one case, unless those that are there have its content; runs in a process of its own."""
    folder, pair = order
    found = _states(pair)
    kept = _kept(folder, pair)
    if kept and kept.holds(found) and _has_arrays(folder, kept):
        _write_case(folder, replace(kept, files=found))
        return pair.case
    _remove_case(folder, pair.case)
    reading = read_pair(pair)
    if not _is_still(pair, found):
        again = contents.changed_meanwhile(pair.scan)
        reading = LoadedCase(pair, Failure(again.code, again.found, again.remedy))
    tumour_px: list[int] = []
    if reading.volume is not None and reading.failure is None:
        tumour_px = _write_slices(folder, reading, reading.volume)
    arrays = {end: FileState.read(path) for end in ARRAY_ENDS if (path := _file(folder, pair.case, end)).exists()}
    _write_case(folder, _CaseFile(pair, found, facts_of(reading), tuple(tumour_px), arrays))
    return pair.case


def _leave_out(order: tuple[Path, CaseFiles], failure: Failure) -> str:
    """Leave out a case whose reading met a fault; the next call tries it again."""
    folder, pair = order
    _remove_case(folder, pair.case)
    _write_case(folder, _CaseFile(pair, {}, CaseFacts(pair.case, pair.patient, failure), (), {}))
    return pair.case


def _remove_case(folder: Path, case: str) -> None:
    for end in CASE_FILES:
        _file(folder, case, end).unlink(missing_ok=True)


def _write_case(folder: Path, case: _CaseFile) -> None:
    fields = {
        "pair": with_text_paths(case.pair),
        "files": {name: state and asdict(state) for name, state in case.files.items()},
        "facts": case.facts.to_json(),
        "slice_tumour_px": case.slice_tumour_px,
        "arrays": {end: asdict(state) for end, state in case.arrays.items()},
    }
    _write_json(_file(folder, case.pair.case, CASE_END), fields)


def _write_slices(folder: Path, reading: LoadedCase, volume: Volume) -> list[int]:
    """Write the arrays and the picture of a case; returns the tumour pixels of each slice."""
    case, depth, mask = reading.pair.case, volume.grid.shape[2], reading.mask
    frame = CanvasGeometry.of(volume.grid, CANVAS.size)
    inside = mask.inside if mask else np.zeros(volume.grid.shape, dtype=np.bool_)
    _write_array(_file(folder, case, HU_END), np.stack([on_canvas(volume, frame, k) for k in range(depth)]))
    tumour = np.stack([frame.mask_to_canvas(to_display(inside[:, :, k])) for k in range(depth)])
    if mask:
        marks = tumour.astype(TUMOUR_TYPE)
        if mask.ignored is not None:
            nobodys = np.stack([frame.mask_to_canvas(to_display(mask.ignored[:, :, k])) for k in range(depth)])
            marks[(nobodys > 0) & (tumour == 0)] = IGNORED
        _write_array(_file(folder, case, TUMOUR_END), marks)
    picture = overlay.draw_thumbnail(volume, inside, SMALL_PICTURE_PX, overlay.REFERENCE_RGB)
    overlay.write_png(picture_path(folder, case), picture)
    return [int(px) for px in np.count_nonzero(tumour, axis=(1, 2))]


def on_canvas(volume: Volume, frame: CanvasGeometry, k: int) -> NDArray[np.int16]:
    """Return axial slice k as it stands in the store: HU clipped, averaged onto the canvas, rounded."""
    hung = np.clip(to_display(volume.hu[:, :, k]), CANVAS.hu_floor, CANVAS.hu_ceiling).astype(np.float32)
    return np.rint(frame.to_canvas(hung, fill=AIR_HU)).astype(np.int16)


def _is_current(folder: Path, pair: CaseFiles) -> bool:
    """Tell, as far as the file system knows, whether a case is there and was made from these very files."""
    kept = _kept(folder, pair)
    if kept is None or not kept.is_hashed or (kept.facts.failure and kept.facts.failure.code in PASSING):
        return False
    is_seen = all(
        state is None if file is None or not atomic.is_file(file) else state is not None and state.is_seen_at(file)
        for state, file in ((kept.files.get("scan"), pair.scan), (kept.files.get("mask"), pair.mask))
    )
    return is_seen and _has_arrays(folder, kept)


def _has_arrays(folder: Path, kept: _CaseFile) -> bool:
    """Tell whether the arrays of a case are there, as they were written."""
    depth, case = len(kept.slice_tumour_px), kept.pair.case
    wanted = [(HU_END, HU_TYPE), (TUMOUR_END, TUMOUR_TYPE)][: 1 if kept.pair.mask is None else 2]
    try:
        for end, dtype in wanted if depth else ():
            _header.__wrapped__(_file(folder, case, end), dtype, depth)
            if end not in kept.arrays or not kept.arrays[end].is_at(_file(folder, case, end)):
                return False
    except DataSetError:
        return False
    return True


def _states(pair: CaseFiles) -> dict[str, FileState | None]:
    """Look at scan and mask, and hash them: None for what is missing or can't be read, which its facts will say."""
    states: dict[str, FileState | None] = {}
    for name, file in (("scan", pair.scan), ("mask", pair.mask)):
        try:
            states[name] = FileState.read(file) if file and atomic.is_file(file) else None
        except OSError:
            states[name] = None
    return states


def _is_still(pair: CaseFiles, states: Mapping[str, FileState | None]) -> bool:
    """Tell whether the files of a case are those that were hashed."""
    known = ((states.get("scan"), pair.scan), (states.get("mask"), pair.mask))
    return all(state.is_seen_at(file) for state, file in known if state and file)


def _fingerprint(data_set: DataSet, states: list[Mapping[str, FileState | None]]) -> str:
    """Hash names, sizes and contents of what a store was made of, and what counts as tumour; wherever it lies."""
    lines = []
    for pair, known in zip(data_set.pairs, states, strict=True):
        for name, file in (("scan", pair.scan), ("mask", pair.mask)):
            state = known.get(name)
            if file:
                content = f"{state.size} {state.sha256}" if state else "unreadable"
                lines.append(f"{pair.case} {name} {contents.relative(file, data_set.root)} {content}")
        lines.append(f"{pair.case} patient {pair.patient} {pair.legend}")
    return contents.fingerprint(lines)


def _write_alike(folder: Path, data_set: DataSet) -> None:
    """Find cases that show one examination, unless that was done for these very scans."""
    cases = [kept for pair in data_set.pairs if (kept := _kept(folder, pair)) and kept.facts.scan]
    known = {kept.pair.case: kept.facts.scan.thumbnail for kept in cases if kept.facts.scan}
    thumbnails = {case: thumbnail for case, thumbnail in known.items() if thumbnail}
    made_of = contents.fingerprint(f"{case} {thumbnail.packed}" for case, thumbnail in thumbnails.items())
    kept_alike = _kept_alike(folder)
    if kept_alike is None or kept_alike.made_of != made_of:
        found = [asdict(each) for each in alike(thumbnails)]
        _write_json(folder / ALIKE, {"made_of": made_of, "alike": found})


@dataclass(frozen=True, slots=True)
class _Alike:
    """What ALIKE holds: pairs, and a hash of the thumbnails in which they were found."""

    made_of: str
    alike: tuple[Likeness, ...]


def _kept_alike(folder: Path) -> _Alike | None:
    try:
        return decode_file(_Alike, folder / ALIKE, _damaged)
    except DataSetError:
        return None


def _read_alike(folder: Path) -> tuple[Likeness, ...]:
    kept = _kept_alike(folder)
    return kept.alike if kept else ()


def _file(folder: Path, case: str, end: str) -> Path:
    """Name a file of a case; names that no file of ours can have are cut and told apart by a hash."""
    if not atomic.is_name(case):
        start = os.fsencode(case.replace("/", "_").replace("\0", "_"))[:LONGEST_START].decode(errors="ignore")
        case = f"{start}-{hashlib.sha256(case.encode(errors='backslashreplace')).hexdigest()[:16]}"
    return folder / f"{case}{end}"


def _index_of(folder: Path) -> JsonObject:
    """Read the index of a store; empty where there is none, or a damaged one."""
    try:
        return decode_file(dict[str, object], folder / INDEX, _damaged)
    except DataSetError:
        return {}


def _read_index(folder: Path) -> tuple[DataSet, int]:
    """Read what a store was made of, and its layout."""
    if not atomic.is_file(folder / INDEX):
        raise DataSetError(f"{folder} is no slice store.", "Make one with `lungseg prepare DATASET -o STORE`.")
    fields = _index_of(folder)
    layout = fields.get("store_layout")
    if layout not in READABLE:
        raise _other_layout(folder, layout)
    return decode_value(DataSet, fields.get("data_set"), _damaged), int(layout)


def _damaged(reason: str) -> DataSetError:
    return DataSetError(f"The slice store is damaged ({reason}).", "Delete its folder and run `lungseg prepare` again.")


def _other_layout(folder: Path, found: object) -> DataSetError:
    made = "is damaged" if found is None else f"was made by layout {str(found)[:LONGEST_VERSION]} of the store"
    return DataSetError(
        f"The store {folder} {made}; this release reads layout {LAYOUT}.",
        "Run `lungseg prepare` again on its data set, into another folder if this one is of a newer release.",
    )


def _check_target(folder: Path) -> None:
    """Refuse to write among files that are not ours."""
    if atomic.is_file(folder):
        raise DataSetError(f"{folder} is a file.", "Give a folder for the store.")
    if atomic.is_file(folder / INDEX):
        layout = _index_of(folder).get("store_layout")
        if not isinstance(layout, int) or layout > LAYOUT:
            raise _other_layout(folder, layout)
    elif atomic.is_folder(folder) and any(file.name != LOCK for file in folder.iterdir()):
        raise DataSetError(f"{folder} holds files that are no slice store.", "Give a new or an empty folder.")


@dataclass(frozen=True, slots=True)
class _CaseFile:
    """What a case's JSON holds.

    Attributes:
        pair: what the case was made from.
        files: scan and mask as they were then.
        facts: all that was measured.
        slice_tumour_px: tumour pixels of each slice on the canvas; none where the case can't be used.
        arrays: as they were written, by their endings.
    """

    pair: CaseFiles
    files: dict[str, FileState | None]
    facts: CaseFacts
    slice_tumour_px: tuple[Natural, ...]
    arrays: dict[str, FileState] = field(default_factory=dict)

    @property
    def is_hashed(self) -> bool:
        """Whether it says what its files contained, as it does since layout 2; of a missing file there is nothing."""
        return all(state is None or state.sha256 is not None for state in self.files.values())

    def holds(self, states: Mapping[str, FileState | None]) -> bool:
        """Tell whether it was made from files of these contents."""
        ours, theirs = ({name: state and state.sha256 for name, state in each.items()} for each in (self.files, states))
        is_passing = self.facts.failure is not None and self.facts.failure.code in PASSING
        return self.is_hashed and not is_passing and ours == theirs

    def is_of(self, pair: CaseFiles) -> bool:
        """Tell whether it is about a case, and whole."""
        facts, slices = self.facts, len(self.slice_tumour_px)
        is_named = self.pair == pair and (facts.case, facts.patient) == (pair.case, pair.patient)
        depth = facts.scan.shape[2] if facts.scan and facts.is_usable else 0
        return is_named and slices == depth and (facts.scan is not None or not facts.is_usable)


def _kept(folder: Path, pair: CaseFiles) -> _CaseFile | None:
    """Read what is kept of a case; None where that is missing, damaged, or was made from other files."""
    try:
        kept = decode_file(_CaseFile, _file(folder, pair.case, CASE_END), _damaged)
    except DataSetError:
        return None
    return kept if kept.is_of(pair) else None


def _stored(folder: Path, kept: _CaseFile) -> StoredCase:
    pair = kept.pair
    return StoredCase(
        folder, pair.scan, pair.mask, kept.facts, kept.slice_tumour_px, pair.legend, kept.files, kept.arrays
    )


def _remove_others(folder: Path, data_set: DataSet) -> None:
    """Remove cases that the data set no longer has, and what killed processes left half written."""
    wanted = {_file(folder, pair.case, end).name for pair in data_set.pairs for end in CASE_FILES}
    for file in folder.iterdir():
        if file.name.endswith(CASE_FILES) and file.name not in wanted:
            file.unlink(missing_ok=True)
    atomic.remove_partials(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a store."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise DataSetError(f"Another process is preparing {folder}.", "Wait until it has ended.") from error


def _write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array, complete or not at all; who has the old one mapped keeps that."""
    with atomic.replacing_path(path) as partial, partial.open("wb") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    atomic.write_bytes(path, json.dumps(fields, allow_nan=False).encode())


def _mapped(path: Path, dtype: np.dtype[Any], depth: int) -> NDArray[Any]:
    header = _header(path, dtype, depth)
    with _reading(path):
        return np.memmap(path, dtype, mode="r", offset=header.start, shape=header.shape)


def _read(path: Path, header: ArrayHeader, first: int, last: int) -> NDArray[Any]:
    size = CANVAS.size**2
    with _reading(path):
        start = header.start + first * size * header.dtype.itemsize
        flat = np.fromfile(path, header.dtype, (last - first) * size, offset=start)
        return flat.reshape(last - first, CANVAS.size, CANVAS.size)


@lru_cache(maxsize=MOST_LAYOUTS)
def _header(path: Path, dtype: np.dtype[Any], depth: int) -> ArrayHeader:
    """Read the header of an array, which has to be of this type and this many slices."""
    with _reading(path):
        with path.open("rb") as stream:
            header = read_array_header(stream, path.stat().st_size)
        if (header.dtype, header.shape, header.order) != (dtype, (depth, CANVAS.size, CANVAS.size), "C"):
            raise ValueError(f"it holds {header.dtype} in the shape {header.shape}")
    return header


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise DataSetError(
            f"{path.name} can't be read ({error}).", "Run `lungseg prepare` again on the store's data set."
        ) from error
