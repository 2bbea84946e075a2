"""The slice store: the slices of a data set on a network's canvas, memory-mapped, with what is known of each case.

::

    STORE/index.json           layout version, canvas, the data set as it was then
    STORE/alike.json           cases that show one examination
    STORE/<case>.hu.npy        (K, 256, 256) int16: axial slices as films are hung, HU averaged over the area of a pixel
    STORE/<case>.tumour.npy    (K, 256, 256) uint8: 1 in tumour, 2 where it is not known, by nearest neighbour; only
                               where there is a mask
    STORE/<case>.case.png      small picture of the slice with most tumour
    STORE/<case>.case.json     states of its files and arrays, facts, tumour pixels of each slice; written last

Slices are those of `Preprocessing`, before HU are scaled: `hu / 3071` is what `Preprocessing().slice_stack` gives, to
half a HU. A case whose scan or mask can't be used has its JSON alone. Names too long for files are cut.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from lungseg.dataset.contents import FileState, changed_meanwhile, fingerprint, first_few
from lungseg.dataset.fingerprint import CaseFacts, LoadedCase, ScanFacts, facts_of, read_pair
from lungseg.dataset.layout import CaseFiles, DataSet
from lungseg.dataset.likeness import Likeness, alike
from lungseg.dataset.parallel import UNREADABLE, OnProgress, ShouldStop, Work, map_in_processes
from lungseg.decoding import JsonObject, Natural, decode_file, decode_value, to_plain
from lungseg.errors import DataChangedError, DataSetError
from lungseg.files import atomic
from lungseg.files.arrays import ArrayHeader, read_array_header
from lungseg.records.run_states import Failure
from lungseg.scans import overlay
from lungseg.scans.canvas import CanvasGeometry, Preprocessing, to_display
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume

LAYOUT = 2
"""Version of the store's layout; one of a newer release is refused."""
READABLE = (1, LAYOUT)
"""Layouts that can be opened; the first has no hashes and no legends."""
INDEX, LOCK, ALIKE = "index.json", ".lock", "alike.json"
CANVAS = Preprocessing()
"""Size of the canvas, and the HU to which slices are clipped before they are averaged."""
AIR_HU = -1000.0
"""Fills the canvas beside a slice."""
TUMOUR, IGNORED = 1, 2
SMALL_PICTURE_PX = 144
HU_END, TUMOUR_END, PICTURE_END, CASE_END = ".hu.npy", ".tumour.npy", ".case.png", ".case.json"
TYPES: dict[str, np.dtype[Any]] = {HU_END: np.dtype(np.int16), TUMOUR_END: np.dtype(np.uint8)}
CASE_ENDS = (*TYPES, PICTURE_END, CASE_END)
PASSING = frozenset({UNREADABLE, DataChangedError.code})
"""Codes of failures that may be gone the next time: such a case is read again."""
LONGEST_START = 120
"""Bytes that remain of a name that is too long."""
LONGEST_VERSION = 40
MOST_LAYOUTS = 4096
"""Files whose header is remembered; a few hundred bytes each."""


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case of the store, as its JSON holds it.

    Attributes:
        pair: its files.
        files: states of scan and mask when they were read; None for one that was missing or unreadable.
        facts: what was measured.
        slice_tumour_px: tumour pixels of each slice on the canvas; empty where the case can't be used.
        arrays: states of its arrays when they were written, by their endings.
        folder: the store; not in the JSON.
    """

    pair: CaseFiles
    files: Mapping[str, FileState | None]
    facts: CaseFacts
    slice_tumour_px: tuple[Natural, ...]
    arrays: Mapping[str, FileState] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def case(self) -> str:
        """Its name."""
        return self.pair.case

    @property
    def patient(self) -> str:
        """Who it shows."""
        return self.pair.patient

    @property
    def record(self) -> dict[str, str]:
        """What makes a difference to training; see `contents.Record`."""
        hashes = {name: state.sha256 for name, state in self.files.items() if state and state.sha256}
        legend = self.pair.legend
        classes = "" if legend is None else f"{legend.tumour}, ignored {legend.ignored}"
        return {**hashes, "patient": self.patient, "tumour class": classes}

    @property
    def has_ignored(self) -> bool:
        """Whether there are pixels that are neither tumour nor background."""
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
        return self._map(HU_END)

    @property
    def tumour(self) -> NDArray[np.uint8]:
        """Map the masks of the slices into memory: (K, size, size) uint8, 1 in tumour, 2 where it is not known."""
        return self._map(TUMOUR_END)

    def hu_of(self, first: int, last: int) -> NDArray[np.int16]:
        """Read the slices first <= k < last: (last - first, size, size) int16. Quicker than to map all."""
        return self._read(HU_END, first, last)

    def tumour_of(self, k: int) -> NDArray[np.uint8]:
        """Read the mask of a slice: (size, size) uint8, 1 in tumour, 2 where it is not known."""
        mask: NDArray[np.uint8] = self._read(TUMOUR_END, k, k + 1)[0]
        return mask

    @property
    def picture(self) -> Path:
        """PNG of the slice with most tumour."""
        return picture_path(self.folder, self.case)

    @property
    def is_hashed(self) -> bool:
        """Whether the states of its files have hashes, as they do since layout 2."""
        return all(state is None or state.sha256 is not None for state in self.files.values())

    @property
    def is_passing(self) -> bool:
        """Whether it failed for a reason that may be gone the next time."""
        return self.facts.failure is not None and self.facts.failure.code in PASSING

    def is_of(self, pair: CaseFiles) -> bool:
        """Tell whether it was made of these files, and is whole."""
        facts, slices = self.facts, len(self.slice_tumour_px)
        is_same = self.pair == pair and (facts.case, facts.patient) == (pair.case, pair.patient)
        depth = facts.scan.shape[2] if facts.scan and facts.is_usable else 0
        return is_same and slices == depth and (facts.scan is not None or not facts.is_usable)

    def has_contents(self, states: Mapping[str, FileState | None]) -> bool:
        """Tell whether it was made from files of these contents, and need not be made again."""
        ours, theirs = (
            {name: state and state.sha256 for name, state in files.items()} for files in (self.files, states)
        )
        return self.is_hashed and not self.is_passing and ours == theirs

    def is_intact(self) -> bool:
        """Tell whether its arrays are those that were written, and its thumbnail can be read."""
        scan = self.facts.scan
        ends = list(TYPES)[: len(self.pair.files)] if self.slice_tumour_px else []
        try:
            if scan and scan.thumbnail:
                scan.thumbnail.unpack()
            for end in ends:
                path = _file(self.folder, self.case, end)
                _header.__wrapped__(path, TYPES[end], len(self.slice_tumour_px))
                if end not in self.arrays or not self.arrays[end].matches(path):
                    return False
        except DataSetError:
            return False
        return True

    @property
    def _scan_facts(self) -> ScanFacts:
        if self.facts.scan is None:
            raise DataSetError(f"The scan of {self.case} can't be used.", "Look into the findings of the data set.")
        return self.facts.scan

    def _map(self, end: str) -> NDArray[Any]:
        path = _file(self.folder, self.case, end)
        header = _header(path, TYPES[end], len(self.slice_tumour_px))
        with _reading(path):
            return np.memmap(path, header.dtype, mode="r", offset=header.start, shape=header.shape)

    def _read(self, end: str, first: int, last: int) -> NDArray[Any]:
        path, size = _file(self.folder, self.case, end), CANVAS.size**2
        header = _header(path, TYPES[end], len(self.slice_tumour_px))
        with _reading(path):
            start = header.start + first * size * header.dtype.itemsize
            flat = np.fromfile(path, header.dtype, (last - first) * size, offset=start)
            return flat.reshape(last - first, CANVAS.size, CANVAS.size)


@dataclass(frozen=True, slots=True)
class SliceStore:
    """A store that is complete.

    Attributes:
        folder: where it lies.
        data_set: what it was made from, as it was then.
        facts: of all cases, also of those that could not be used.
        cases: usable ones with a mask, sorted.
        unlabelled: usable ones without.
        fingerprint: sha256 of names, sizes and contents of its files; None where a release up to 0.1 made it.
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
        cases = [case for pair in data_set.pairs if (case := _read_case(folder, pair))]
        cases = [case for case in cases if case.is_hashed or layout < LAYOUT]
        if len(cases) < len(data_set.pairs):
            raise DataSetError(
                f"The store {folder} is not complete: {len(data_set.pairs) - len(cases)} of {len(data_set.pairs)} "
                "cases are missing, or damaged.",
                "Run `lungseg prepare` again: it goes on where it ended.",
            )
        alike = _read_alike(folder)
        return cls(
            folder=folder,
            data_set=data_set,
            facts=tuple(case.facts for case in cases),
            cases=tuple(case for case in cases if case.facts.is_usable and case.pair.mask),
            unlabelled=tuple(case for case in cases if case.facts.is_usable and not case.pair.mask),
            fingerprint=_fingerprint(data_set.root, cases) if layout == LAYOUT else None,
            alike=alike.alike if alike else (),
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
        if atomic.is_file(_file(case.folder, case.case, end)) and not state.matches(_file(case.folder, case.case, end))
    )
    if changed:
        raise DataChangedError(
            f"The slices of the store changed while they were in use ({first_few(changed)}).",
            "What was trained before is kept. Let nobody prepare the data set while it is trained on; start a new run.",
        )


def changed_sources(cases: Iterable[StoredCase]) -> tuple[str, ...]:
    """Name cases whose scan or mask has changed since the store was made; missing files don't count."""
    return tuple(
        f"{case.case}: {name}"
        for case in cases
        for name, file in case.pair.files.items()
        if (state := case.files.get(name)) and state.sha256 and atomic.is_file(file) and not state.matches(file)
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
        workers: processes at once, see `parallel.map_in_processes`.
        on_progress: called after each case.
        should_stop: called a few times per second.

    Raises:
        DataSetError: the folder holds something else or a store of a newer layout, or another process is preparing it.
        StorageError: it can't be written.
        RunCancelledError: `should_stop` returned true; the next call goes on from there.
    """
    folder = atomic.resolved(folder)
    _check_target(folder)
    with atomic.disk_errors(f"The store {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            index = {"store_layout": LAYOUT, "canvas": CANVAS.size, "data_set": to_plain(data_set)}
            _write_json(folder / INDEX, index)
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
    states = _states(pair)
    case = _read_case(folder, pair)
    if case and case.has_contents(states) and case.is_intact():
        _write_case(replace(case, files=states))
        return pair.case
    _remove_case(folder, pair.case)
    loaded = read_pair(pair)
    if not all(state.is_unchanged(file) for name, file in pair.files.items() if (state := states[name])):
        loaded = LoadedCase(pair, Failure.of(changed_meanwhile(pair.scan)))
    tumour_px: list[int] = []
    if loaded.volume is not None and loaded.failure is None:
        tumour_px = _write_slices(folder, loaded, loaded.volume)
    arrays = {end: FileState.read(path) for end in TYPES if (path := _file(folder, pair.case, end)).exists()}
    _write_case(StoredCase(pair, states, facts_of(loaded), tuple(tumour_px), arrays, folder))
    return pair.case


def _leave_out(order: tuple[Path, CaseFiles], failure: Failure) -> str:
    """Leave out a case that could not be read because of a fault; the next call tries it again."""
    folder, pair = order
    _remove_case(folder, pair.case)
    _write_case(StoredCase(pair, {}, CaseFacts(pair.case, pair.patient, failure), (), folder=folder))
    return pair.case


def _remove_case(folder: Path, case: str) -> None:
    for end in CASE_ENDS:
        _file(folder, case, end).unlink(missing_ok=True)


def _write_case(case: StoredCase) -> None:
    fields = to_plain(case)
    del fields["folder"]
    _write_json(_file(case.folder, case.case, CASE_END), fields)


def _write_json(path: Path, fields: JsonObject) -> None:
    atomic.write_bytes(path, json.dumps(fields, allow_nan=False).encode())


def _write_slices(folder: Path, loaded: LoadedCase, volume: Volume) -> list[int]:
    """Write the arrays and the picture of a case; return the tumour pixels of each slice."""
    case, depth, mask = loaded.pair.case, volume.grid.shape[2], loaded.mask
    frame = CanvasGeometry.of(volume.grid, CANVAS.size)
    inside = mask.inside if mask else np.zeros(volume.grid.shape, dtype=np.bool_)
    _write_array(_file(folder, case, HU_END), np.stack([_hu_on_canvas(volume, frame, k) for k in range(depth)]))
    tumour = _mask_on_canvas(inside, frame)
    if mask:
        marks = tumour.copy()
        if mask.ignored is not None:
            marks[(_mask_on_canvas(mask.ignored, frame) > 0) & (tumour == 0)] = IGNORED
        _write_array(_file(folder, case, TUMOUR_END), marks)
    picture = overlay.draw_thumbnail(volume, inside, SMALL_PICTURE_PX, overlay.REFERENCE_RGB)
    overlay.write_png(picture_path(folder, case), picture)
    return [int(px) for px in np.count_nonzero(tumour, axis=(1, 2))]


def _hu_on_canvas(volume: Volume, frame: CanvasGeometry, k: int) -> NDArray[np.int16]:
    """Return axial slice k for the store: HU clipped, averaged onto the canvas, rounded."""
    plane = np.clip(to_display(volume.hu[:, :, k]), CANVAS.hu_floor, CANVAS.hu_ceiling).astype(np.float32)
    return np.rint(frame.to_canvas(plane, fill=AIR_HU)).astype(np.int16)


def _mask_on_canvas(mask: NDArray[np.bool_], frame: CanvasGeometry) -> NDArray[np.uint8]:
    return np.stack([frame.mask_to_canvas(to_display(mask[:, :, k])) for k in range(mask.shape[2])])


def _is_current(folder: Path, pair: CaseFiles) -> bool:
    """Tell, as far as the file system knows, whether a case is complete and was made from these very files."""
    case = _read_case(folder, pair)
    if case is None or not case.is_hashed or case.is_passing:
        return False
    states = {name: (case.files.get(name), file) for name, file in pair.files.items()}
    is_unchanged = all(
        state.is_unchanged(file) if state else not atomic.is_file(file) for state, file in states.values()
    )
    return is_unchanged and case.is_intact()


def _states(pair: CaseFiles) -> dict[str, FileState | None]:
    """Read and hash scan and mask; None for one that is missing or can't be read, as its facts will say."""
    states: dict[str, FileState | None] = {"scan": None, "mask": None}
    for name, file in pair.files.items():
        with suppress(OSError):
            states[name] = FileState.read(file) if atomic.is_file(file) else None
    return states


def _fingerprint(root: Path, cases: Iterable[StoredCase]) -> str:
    """Hash names, sizes and contents of the files of a store, and what counts as tumour; wherever they lie."""
    lines = []
    for case in cases:
        for name, file in case.pair.files.items():
            state = case.files.get(name)
            content = f"{state.size} {state.sha256}" if state else "unreadable"
            lines.append(f"{case.case} {name} {os.path.relpath(file, root)} {content}")
        lines.append(f"{case.case} patient {case.patient} {case.pair.legend}")
    return fingerprint(lines)


@dataclass(frozen=True, slots=True)
class _Alike:
    """The content of ALIKE: pairs, and a hash of the thumbnails that were compared."""

    made_of: str
    alike: tuple[Likeness, ...]


def _write_alike(folder: Path, data_set: DataSet) -> None:
    """Find cases that show one examination, unless that was done for these very scans."""
    scans = {pair.case: case.facts.scan for pair in data_set.pairs if (case := _read_case(folder, pair))}
    thumbnails = {case: scan.thumbnail for case, scan in scans.items() if scan and scan.thumbnail}
    made_of = fingerprint(f"{case} {thumbnail.packed}" for case, thumbnail in thumbnails.items())
    current = _read_alike(folder)
    if current is None or current.made_of != made_of:
        _write_json(folder / ALIKE, to_plain(_Alike(made_of, alike(thumbnails))))


def _read_alike(folder: Path) -> _Alike | None:
    try:
        return decode_file(_Alike, folder / ALIKE, _damaged)
    except DataSetError:
        return None


def _file(folder: Path, case: str, end: str) -> Path:
    """Return the path of a file of a case; a name that no file of ours can have is cut, and a hash makes it unique."""
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
    """Return the data set that a store was made of, and its layout."""
    if not atomic.is_file(folder / INDEX):
        raise DataSetError(f"{folder} is no slice store.", "Make one with `lungseg prepare DATASET -o STORE`.")
    fields = _index_of(folder)
    layout = fields.get("store_layout")
    if layout not in READABLE:
        raise _other_layout(folder, layout)
    return decode_value(DataSet, fields.get("data_set"), _damaged), int(layout)


def _damaged(reason: str) -> DataSetError:
    return DataSetError(f"The slice store is damaged ({reason}).", "Delete its folder and run `lungseg prepare` again.")


def _other_layout(folder: Path, layout: object) -> DataSetError:
    state = "is damaged" if layout is None else f"was made by layout {str(layout)[:LONGEST_VERSION]} of the store"
    return DataSetError(
        f"The store {folder} {state}; this release reads layout {LAYOUT}.",
        "Run `lungseg prepare` again on its data set, into another folder if this one is of a newer release.",
    )


def _check_target(folder: Path) -> None:
    """Refuse a folder with files that are not of a store."""
    if atomic.is_file(folder):
        raise DataSetError(f"{folder} is a file.", "Give a folder for the store.")
    if atomic.is_file(folder / INDEX):
        layout = _index_of(folder).get("store_layout")
        if not isinstance(layout, int) or layout > LAYOUT:
            raise _other_layout(folder, layout)
    elif atomic.is_folder(folder) and any(file.name != LOCK for file in folder.iterdir()):
        raise DataSetError(f"{folder} holds files that are no slice store.", "Give a new or an empty folder.")


def _read_case(folder: Path, pair: CaseFiles) -> StoredCase | None:
    """Read the JSON of a case; None where it is missing, damaged, or was made from other files."""
    try:
        case = decode_file(StoredCase, _file(folder, pair.case, CASE_END), _damaged)
    except DataSetError:
        return None
    return replace(case, folder=folder) if case.is_of(pair) else None


def _remove_others(folder: Path, data_set: DataSet) -> None:
    """Remove cases that the data set no longer has, and files that killed processes left half written."""
    names = {_file(folder, pair.case, end).name for pair in data_set.pairs for end in CASE_ENDS}
    for file in folder.iterdir():
        if file.name.endswith(CASE_ENDS) and file.name not in names:
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
    """Write an array, complete or not at all; a process that has the old one mapped keeps that."""
    with atomic.replacing_path(path) as partial, partial.open("wb") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)


@lru_cache(maxsize=MOST_LAYOUTS)
def _header(path: Path, dtype: np.dtype[Any], depth: int) -> ArrayHeader:
    """Read the header of an array, which has to have this type and this many slices."""
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
