"""Reads the one CT series that files hold: the DICOM format of `formats`.

Files may come in any order and under any name; others may lie beside them. HU are those of the planes, on the grid of
`stacks.stack_of`. Files are hashed after their planes were read, in order along the normal, so that the same series is
recognised under other names; a file that changes in between is noticed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import ScanChangedError, SeriesError, TooLargeError, TruncatedScanError
from lungseg.files.unpacking import Stamp, open_content
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.geometry import ScanGeometry
from lungseg.records.intakes import SeriesKind
from lungseg.scans.dicom.headers import Headers, UnreadableFile, read_headers, reasons_of
from lungseg.scans.dicom.pixels import check_decoders, read_planes
from lungseg.scans.dicom.rescaling import check_values, findings_of_values
from lungseg.scans.dicom.series import Series, series_in
from lungseg.scans.dicom.stacks import Stack, stack_of
from lungseg.scans.geometry import SPACE, Grid
from lungseg.scans.reader import ScanReader, joint_sha256
from lungseg.wording import counted, rounded

MOST_SERIES = 12
"""Series that an error lists."""


class DicomReader(ScanReader):
    """An open series: its headers are checked, no pixel has been read.

    Args:
        stack: the slices that make the volume; their files count in order along the normal, whatever their names.
        findings: of files and series, besides those of the stack.
    """

    def __init__(self, stack: Stack, findings: tuple[ScanFinding, ...]) -> None:
        self.files: tuple[Path, ...] = tuple(dict.fromkeys(plane.path for plane in stack.planes))
        self.grid: Grid = stack.grid
        self._stamps, self._stack = tuple(map(_stamp_of, self.files)), stack
        self._findings = (*findings, *stack.findings, *findings_of_values(stack.planes))

    @property
    def geometry(self) -> ScanGeometry:
        """The grid alone: a mask of it needs no header."""
        rows = [tuple(row) for row in self.grid.affine[:SPACE].tolist()]
        return ScanGeometry(self.grid.shape, (rows[0], rows[1], rows[2]))

    @property
    def findings(self) -> tuple[ScanFinding, ...]:
        """What was repaired, and what is uncertain of the headers."""
        return self._findings

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Of the files, when they were opened."""
        return self._stamps

    def values(self) -> Iterator[NDArray[np.int16]]:
        """Yield the HU of one slice after the other; see `ScanReader`, and `pixels.read_planes` for the errors."""
        for plane in self._stack.slices(read_planes(self._stack.planes)):
            yield plane.reshape(-1)

    def sha256(self) -> str:
        """Return the joint SHA-256 of the files; see `ScanReader`."""
        digests = []
        for path, stamp in zip(self.files, self._stamps, strict=True):
            with open_content(path) as content:
                if content.stamp != stamp:
                    raise ScanChangedError(
                        f"{path.name} was changed while the series was read.",
                        "Wait until all files are complete, then retry.",
                    )
                digests.append(content.sha256())
        return joint_sha256(digests)


@contextmanager
def open_dicom(files: Sequence[Path], limits: Limits) -> Iterator[DicomReader]:
    """Open the one CT series among files.

    Raises:
        SeriesError: they hold several series that could be segmented, or none; the error lists them.
        TruncatedScanError: no file can be read.
        DecoderError: nothing decodes the pixels.
        DatatypeError, NotHounsfieldError: the pixels are no HU.
        TooLargeError: the volume is beyond the limits.
        ScanError: its slices make no volume, see `stacks.stack_of`.
    """
    headers = read_headers(files)
    yield open_series(_the_one(headers), headers.unreadable, limits)


def open_series(series: Series, unreadable: Sequence[UnreadableFile], limits: Limits) -> DicomReader:
    """Open a series that was chosen among several; raises as `open_dicom`.

    `unreadable` are the damaged files that lay beside it: slices of it may be among those that don't say what they are.
    """
    check_values(series.instances)
    check_decoders(series.instances)
    stack = stack_of(series.instances)
    _check_size(stack.grid, limits)
    own = [file for file in unreadable if file.may_be_of(series.first)]
    return DicomReader(stack, (*_of_files(own), *series.findings))


def _stamp_of(path: Path) -> Stamp:
    with open_content(path) as content:
        return content.stamp


def _the_one(headers: Headers) -> Series:
    """Return the series to read: the only one of a chest, or the only one that can be segmented."""
    if not headers.instances:
        raise TruncatedScanError(
            f"None of {counted(len(headers.unreadable), 'DICOM file')} can be read: {reasons_of(headers.unreadable)}",
            "Copy or export the series again.",
        )
    every = series_in(headers.instances)
    usable = [series for series in every if not series.refusal]
    choices = [series for series in usable if series.kind is SeriesKind.CHEST_CT] or usable
    if len(choices) == 1:
        return choices[0]
    if choices:
        raise SeriesError(
            f"The files hold {len(choices)} series that could be segmented: {_listed(choices)}.",
            "Choose one: in the list on the page Cases, with --series on the command line, or by its files alone.",
        )
    if len(every) == 1 and every[0].kind not in {SeriesKind.NOT_CT, SeriesKind.LOCALISER}:
        check_values(every[0].instances)  # says more precisely what is wrong, where these can tell
        stack_of(every[0].instances)
    reasons = [f"{_described(series)}: {series.refusal}" for series in every[:MOST_SERIES]]
    raise SeriesError(f"No series can be segmented. {' '.join(reasons)}", "Hand in the CT series of the chest.")


def _listed(choices: Sequence[Series]) -> str:
    more = len(choices) - MOST_SERIES
    listed = [_described(series) for series in choices[:MOST_SERIES]]
    return "; ".join([*listed, *([f"{more} more"] if more > 0 else [])])


def _described(series: Series) -> str:
    """Name a series by its number, description, kernel and number of slices."""
    first = series.instances[0]
    number = "" if first.series_number is None else f" {first.series_number}"
    kernel = f", kernel {first.kernel}" if first.kernel else ""
    title = f" ({first.series_description})" if first.series_description else ""
    return f"series{number}{title}{kernel}, {counted(len(series.instances), 'slice')}"


def _check_size(grid: Grid, limits: Limits) -> None:
    """Check the size of the volume, before anything of it is read."""
    needed = math.prod(grid.shape) * np.dtype(np.int16).itemsize
    if max(grid.shape) > limits.axis_voxels or needed > limits.volume_bytes:
        raise TooLargeError(
            f"The series makes {rounded(grid.shape)} voxels ({needed:,} bytes in memory).",
            f"At most {limits.axis_voxels} voxels an axis and {limits.volume_bytes:,} bytes in memory are accepted on "
            "this machine: reconstruct the chest alone, or with a smaller matrix.",
        )


def _of_files(unreadable: Sequence[UnreadableFile]) -> Iterator[ScanFinding]:
    if unreadable:
        text = f"{counted(len(unreadable), 'DICOM file')} could not be read: {reasons_of(unreadable)}"
        remedy = "Check that no slice is missing, or copy the files again."
        yield ScanFinding("dicom.unreadable_files", ScanSeverity.WARNING, text, remedy)
