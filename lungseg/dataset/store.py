"""The slice store: the slices of a data set on a network's canvas, memory-mapped, with all that is known of each case.

::

    STORE/index.json           layout version, canvas, the data set as it was found
    STORE/<case>.hu.npy        (K, 256, 256) int16: axial slices as films are hung, HU averaged over the area of a pixel
    STORE/<case>.tumour.npy    (K, 256, 256) uint8: 1 in tumour, by nearest neighbour; only where there is a mask
    STORE/<case>.case.png      small picture of the slice with most tumour
    STORE/<case>.case.json     what its files were, facts, tumour pixels of each slice; written last

Slices are those of `preprocessing`, before HU are scaled: `hu / 3071` is what `Preprocessing().slice_stack` gives, to
half a HU. A case whose scan or mask can't be used has its JSON alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from lungseg import files, overlay
from lungseg.arrays import ArrayHeader, read_header
from lungseg.dataset.facts import CaseFacts, Reading, ScanFacts, facts_of, read_pair
from lungseg.dataset.layout import DataSet, Pair
from lungseg.dataset.parallel import OnProgress, ShouldStop, each
from lungseg.decoding import Natural, decode_file, decode_value
from lungseg.errors import DataSetError
from lungseg.preprocessing import Frame, Preprocessing, hang
from lungseg.volume import Grid, Volume

LAYOUT = 1
"""Version of the store's layout; one made by another is refused."""
INDEX, LOCK = "index.json", ".lock"
CANVAS = Preprocessing()
"""Size of the canvas, and the HU to which slices are clipped before they are averaged."""
AIR_HU = -1000.0
"""What lies beside a slice on its canvas."""
HU_TYPE, TUMOUR_TYPE = np.dtype(np.int16), np.dtype(np.uint8)
SMALL_PICTURE_PX = 144
HU_END, TUMOUR_END, PICTURE_END, CASE_END = ".hu.npy", ".tumour.npy", ".case.png", ".case.json"
CASE_FILES = (HU_END, TUMOUR_END, PICTURE_END, CASE_END)
LONGEST_VERSION = 40
MOST_LAYOUTS = 4096
"""Files whose header is remembered; a few hundred bytes each."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """By what it is told whether a file has changed: size and time of its last change."""

    size: int
    changed_ns: int

    @classmethod
    def of(cls, file: Path | None) -> Fingerprint | None:
        """Look at a file; None where there is none."""
        if file is None or not file.is_file():
            return None
        state = file.stat()
        return cls(state.st_size, state.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case of the store.

    Attributes:
        folder: the store.
        scan: its scan, for validation on the whole volume.
        mask: its mask; None where it has none.
        facts: all that was measured.
        slice_tumour_px: tumour pixels of each slice on the canvas.
    """

    folder: Path
    scan: Path
    mask: Path | None
    facts: CaseFacts
    slice_tumour_px: tuple[int, ...]

    @property
    def case(self) -> str:
        """Its name."""
        return self.facts.case

    @property
    def patient(self) -> str:
        """Who it shows."""
        return self.facts.patient

    @property
    def content_sha256(self) -> str:
        """Of the scan's voxels."""
        return self.facts.content_sha256

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the scan's voxels, along R, A, S."""
        return self._scan_facts.spacing_mm

    @property
    def frame(self) -> Frame:
        """Where its slices lie on their canvas."""
        return Frame.of(Grid(self._scan_facts.shape, np.diag([*self.spacing_mm, 1.0])), CANVAS.size)

    @property
    def hu(self) -> NDArray[np.int16]:
        """Map the slices into memory: (K, size, size) int16, k = 0 is the lowest. Each call opens the file: keep it."""
        return _mapped(self.folder / f"{self.case}{HU_END}", HU_TYPE, len(self.slice_tumour_px))

    @property
    def tumour(self) -> NDArray[np.uint8]:
        """Map the masks of the slices into memory: (K, size, size) uint8, 1 in tumour."""
        return _mapped(self.folder / f"{self.case}{TUMOUR_END}", TUMOUR_TYPE, len(self.slice_tumour_px))

    def hu_of(self, first: int, last: int) -> NDArray[np.int16]:
        """Read the slices first <= k < last: (last - first, size, size) int16. Quicker than to map all."""
        path = self.folder / f"{self.case}{HU_END}"
        return _read(path, _header(path, HU_TYPE, len(self.slice_tumour_px)), first, last)

    def tumour_of(self, k: int) -> NDArray[np.uint8]:
        """Read the mask of a slice: (size, size) uint8, 1 in tumour."""
        path = self.folder / f"{self.case}{TUMOUR_END}"
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
    """

    folder: Path
    data_set: DataSet
    facts: tuple[CaseFacts, ...]
    cases: tuple[StoredCase, ...]
    unlabelled: tuple[StoredCase, ...]

    @classmethod
    def open(cls, folder: Path) -> SliceStore:
        """Open a store.

        Raises:
            DataSetError: it is none, is not complete, is damaged, or was made by another layout.
        """
        folder = files.resolved(folder)
        data_set = _read_index(folder)
        stored = [_read_case(folder, pair) for pair in data_set.pairs]
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
        )


def picture_path(folder: Path, case: str) -> Path:
    """Name the small picture of a case in a store."""
    return folder / f"{case}{PICTURE_END}"


def is_current_layout(folder: Path) -> bool:
    """Tell whether a folder is a store of the layout that this release reads, complete or not."""
    return _index_of(folder).get("store_layout") == LAYOUT


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

    A case that can't be used does not stop the others; its facts say why.

    Args:
        data_set: what to prepare.
        folder: of the store; made where it does not exist.
        workers: processes at once; None for as many as the machine has processors and memory for.
        on_progress: told of each case that is done.
        should_stop: asked a few times a second.

    Raises:
        DataSetError: the folder holds something else or a store of another layout, another process is preparing it,
            or memory ran out.
        StorageError: it can't be written.
        RunCancelledError: `should_stop` said so; the next call goes on from there.
    """
    folder = files.resolved(folder)
    _check_target(folder)
    with files.disk_errors(f"The store {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            _write_json(folder / INDEX, {"store_layout": LAYOUT, "canvas": CANVAS.size, "data_set": data_set.to_json()})
            _remove_others(folder, data_set)
            orders = [(folder, pair) for pair in data_set.pairs if not _is_current(folder, pair)]
            for _ in each(
                "preparing", _prepare_case, orders, workers=workers, on_progress=on_progress, should_stop=should_stop
            ):
                pass
    return SliceStore.open(folder)


def _prepare_case(order: tuple[Path, Pair]) -> str:
    """Make the files of one case; runs in a process of its own."""
    folder, pair = order
    found = _fingerprints(pair)
    for end in CASE_FILES:
        (folder / f"{pair.case}{end}").unlink(missing_ok=True)
    reading = read_pair(pair)
    tumour_px: list[int] = []
    if reading.volume is not None and reading.failure is None:
        tumour_px = _write_slices(folder, reading, reading.volume)
    _write_json(
        folder / f"{pair.case}{CASE_END}",
        {
            "pair": _pair_json(pair),
            "files": {name: each and asdict(each) for name, each in found.items()},
            "facts": facts_of(reading).to_json(),
            "slice_tumour_px": tumour_px,
        },
    )
    return pair.case


def _write_slices(folder: Path, reading: Reading, volume: Volume) -> list[int]:
    """Write the arrays and the picture of a case; returns the tumour pixels of each slice."""
    case, depth = reading.pair.case, volume.grid.shape[2]
    frame = Frame.of(volume.grid, CANVAS.size)
    inside = reading.label_map.inside if reading.label_map else np.zeros(volume.grid.shape, dtype=np.bool_)
    _write_array(folder / f"{case}{HU_END}", np.stack([on_canvas(volume, frame, k) for k in range(depth)]))
    tumour = np.stack([frame.shrink_mask(hang(inside[:, :, k])) for k in range(depth)])
    if reading.label_map:
        _write_array(folder / f"{case}{TUMOUR_END}", tumour)
    picture = overlay.thumbnail(volume, inside, SMALL_PICTURE_PX, overlay.REFERENCE_RGB)
    overlay.write_png(picture_path(folder, case), picture)
    return [int(px) for px in np.count_nonzero(tumour, axis=(1, 2))]


def on_canvas(volume: Volume, frame: Frame, k: int) -> NDArray[np.int16]:
    """Return axial slice k as it stands in the store: HU clipped, averaged onto the canvas, rounded."""
    hung = np.clip(hang(volume.hu[:, :, k]), CANVAS.hu_floor, CANVAS.hu_ceiling).astype(np.float32)
    return np.rint(frame.shrink(hung, fill=AIR_HU)).astype(np.int16)


def _is_current(folder: Path, pair: Pair) -> bool:
    """Tell whether a case is there and was made from these very files."""
    kept = _kept(folder, pair)
    return kept is not None and kept.files == _fingerprints(pair) and _has_arrays(folder, kept)


def _has_arrays(folder: Path, kept: _CaseFile) -> bool:
    """Tell whether the arrays of a case are there, as far as their headers and sizes tell."""
    depth = len(kept.slice_tumour_px)
    wanted = [(HU_END, HU_TYPE), (TUMOUR_END, TUMOUR_TYPE)][: 1 if kept.pair.mask is None else 2]
    try:
        for end, dtype in wanted if depth else ():
            _header.__wrapped__(folder / f"{kept.pair.case}{end}", dtype, depth)
    except DataSetError:
        return False
    return True


def _fingerprints(pair: Pair) -> dict[str, Fingerprint | None]:
    return {"scan": Fingerprint.of(pair.scan), "mask": Fingerprint.of(pair.mask)}


def _index_of(folder: Path) -> dict[str, Any]:
    """Read the index of a store; empty where there is none, or a damaged one."""
    try:
        return decode_file(dict[str, Any], folder / INDEX, _damaged)
    except DataSetError:
        return {}


def _read_index(folder: Path) -> DataSet:
    if not files.is_file(folder / INDEX):
        raise DataSetError(f"{folder} is no slice store.", "Make one with `lungseg prepare DATASET -o STORE`.")
    fields = _index_of(folder)
    _check_layout(folder, fields)
    return decode_value(DataSet, fields.get("data_set"), _damaged)


def _damaged(reason: str) -> DataSetError:
    return DataSetError(f"The slice store is damaged ({reason}).", "Delete its folder and run `lungseg prepare` again.")


def _check_layout(folder: Path, fields: Mapping[str, Any]) -> None:
    found = fields.get("store_layout")
    if found != LAYOUT:
        made = "is damaged" if found is None else f"was made by layout {str(found)[:LONGEST_VERSION]} of the store"
        raise DataSetError(
            f"The store {folder} {made}; this release reads layout {LAYOUT}.",
            "Delete the folder, or prepare into another one.",
        )


def _check_target(folder: Path) -> None:
    """Refuse to write among files that are not ours."""
    if files.is_file(folder):
        raise DataSetError(f"{folder} is a file.", "Give a folder for the store.")
    if files.is_file(folder / INDEX):
        _check_layout(folder, _index_of(folder))
    elif files.is_folder(folder) and any(file.name != LOCK for file in folder.iterdir()):
        raise DataSetError(f"{folder} holds files that are no slice store.", "Give a new or an empty folder.")


@dataclass(frozen=True, slots=True)
class _CaseFile:
    """What a case's JSON holds.

    Attributes:
        pair: what the case was made from.
        files: scan and mask as they were then.
        facts: all that was measured.
        slice_tumour_px: tumour pixels of each slice on the canvas; none where the case can't be used.
    """

    pair: Pair
    files: dict[str, Fingerprint | None]
    facts: CaseFacts
    slice_tumour_px: tuple[Natural, ...]

    def is_of(self, pair: Pair) -> bool:
        """Tell whether it is about a case, and whole."""
        facts, slices = self.facts, len(self.slice_tumour_px)
        is_named = self.pair == pair and (facts.case, facts.patient) == (pair.case, pair.patient)
        depth = facts.scan.shape[2] if facts.scan and facts.is_usable else 0
        return is_named and slices == depth and (facts.scan is not None or not facts.is_usable)


def _kept(folder: Path, pair: Pair) -> _CaseFile | None:
    """Read what is kept of a case; None where that is missing, damaged, or was made from other files."""
    try:
        kept = decode_file(_CaseFile, folder / f"{pair.case}{CASE_END}", _damaged)
    except DataSetError:
        return None
    return kept if kept.is_of(pair) else None


def _read_case(folder: Path, pair: Pair) -> StoredCase | None:
    """Read a case; None as in `_kept`."""
    kept = _kept(folder, pair)
    return StoredCase(folder, pair.scan, pair.mask, kept.facts, kept.slice_tumour_px) if kept else None


def _pair_json(pair: Pair) -> dict[str, str | None]:
    return {
        "case": pair.case,
        "patient": pair.patient,
        "scan": str(pair.scan),
        "mask": str(pair.mask) if pair.mask else None,
    }


def _remove_others(folder: Path, data_set: DataSet) -> None:
    """Remove cases that the data set no longer has, and what killed processes left half written."""
    wanted = {f"{pair.case}{end}" for pair in data_set.pairs for end in CASE_FILES}
    for file in folder.iterdir():
        if file.name.endswith(CASE_FILES) and file.name not in wanted:
            file.unlink(missing_ok=True)
    files.remove_partials(folder)


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
    with files.replacing_path(path) as partial, partial.open("wb") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    files.write_bytes(path, json.dumps(fields, allow_nan=False).encode())


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
            header = read_header(stream, path.stat().st_size)
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
