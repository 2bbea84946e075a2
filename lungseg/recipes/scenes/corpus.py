"""The corpus: whole scans, nodules in 3-D and slice crops; the one place that knows their layout.

A data folder holds a folder of each kind, named in `manifest`:

- whole scans as in the Medical Segmentation Decathlon (imagesTr + labelsTr, imagesTs);
- nodules in 3-D, 1 mm isotropic;
- consecutive slices of nodules with the number of radiologists who marked each pixel.

Everything is turned to slices as films are hung (row 0 anterior, column 0 the patient's right), HU as int16.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.dataset.contents import FileState, fingerprint
from lungseg.decoding import Finite, Natural, decode_value
from lungseg.errors import DataSetError
from lungseg.files.atomic import is_file, is_name
from lungseg.recipes.scenes.manifest import CorpusManifest, read_corpus_manifest
from lungseg.scans.canvas import stack_from_display, to_display
from lungseg.scans.formats import read_mask, read_volume
from lungseg.scans.geometry import Grid
from lungseg.scans.lungs import MARGIN_MM, CoarseScan, find_lungs
from lungseg.scans.volume import Volume

HU_PER_GREY, HU_OF_BLACK = 6, -1024
GREY_PER_READER = 60
CROP_PX = 64
CONSENSUS = 2
"""Readers who have to mark a pixel so that it counts as tumour; marked by fewer, it is neither."""
NODULE_MM = 1.0
CLOSING_MM = 10.0
SOFT_HU = (-30, 150)
"""Muscle, heart and liver, with a contrast medium or without."""
TISSUE_MM = 12.0
WALL_MM = 6.0

COPY_AGAIN = "Copy the data folder again, complete."

Row = TypeVar("Row")
Slices = NDArray[np.int16]
Marks = NDArray[np.uint8]
Points = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class CorpusScan:
    """A whole scan with its tumour mask.

    Attributes:
        name: its name in the data set.
        patient: its patient.
        hu: (K, rows, columns) int16.
        tumour: the same shape, 1 in tumour; all 0 where there is no label.
        room: the same shape, 1 where a tumour of the lung can lie: the lungs with their vessels and a few mm more.
        blood: the same shape, 1 between and in the lungs but not in tumour: soft tissue there takes up contrast.
        usable: for each slice, whether all tumour in it is marked.
        lung: (N, 3) slice, row, column of points in air-filled lung, usable slices only.
        wall: points of the lung near its boundary, likewise.
        chest: points between and around the lungs, heart and diaphragm included, likewise.
        tissue: points deep in soft tissue (muscle, heart, liver), in all slices.
        lesion: points in tumour, in all slices.
        grid: its RAS+ grid.
    """

    name: str
    patient: str
    hu: Slices
    tumour: Marks
    room: Marks
    blood: Marks
    usable: NDArray[np.bool_]
    lung: Points
    wall: Points
    chest: Points
    tissue: Points
    lesion: Points
    grid: Grid

    @property
    def pixel_mm(self) -> float:
        """Side of a pixel; those of CT are square."""
        return self.grid.spacing_mm[0]

    @property
    def slice_mm(self) -> float:
        """Distance of slices."""
        return self.grid.spacing_mm[2]

    @property
    def volume(self) -> Volume:
        """The scan as inference reads it."""
        return Volume(stack_from_display(self.hu), self.grid)

    @property
    def reference(self) -> NDArray[np.bool_]:
        """The tumour mask, (I, J, K) on `grid`."""
        return stack_from_display(self.tumour).astype(np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Nodule:
    """A nodule in 3-D with its surroundings.

    Attributes:
        patient: its patient.
        hu: (slices, rows, columns) int16, 1 mm isotropic.
        mask: the same shape, 1 in the nodule.
        extent_mm: largest side of its bounding box in the plane.
    """

    patient: str
    hu: Slices
    mask: Marks
    extent_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """The consecutive slices of a nodule with the marks of four radiologists.

    Attributes:
        patient: its patient.
        name: its name in the data set.
        hu: (slices, 64, 64) int16.
        readers: the same shape, the number of radiologists who marked the pixel.
        pixel_mm: side of a pixel.
        slice_mm: distance of slices.
    """

    patient: str
    name: str
    hu: Slices
    readers: Marks
    pixel_mm: float
    slice_mm: float

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Sides of a pixel of a slice and its thickness."""
        return self.pixel_mm, self.pixel_mm, self.slice_mm

    @property
    def consensus(self) -> NDArray[np.bool_]:
        """The pixels that at least two radiologists marked, (slices, 64, 64)."""
        return self.readers >= CONSENSUS

    @property
    def uncertain(self) -> NDArray[np.bool_]:
        """The pixels that one radiologist marked, (slices, 64, 64)."""
        return np.asarray(self.readers == CONSENSUS - 1)

    @property
    def extent_mm(self) -> float:
        """Side of a square as large as the nodule in its largest slice."""
        largest = int(self.consensus.sum(axis=(1, 2)).max())
        return math.sqrt(largest) * self.pixel_mm


@dataclass(frozen=True, slots=True)
class TrainingCorpus:
    """The sources of a data folder, or of one side of a split."""

    scans: tuple[CorpusScan, ...]
    nodules: tuple[Nodule, ...]
    crops: tuple[Crop, ...]

    @property
    def patients(self) -> tuple[str, ...]:
        """All patients, sorted."""
        return tuple(sorted({item.patient for group in (self.scans, self.nodules, self.crops) for item in group}))

    def without_scans(self, patients: Collection[str]) -> TrainingCorpus:
        """Return nodules and crops of these patients, without patients of a whole scan, which shows the same."""
        others = set(patients) - {scan.patient for scan in self.scans}
        return TrainingCorpus(
            scans=(),
            nodules=tuple(nodule for nodule in self.nodules if nodule.patient in others),
            crops=tuple(crop for crop in self.crops if crop.patient in others),
        )

    def scans_named(self, names: Collection[str]) -> tuple[CorpusScan, ...]:
        """Return whole scans by name; raises DataSetError where one is not there."""
        if missing := sorted(set(names) - {scan.name for scan in self.scans}):
            raise DataSetError(f"There are no scans {', '.join(missing)}.", "Give the data folder that holds them.")
        return tuple(scan for scan in self.scans if scan.name in names)


def read_corpus(folder: Path) -> TrainingCorpus:
    """Read all sources of a data folder.

    Raises:
        DataSetError: a source is missing or damaged.
        ScanError: a whole scan can't be used.
    """
    manifest = read_corpus_manifest(folder)
    names = [source.folder for source in manifest.sources]
    for name in names:
        if not (folder / name).is_dir():
            raise DataSetError(
                f"There is no folder {name} in {folder}.", f"Give the folder that holds {', '.join(names)}."
            )
    return TrainingCorpus(
        scans=tuple(_read_scans(folder / manifest.scans.folder, manifest)),
        nodules=tuple(read_nodules(folder / manifest.nodules.folder)),
        crops=tuple(read_crops(folder / manifest.crops.folder)),
    )


def read_record(folder: Path) -> dict[str, dict[str, str]]:
    """Hash all sources of a data folder: each whole scan by itself, the many files of the other folders together.

    Raises:
        DataSetError: a file can't be read.
    """
    manifest = read_corpus_manifest(folder)
    scans_folder = manifest.scans.folder
    record: dict[str, dict[str, str]] = {}
    try:
        for image in _images(folder / scans_folder):
            files = {"scan": image, "mask": folder / scans_folder / "labelsTr" / image.name}
            hashes = {part: FileState.read(file).sha256 or "" for part, file in files.items() if file.is_file()}
            record[f"{scans_folder}/{_stem(image)}"] = hashes
        for name in (manifest.nodules.folder, manifest.crops.folder):
            paths = [path for path in (folder / name).iterdir() if path.is_file()]
            lines = (f"{path.name} {FileState.read(path).sha256}" for path in paths)
            record[f"{name}/files"] = {"files": fingerprint(lines)}
    except OSError as error:
        raise DataSetError(f"The sources in {folder} can't be read ({error.strerror}).", COPY_AGAIN) from error
    return record


def _images(folder: Path) -> list[Path]:
    return sorted([*folder.glob("imagesTr/[!.]*.nii.gz"), *folder.glob("imagesTs/[!.]*.nii.gz")])


def _stem(image: Path) -> str:
    return image.name.removesuffix(".nii.gz")


@dataclass(frozen=True, slots=True)
class CorpusSplit:
    """A corpus split by patient."""

    train: TrainingCorpus
    validation: TrainingCorpus
    test: TrainingCorpus


def split_corpus(
    corpus: TrainingCorpus, *, test_share: float, validation_share: float, hold_out: tuple[str, ...]
) -> CorpusSplit:
    """Split a corpus by patient.

    A hash of a patient's name decides, so that the split needs no list and does not change when data are added. Whole
    scans are held out by `hold_out`; nodules and crops of their patients are left out, since the scans show the same.

    Args:
        corpus: all sources.
        test_share: approximate share of the patients for the test.
        validation_share: approximate share of the patients for validation.
        hold_out: names of the whole scans for validation; the others are for training.

    Raises:
        DataSetError: a scan of that name is not there, or a part would lack a source that it needs.
    """
    names = {scan.name for scan in corpus.scans}
    if not set(hold_out) < names:
        raise DataSetError(
            f"The scans {', '.join(hold_out)} can't be held out of {', '.join(sorted(names))}.",
            "Hold out some, not all.",
        )

    def part(low: float, high: float, scans: tuple[CorpusScan, ...]) -> TrainingCorpus:
        patients = {patient for patient in corpus.patients if low <= hash_share(patient) < high}
        return replace(corpus.without_scans(patients), scans=scans)

    first = test_share + validation_share
    split = CorpusSplit(
        train=part(first, 1.0, tuple(scan for scan in corpus.scans if scan.name not in hold_out)),
        validation=part(test_share, first, tuple(scan for scan in corpus.scans if scan.name in hold_out)),
        test=part(0.0, test_share, ()),
    )
    if not (split.train.nodules and split.train.crops and split.validation.crops):
        raise DataSetError(
            "Too few patients: training needs nodules and crops of some, validation crops of others.",
            "Add patients, or choose other shares of them (test_share, validation_share).",
        )
    return split


def hash_share(patient: str) -> float:
    """Map a patient to a number from 0 to 1, evenly, the same on every machine."""
    digest = hashlib.sha256(patient.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _read_scans(folder: Path, manifest: CorpusManifest) -> Iterable[CorpusScan]:
    for image in _images(folder):
        label = folder / "labelsTr" / image.name
        volume = read_volume(image)
        mask = read_mask(label, volume.grid) if label.is_file() else None
        yield _scan(_stem(image), volume, mask, manifest)


def _scan(name: str, volume: Volume, mask: NDArray[np.bool_] | None, manifest: CorpusManifest) -> CorpusScan:
    depth = volume.grid.shape[2]
    hu = np.stack([to_display(volume.hu[:, :, k]) for k in range(depth)])
    tumour = np.zeros(hu.shape, np.uint8)
    if mask is not None:
        tumour = np.stack([to_display(mask[:, :, k]) for k in range(depth)]).astype(np.uint8)
    usable = np.ones(depth, dtype=np.bool_)
    if name in manifest.unmarked_slices:
        first, last = manifest.unmarked_slices[name]
        usable[first : last + 1] = False
    field = find_lungs(volume)
    lungs, thorax = (mask * usable[:, None, None] for mask in (field.lungs, field.thorax))
    coarse_mm = volume.grid.spacing_mm[0] * hu.shape[1] / lungs.shape[1]
    inner = _morphology(lungs, cv2.MORPH_ERODE, WALL_MM / coarse_mm)
    closed = _morphology(_morphology(lungs, cv2.MORPH_CLOSE, CLOSING_MM / coarse_mm), cv2.MORPH_DILATE, 1.0)
    between = _morphology(field.thorax, cv2.MORPH_ERODE, MARGIN_MM / coarse_mm)
    return CorpusScan(
        name=name,
        patient=manifest.patient_of(name),
        hu=hu,
        tumour=tumour,
        room=_resized(closed, hu.shape),
        blood=(_resized(between, hu.shape) & (tumour ^ 1)).astype(np.uint8),
        usable=usable,
        lung=_points(lungs, hu.shape),
        wall=_points(lungs - inner, hu.shape),
        chest=_points(thorax, hu.shape),
        tissue=_points(_soft_tissue(volume, tumour), hu.shape),
        lesion=_points(tumour, hu.shape),
        grid=volume.grid,
    )


def _soft_tissue(volume: Volume, tumour: Marks) -> Marks:
    """Return the inner parts of muscle, heart and liver on a coarse grid, (K, rows, columns), without tumour."""
    coarse = CoarseScan.of(volume)
    low, high = SOFT_HU
    soft = ((coarse.hu > low) & (coarse.hu < high)).astype(np.uint8) & (1 - _resized(tumour, coarse.hu.shape))
    return _morphology(soft, cv2.MORPH_ERODE, TISSUE_MM / coarse.pixel_mm[0])


def _resized(planes: Marks, shape: tuple[int, ...]) -> Marks:
    """Resize each slice of a mask to rows and columns of `shape`, by nearest neighbour."""
    size = shape[2], shape[1]
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) for plane in planes]).astype(np.uint8)


def _morphology(planes: Marks, operation: int, radius: float) -> Marks:
    """Apply a morphological operation to each slice."""
    side = 2 * max(1, round(radius)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.stack([cv2.morphologyEx(plane, operation, kernel) for plane in planes]).astype(np.uint8)


def _points(inside: Marks, shape: tuple[int, ...]) -> Points:
    """List slice, row, column of the pixels inside, on the grid of `shape`."""
    steps = np.array(shape) / inside.shape
    return ((np.argwhere(inside) + 0.5) * steps).astype(np.int32)


def read_nodules(folder: Path) -> Iterable[Nodule]:
    """Read a folder of nodules in 3-D with its `index.csv`, without those that the border of their picture cuts.

    Raises:
        DataSetError: it is missing or damaged.
    """
    for row in _index(folder, _NoduleRow):
        shape = row.depth, row.height, row.width
        if row.touches_border:
            continue
        mask = (_strip(folder, f"{row.file}_mask.png", shape) > 0).astype(np.uint8)
        if mask.any():
            sides = (np.ptp(np.flatnonzero(mask.any(axis=axes))) + 1 for axes in ((0, 1), (0, 2)))
            hu = _to_hu(_strip(folder, f"{row.file}_hu.png", shape))
            yield Nodule(row.patient, hu, mask, NODULE_MM * float(max(sides)))


def read_crops(folder: Path) -> Iterable[Crop]:
    """Read a folder of slice crops with its `index.csv`; raises DataSetError where it is missing or damaged."""
    for row in _index(folder, _CropRow):
        shape = row.slices, CROP_PX, CROP_PX
        yield Crop(
            patient=row.patient,
            name=row.file,
            hu=_to_hu(_strip(folder, f"{row.file}_hu.png", shape)),
            readers=_strip(folder, f"{row.file}_readers.png", shape) // np.uint8(GREY_PER_READER),
            pixel_mm=row.pixel_mm,
            slice_mm=row.slice_spacing_mm,
        )


@dataclass(frozen=True, slots=True)
class _NoduleRow:
    """A row of the index of nodules in 3-D."""

    file: str
    patient: str
    depth: Natural
    height: Natural
    width: Natural
    touches_border: Natural


@dataclass(frozen=True, slots=True)
class _CropRow:
    """A row of the index of slice crops."""

    file: str
    patient: str
    slices: Natural
    pixel_mm: Finite
    slice_spacing_mm: Finite


def _index(folder: Path, kind: type[Row]) -> list[Row]:
    def damaged(reason: str) -> DataSetError:
        return DataSetError(f"index.csv in {folder} can't be read ({reason}).", COPY_AGAIN)

    path = folder / "index.csv"
    if not is_file(path):
        raise DataSetError(f"There is no index.csv in {folder}.", COPY_AGAIN)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [decode_value(kind, row, damaged) for row in csv.DictReader(stream, restkey="")]
    except (OSError, ValueError, csv.Error) as error:
        raise damaged(str(error)) from error


def _strip(folder: Path, name: str, shape: tuple[int, int, int]) -> Marks:
    """Read slices that are stacked downward in one 8-bit picture."""
    picture = None
    if is_name(name):
        with suppress(cv2.error):
            picture = cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
    if picture is None or not picture.size or picture.shape != (shape[0] * shape[1], shape[2]):
        fault = "can't be read" if picture is None else f"has the shape {picture.shape}"
        raise DataSetError(f"{name} {fault}, its index says {shape}.", COPY_AGAIN)
    return np.asarray(picture, dtype=np.uint8).reshape(shape)


def _to_hu(grey: Marks) -> Slices:
    return grey.astype(np.int16) * np.int16(HU_PER_GREY) + np.int16(HU_OF_BLACK)
