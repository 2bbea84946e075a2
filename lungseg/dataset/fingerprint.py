"""What is measured of a case, in one read of its scan and its mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.dataset import air
from lungseg.dataset.labels import Legend
from lungseg.dataset.layout import CaseFiles
from lungseg.dataset.likeness import Thumbnail
from lungseg.dataset.masks import TumourMask, read_tumour_mask
from lungseg.decoding import Finite, Natural, Unbounded, Whole
from lungseg.errors import DataSetError, GridMismatchError, NoLungError, ScanError
from lungseg.records.findings import ScanFinding
from lungseg.records.masks import Lesion
from lungseg.records.run_states import Failure
from lungseg.scans.canvas import from_display
from lungseg.scans.formats import open_scan
from lungseg.scans.geometry import SPACE, Shape
from lungseg.scans.lesions import lesions_of, slice_voxels
from lungseg.scans.lungs import LungField, find_lungs
from lungseg.scans.volume import Volume

HU_EDGES = tuple(range(-1025, 1526, 25))
"""Edges of the bins of all HU histograms; values beyond the last edge count into the last bin."""
PADDING_HU = -1024
LUNG_MAP_PX = 48
"""Side of the small pictures of the lungs."""
SIDES = (("L", "R"), ("P", "A"), ("I", "S"))
"""Names of the low and the high end of the axes of an RAS+ array."""
LONGEST_AXIS = 2**16
FINEST_MM, COARSEST_MM = 1e-3, 1e3

Position = tuple[Finite, Finite, Finite]


@dataclass(frozen=True, slots=True)
class LungFacts:
    """Where the lungs of a scan are.

    Attributes:
        volume_ml: of the air-filled lung.
        coronal: picture of the lungs from the front within their bounding box, LUNG_MAP_PX rows from superior to
            inferior, columns from the patient's right to left; 255 where lung fills the whole depth.
        axial: seen from below; rows from anterior to posterior.
    """

    volume_ml: Finite
    coronal: tuple[tuple[Natural, ...], ...]
    axial: tuple[tuple[Natural, ...], ...]

    def __post_init__(self) -> None:
        """Refuse pictures of another size.

        Raises:
            DataSetError: one is not square, or too small or too large.
        """
        for picture in (self.coronal, self.axial):
            if len(picture) != LUNG_MAP_PX or {len(row) for row in picture} != {LUNG_MAP_PX}:
                raise _contradiction()


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """What was measured in a scan.

    Attributes:
        shape: (I, J, K) on the RAS+ grid.
        spacing_mm: along R, A, S.
        orientation: codes of the file's own axes ("LPS").
        content_sha256: of the HU on the RAS+ grid; equal for the same voxels in another file or axis order.
        hu_range: lowest and highest HU.
        hu_histogram: voxels outside tumour in each bin of HU_EDGES; padding (-1024 HU and less) is left out.
        lungs: None where no lungs were found.
        thumbnail: to find other scans of the same examination by; None in what releases up to 0.1 measured.
        findings: what a reader should know of the scan's header.
    """

    shape: tuple[Natural, Natural, Natural]
    spacing_mm: tuple[Finite, Finite, Finite]
    orientation: str
    content_sha256: str
    hu_range: tuple[Whole, Whole]
    hu_histogram: tuple[Natural, ...]
    lungs: LungFacts | None
    thumbnail: Thumbnail | None = None
    findings: tuple[ScanFinding, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no scan has.

        Raises:
            DataSetError: shape or spacing are absurd, or the histogram has other bins.
        """
        is_shape = all(0 < length <= LONGEST_AXIS for length in self.shape)
        is_spacing = all(FINEST_MM <= mm <= COARSEST_MM for mm in self.spacing_mm)
        if not is_shape or not is_spacing or len(self.hu_histogram) != len(HU_EDGES) - 1:
            raise _contradiction()


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What was measured in a mask.

    Attributes:
        values: what the file holds besides 0, as in `masks.TumourMask`; (1.0,) in a plain mask.
        slice_voxels: mask voxels in each axial slice, k = 0 .. K-1 on the RAS+ grid.
        hu_histogram: tumour voxels in each bin of HU_EDGES.
        lesions: connected components, largest first.
        positions: for each lesion the place of its centre in the bounding box of the lungs, 0 to 1 toward R, A, S
            (outside that range beyond it); empty where no lungs were found.
        outside_lungs: numbers of the lesions whose centre does not lie in the lung field.
        cut_off: sides of the scan that the mask touches, of "LRPAIS".
        legend: by which its values were read.
        off_whole: largest distance of a value from the whole number that it is taken for.
        ignored_voxels: neither tumour nor background.
        is_over_air: whether it covers mostly air that is no denser than the lung around it.
        mirror: axes along which it would have to be mirrored to lie on tissue; empty for none.
    """

    values: tuple[Unbounded, ...]
    slice_voxels: tuple[Natural, ...]
    hu_histogram: tuple[Natural, ...]
    lesions: tuple[Lesion, ...]
    positions: tuple[Position, ...]
    outside_lungs: tuple[Natural, ...]
    cut_off: str
    legend: Legend | None = None
    off_whole: Finite = 0.0
    ignored_voxels: Natural = 0
    is_over_air: bool = False
    mirror: str = ""

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other.

        Raises:
            DataSetError: there are more or fewer places than lesions, a side has no name, or the histogram other bins.
        """
        has_places = len(self.positions) in {0, len(self.lesions)}
        has_sides = all(any(side in ends for ends in SIDES) for side in self.cut_off)
        if not has_places or not has_sides or len(self.hu_histogram) != len(HU_EDGES) - 1:
            raise _contradiction()

    @property
    def volume_ml(self) -> float:
        """Volume of all lesions."""
        return sum(lesion.volume_ml for lesion in self.lesions)

    @property
    def tumour_slices(self) -> int:
        """Number of axial slices with tumour."""
        return sum(voxels > 0 for voxels in self.slice_voxels)


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What was measured of a case of a data set.

    Attributes:
        failure: why scan or mask can't be used; None if they can.
        scan: None where the scan can't be used.
        mask: None where the case has no mask, or one that can't be used.
    """

    case: str
    patient: str
    failure: Failure | None = None
    scan: ScanFacts | None = None
    mask: MaskFacts | None = None

    @property
    def is_usable(self) -> bool:
        """Whether slices can be made of it."""
        return self.failure is None

    @property
    def content_sha256(self) -> str:
        """Of the scan's voxels; the case's own name where the scan can't be used."""
        return self.scan.content_sha256 if self.scan else self.case


@dataclass(frozen=True, slots=True, eq=False)
class LoadedCase:
    """A scan and its mask in memory; what can't be used is None, and `failure` says why.

    Attributes:
        orientation: codes of the scan's own axes.
        mask: on the grid of the scan.
        findings: what a reader should know of the scan's header.
    """

    pair: CaseFiles
    failure: Failure | None = None
    orientation: str | None = None
    volume: Volume | None = None
    mask: TumourMask | None = None
    findings: tuple[ScanFinding, ...] = ()


def read_pair(pair: CaseFiles) -> LoadedCase:
    """Read a scan and its mask; why one can't be used stands in the result."""
    volume, orientation = None, None
    findings: tuple[ScanFinding, ...] = ()
    try:
        with open_scan(pair.scan) as reader:
            orientation, findings = reader.grid.orientation.codes, reader.findings
            volume = reader.read().volume
        mask = read_tumour_mask(pair.mask, volume.grid, pair.legend) if pair.mask else None
    except (ScanError, OSError) as error:
        return LoadedCase(pair, _failure(error, pair, is_mask=volume is not None), orientation, volume, None, findings)
    return LoadedCase(pair, None, orientation, volume, mask, findings)


def measure_case(pair: CaseFiles) -> CaseFacts:
    """Read and measure a case."""
    return facts_of(read_pair(pair))


def facts_of(case: LoadedCase) -> CaseFacts:
    """Measure a case that was read."""
    pair, volume = case.pair, case.volume
    if volume is None:
        return CaseFacts(pair.case, pair.patient, case.failure)
    all_hu, tumour_hu = _histograms(volume, case.mask.inside if case.mask else None)
    field = _find_lungs(volume)
    scan = ScanFacts(
        shape=volume.grid.shape,
        spacing_mm=volume.grid.spacing_mm,
        orientation=case.orientation or "",
        content_sha256=_sha256_of(volume),
        hu_range=(int(volume.hu.min()), int(volume.hu.max())),
        hu_histogram=tuple((all_hu - tumour_hu).tolist()),
        lungs=_lung_facts(field) if field else None,
        thumbnail=Thumbnail.of(volume),
        findings=case.findings,
    )
    mask = _mask_facts(case.mask, pair.legend, volume, tumour_hu, field) if case.mask else None
    return CaseFacts(pair.case, pair.patient, case.failure, scan, mask)


def _contradiction() -> DataSetError:
    return DataSetError("The facts of a case contradict each other.", "Run `lungseg prepare` again.")


def _failure(error: ScanError | OSError, pair: CaseFiles, *, is_mask: bool) -> Failure:
    file = pair.mask if is_mask and pair.mask else pair.scan
    if isinstance(error, OSError):
        found = f"The file can't be read ({error.strerror or error})."
        return Failure(ScanError.code, f"{file.name}: {found}", "Check the file and its rights, or copy it again.")
    if is_mask and not isinstance(error, GridMismatchError):
        return Failure(error.code, f"Its mask {file.name}: {error.found}", error.remedy)
    return Failure.of(error)


def _histograms(volume: Volume, inside: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count HU in the bins of HU_EDGES: of all voxels but padding, and of those inside the mask."""
    everything, tumour = np.zeros((2, len(HU_EDGES) - 1), dtype=np.int64)
    for k in range(volume.grid.shape[2]):
        plane = volume.hu[:, :, k]
        everything += _binned(plane)
        if inside is not None and inside[:, :, k].any():
            tumour += _binned(plane[inside[:, :, k]])
    return everything, tumour


def _binned(hu: NDArray[np.int16]) -> NDArray[np.int64]:
    values = np.where(hu > PADDING_HU, np.minimum(hu, HU_EDGES[-1] - 1), HU_EDGES[0] - 1).astype(np.float32)
    counts = cv2.calcHist([values], [0], None, [len(HU_EDGES) - 1], [HU_EDGES[0], HU_EDGES[-1]])
    return counts.ravel().astype(np.int64)


def _sha256_of(volume: Volume) -> str:
    digest = hashlib.sha256(str(volume.grid.shape).encode())
    for k in range(volume.grid.shape[2]):
        digest.update(np.ascontiguousarray(volume.hu[:, :, k]).data)
    return digest.hexdigest()


def _find_lungs(volume: Volume) -> LungField | None:
    try:
        field = find_lungs(volume)
    except NoLungError:
        return None
    return field if field.is_recognised else None


def _lung_facts(field: LungField) -> LungFacts:
    box = field.lungs[tuple(slice(*ends) for ends in _box(field))]
    return LungFacts(field.volume_ml, coronal=_picture(box.mean(axis=1)[::-1]), axial=_picture(box.mean(axis=0)))


def _box(field: LungField) -> list[tuple[int, int]]:
    """Return first and one past last index of the lungs along slices, rows and columns of their coarse grid."""
    indices = [np.flatnonzero(field.lungs.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return [(int(index[0]), int(index[-1]) + 1) for index in indices]


def _picture(share: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    small = cv2.resize(share.astype(np.float32), (LUNG_MAP_PX, LUNG_MAP_PX), interpolation=cv2.INTER_AREA)
    return tuple(tuple(row) for row in np.rint(small * 255).astype(int).tolist())


def _mask_facts(
    mask: TumourMask, legend: Legend | None, volume: Volume, tumour_hu: NDArray[np.int64], field: LungField | None
) -> MaskFacts:
    inside, shape = mask.inside, volume.grid.shape
    lesions = lesions_of(inside, volume.grid)
    is_over_air = air.lies_over_air(volume, inside)
    return MaskFacts(
        values=mask.values,
        slice_voxels=slice_voxels(inside),
        hu_histogram=tuple(tumour_hu.tolist()),
        lesions=lesions,
        positions=tuple(_position(lesion, shape, field) for lesion in lesions) if field else (),
        outside_lungs=tuple(lesion.number for lesion in lesions if field and not _is_inside(lesion, shape, field)),
        cut_off="".join(
            side
            for axis in range(SPACE)
            for side, end in zip(SIDES[axis], (0, -1), strict=True)
            if inside.take(end, axis).any()
        ),
        legend=legend,
        off_whole=mask.off_whole,
        ignored_voxels=0 if mask.ignored is None else int(mask.ignored.sum()),
        is_over_air=is_over_air,
        mirror=air.fitting_mirror(volume, inside) if is_over_air else "",
    )


def _position(lesion: Lesion, shape: Shape, field: LungField) -> Position:
    """Place a lesion in the bounding box of the lungs; their grid is hung: slices, then rows to P, columns to L."""
    slices, rows, columns = (
        tuple(end / length for end in ends) for ends, length in zip(_box(field), field.lungs.shape, strict=True)
    )
    right, anterior, superior = ((index + 0.5) / n for index, n in zip(lesion.centre_index, shape, strict=True))
    return (
        (right - (1 - columns[1])) / (columns[1] - columns[0]),
        (anterior - (1 - rows[1])) / (rows[1] - rows[0]),
        (superior - slices[0]) / (slices[1] - slices[0]),
    )


def _is_inside(lesion: Lesion, shape: Shape, field: LungField) -> bool:
    i, j, k = lesion.centre_index
    plane = from_display(field.thorax[k])
    return bool(plane[i * plane.shape[0] // shape[0], j * plane.shape[1] // shape[1]])
