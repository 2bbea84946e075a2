"""Which planes belong together: by patient, examination, series, size and direction, never by name or folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.dicom.agreement import COSINE_TOLERANCE, SPACING_TOLERANCE_MM
from lungseg.scans.dicom.copies import without_copies, without_doubles
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.order import along_normal, identity_order
from lungseg.scans.dicom.splitting import doubled_positions, parts_of
from lungseg.wording import counted

_Key: TypeAlias = tuple[Any, ...]
KEY_FIELDS = ("patient", "examination", "series", "frame of reference", "kind of file", "size", "pixel spacing",
              "orientation", "colours", "image type", "stack")  # fmt: skip
"""What all planes of a group share, in the words of the notes."""
SERIES_FIELDS = 3
"""Of a key: patient, examination and series."""
AGAIN = "Export the series again from the archive."


@dataclass(frozen=True, slots=True)
class Group:
    """Planes that make one stack, or ought to.

    Attributes:
        instances: sorted along their normal.
        note: what part of its series it is.
        refusal: why it can't be used, and what to do; empty where it can.
        findings: what was dropped or set apart.
    """

    instances: tuple[Instance, ...]
    note: str = ""
    refusal: str = ""
    findings: tuple[ScanFinding, ...] = ()


def groups_of(instances: Sequence[Instance]) -> tuple[Group, ...]:
    """Group planes; the order in which they come changes nothing.

    A group splits further only where that cures its geometry (`splitting`). Copies are dropped; where one identity
    stands for two pictures, or nothing tells two planes of one position apart, the group is refused.
    """
    ordered = sorted(instances, key=lambda instance: (*identity_order(instance), str(instance.position_mm)))
    spacings = _classes([instance.spacing_mm for instance in ordered], SPACING_TOLERANCE_MM)
    directions = _classes([_orientation(instance) for instance in ordered], COSINE_TOLERANCE)
    by_key: dict[_Key, list[Instance]] = defaultdict(list)
    for instance, spacing, direction in zip(ordered, spacings, directions, strict=True):
        by_key[_key(instance, spacing, direction)].append(instance)
    counts: dict[_Key, dict[_Key, int]] = defaultdict(dict)
    for key, planes in by_key.items():
        counts[key[:SERIES_FIELDS]][key] = len(planes)
    return tuple(
        group
        for key, planes in by_key.items()
        for group in _stacks(planes, *_company(key, counts[key[:SERIES_FIELDS]]))
    )


def _key(instance: Instance, spacing: int, direction: int) -> _Key:
    name = "" if instance.patient_id else instance.patient_name
    return (
        (instance.patient_id, name),
        instance.study_uid,
        instance.series_uid,
        instance.frame_of_reference_uid,
        (instance.sop_class_uid, instance.modality),
        (instance.rows, instance.columns),
        spacing,
        direction,
        (instance.photometric, instance.samples_per_pixel),
        instance.image_type[:3],
        instance.stack,
    )


def _orientation(instance: Instance) -> tuple[float, ...] | None:
    return None if instance.row is None or instance.column is None else (*instance.row, *instance.column)


def _classes(values: Sequence[tuple[float, ...] | None], tolerance: float) -> list[int]:
    """Number values so that those within a tolerance of each other have one number; None is a value of its own."""
    numbers: dict[tuple[float, ...] | None, int] = {}
    centres: list[tuple[float, ...]] = []
    for value in sorted({value for value in values if value is not None}):
        near = (place for place, centre in enumerate(centres) if _are_near(value, centre, tolerance))
        numbers[value] = next(near, len(centres))
        if numbers[value] == len(centres):
            centres.append(value)
    numbers[None] = len(centres)
    return [numbers[value] for value in values]


def _are_near(some: Sequence[float], others: Sequence[float], tolerance: float) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(some, others, strict=True))


def _company(key: _Key, counts: dict[_Key, int]) -> tuple[str, tuple[ScanFinding, ...]]:
    """Say what of the same series is in other groups: a note for a small group, a finding for the largest one.

    Args:
        key: of the group.
        counts: number of planes of all groups of its series.
    """
    others = {other: count for other, count in counts.items() if other != key}
    if not others or not key[KEY_FIELDS.index("series")]:
        return "", ()
    largest = max(counts, key=lambda other: (counts[other], other))
    if largest != key:
        images = counted(counts[largest], "image")
        return f"Set apart from the other {images} of its series: {_differences(key, largest)}.", ()
    images = ", ".join(
        sorted(f"{counted(count, 'image')} ({_differences(other, key)})" for other, count in others.items())
    )
    text = f"Of the same series, but no part of this scan: {images}."
    return "", (ScanFinding("dicom.set_apart", ScanSeverity.NOTE, text),)


def _differences(key: _Key, other: _Key) -> str:
    return "another " + ", ".join(
        name for name, own, theirs in zip(KEY_FIELDS, key, other, strict=True) if own != theirs
    )


def _stacks(planes: Sequence[Instance], note: str, findings: tuple[ScanFinding, ...]) -> Iterator[Group]:
    """Yield the stacks of a group, without copies."""
    copies = without_copies(planes)
    doubles = without_doubles(copies.instances)
    instances = copies.instances if doubles.conflicts else doubles.instances
    if dropped := len(planes) - len(instances):
        text = f"{counted(dropped, 'image')} came twice with the same pixels; one of each was used."
        findings = (*findings, ScanFinding("dicom.copies", ScanSeverity.NOTE, text))
    refusal = ""
    if copies.conflicts:
        refusal = (
            f"{counted(copies.conflicts, 'slice')} came twice under one identity (SOP Instance UID) with different "
            f"pixels; nothing tells which is right. {AGAIN}"
        )
    for part in parts_of(instances):
        doubled = doubled_positions(part.instances)
        if doubled and not refusal:
            refusal = (
                f"More than one slice lies at {counted(doubled, 'position')}, with different pixels, and no tag tells "
                "them apart. Export each phase or pass as a series of its own."
            )
        yield Group(along_normal(part.instances), " ".join(filter(None, (note, part.note))), refusal, findings)
