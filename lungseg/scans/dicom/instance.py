"""One plane of pixels with what its tags say, as values of ours: the rest of the package sorts and reads by these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Vector: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A file of a classic series, or one frame of a multi-frame file. Empty texts and None where a tag is missing.

    Attributes:
        path: of the file.
        frame: of the file, 0 for the first; `frames` says how many the file has.
        position_mm: (0020,0032), centre of the first pixel, in LPS.
        row, column: (0020,0037), cosines of the direction in which the column index, and the row index, grows; in LPS.
        spacing_mm: (0028,0030), between rows, then between columns.
        slope, intercept: of this plane; None where the file has none.
        rescale_type: (0028,1054).
        padding: (0028,0120) and (0028,0121), as stored values of the pixels' own sign.
        phase: what tells phases of one series apart (temporal position, cardiac or respiratory phase); "" where none.
        is_burned_in: (0028,0301) is YES.
        is_lossy: by transfer syntax or (0028,2110).
    """

    path: Path
    frame: int = 0
    frames: int = 1
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    patient_id: str = ""
    patient_name: str = ""
    study_uid: str = ""
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    study_date: str = ""
    study_description: str = ""
    series_description: str = ""
    series_number: int | None = None
    protocol: str = ""
    body_part: str = ""
    kernel: str = ""
    contrast_agent: str = ""
    acquisition_number: int | None = None
    acquisition_time: str = ""
    instance_number: int | None = None
    content_time: str = ""
    phase: str = ""
    rows: int = 0
    columns: int = 0
    position_mm: Vector | None = None
    row: Vector | None = None
    column: Vector | None = None
    spacing_mm: tuple[float, float] | None = None
    slice_thickness_mm: float | None = None
    gantry_tilt_degrees: float | None = None
    kvp: float | None = None
    samples_per_pixel: int = 1
    photometric: str = ""
    bits_allocated: int = 0
    bits_stored: int = 0
    is_signed: bool = False
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    padding: tuple[int, int] | None = None
    is_burned_in: bool = False
    is_lossy: bool = False
    stack: str = ""
