"""Which planes belong together: by patient, examination, series, size and direction, never by name or folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.dicom.agreement import COSINE_TOLERANCE, SPACING_TOLERANCE_MM, first_stranger
from lungseg.scans.dicom.classification import telling_words
from lungseg.scans.dicom.copies import without_copies, without_doubles
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.order import along_normal, identity_order
from lungseg.scans.dicom.splitting import doubled_positions, parts_of
from lungseg.wording import counted

_Key: TypeAlias = tuple[Any, ...]
KEY_FIELDS = ("frame of reference", "kind of file", "size", "pixel spacing", "orientation", "colours", "image type",
              "stack")  # fmt: skip
"""What all planes of a group of one series share, in the words of the notes."""
IN_THE_SAME_PLANES = {"frame of reference", "size", "pixel spacing"}
"""Pictures that differ in nothing else may be slices of the same scan."""
SAMPLE = 500
"""Values among which those around each are counted: a drop may have thousands."""
MOST_OTHERS = 5
"""Groups of one series that a finding lists."""
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
    by_series: dict[_Key, list[Instance]] = defaultdict(list)
    for instance in ordered:
        by_series[_series(instance)].append(instance)
    return tuple(group for planes in by_series.values() for group in _groups_of_series(planes))


def _groups_of_series(instances: Sequence[Instance]) -> Iterator[Group]:
    spacings = _classes([instance.spacing_mm for instance in instances], SPACING_TOLERANCE_MM)
    directions = _classes([_orientation(instance) for instance in instances], COSINE_TOLERANCE)
    by_key: dict[_Key, list[Instance]] = defaultdict(list)
    for instance, spacing, direction in zip(instances, spacings, directions, strict=True):
        by_key[_key(instance, spacing, direction)].append(instance)
    counts = {key: len(planes) for key, planes in by_key.items()}
    largest = max(counts, key=lambda key: (counts[key], key))
    for key, planes in by_key.items():
        is_alone = len(counts) == 1 or not instances[0].series_uid
        note = "" if is_alone or key == largest else _difference(key, largest, counts[largest])
        findings = () if is_alone or key != largest else (_of_others(key, counts),)
        yield from _stacks(planes, note, findings)


def _series(instance: Instance) -> _Key:
    name = "" if instance.patient_id else instance.patient_name
    return (instance.patient_id, name), instance.study_uid, instance.series_uid


def _key(instance: Instance, spacing: int, direction: int) -> _Key:
    return (
        instance.frame_of_reference_uid,
        (instance.sop_class_uid, instance.modality),
        (instance.rows, instance.columns),
        spacing,
        direction,
        (instance.photometric, instance.samples_per_pixel),
        telling_words(instance),
        instance.stack,
    )


def _orientation(instance: Instance) -> tuple[float, ...] | None:
    return None if instance.row is None or instance.column is None else (*instance.row, *instance.column)


def _classes(values: Sequence[tuple[float, ...] | None], tolerance: float) -> list[int]:
    """Number values so that those that can be the same (`first_stranger`) have one number; None has one of its own."""
    distinct = sorted({value for value in values if value is not None})
    points = np.array(distinct)
    if not distinct or first_stranger(points, tolerance) is None:
        return [int(value is None) for value in values]
    numbers: dict[tuple[float, ...] | None, int] = dict(zip(distinct, _around_centres(points, tolerance), strict=True))
    numbers[None] = len(distinct)
    return [numbers[value] for value in values]


def _around_centres(points: NDArray[np.float64], tolerance: float) -> list[int]:
    """Number points (N, M): those within a tolerance of one that has most of them around it go with that one."""
    sample = points[:: len(points) // SAMPLE + 1]
    counts = sum((np.abs(points - other) <= tolerance).all(axis=1).astype(np.int64) for other in sample)
    numbers = np.full(len(points), -1)
    for number, centre in enumerate(np.argsort(-np.asarray(counts), kind="stable")):
        if numbers[centre] < 0:
            numbers[(numbers < 0) & (np.abs(points - points[centre]) <= tolerance).all(axis=1)] = number
    return numbers.tolist()


def _difference(key: _Key, largest: _Key, count: int) -> str:
    """Say what a small group of a series is, beside its largest one."""
    return f"Set apart from the other {counted(count, 'image')} of its series: {_differences(key, largest)}."


def _of_others(key: _Key, counts: dict[_Key, int]) -> ScanFinding:
    """Say what of the same series is in other groups than the largest one, whose key is `key`."""
    others = {other: count for other, count in counts.items() if other != key}
    images = sorted(f"{counted(count, 'image')} ({_differences(other, key)})" for other, count in others.items())
    more = [f"and {len(images) - MOST_OTHERS} more groups"] if len(images) > MOST_OTHERS else []
    text = f"Of the same series, but no part of this scan: {', '.join([*images[:MOST_OTHERS], *more])}."
    if any(IN_THE_SAME_PLANES.issuperset(_differing(other, key)) for other in others):
        remedy = "Slices of the chest may be among them: look at what was set apart, or export the series again."
        return ScanFinding("dicom.set_apart", ScanSeverity.WARNING, text, remedy)
    return ScanFinding("dicom.set_apart", ScanSeverity.NOTE, text)


def _differing(key: _Key, other: _Key) -> list[str]:
    return [name for name, own, theirs in zip(KEY_FIELDS, key, other, strict=True) if own != theirs]


def _differences(key: _Key, other: _Key) -> str:
    return f"another {', '.join(_differing(key, other))}"


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
        complete, doubts, unscaled = _with_rescaling(part.instances)
        refusal = refusal or unscaled
        own = (ScanFinding("dicom.part", ScanSeverity.NOTE, part.note),) if part.note else ()
        text = " ".join(filter(None, (note, part.note)))
        yield Group(along_normal(complete), text, refusal, (*findings, *own, *doubts))


def _with_rescaling(planes: Sequence[Instance]) -> tuple[Sequence[Instance], tuple[ScanFinding, ...], str]:
    """Give planes that lack slope or intercept those that all others share.

    Returns:
        The planes, what was found, and why they can't be taken: the others differ. Where all lack them, they stay so.
    """
    bare = [plane.slope is None or plane.intercept is None for plane in planes]
    pairs = {(plane.slope, plane.intercept) for plane, is_bare in zip(planes, bare, strict=True) if not is_bare}
    if not any(bare) or not pairs:
        return planes, (), ""
    unsaid = f"{sum(bare)} of {len(planes)} slices don't say how their values become HU"
    if len(pairs) > 1:
        return planes, (), f"{unsaid}, and the others have different slopes and intercepts. {AGAIN}"
    ((slope, intercept),) = pairs
    text = f"{unsaid}; the slope and intercept of the others were used."
    finding = ScanFinding("dicom.no_rescale", ScanSeverity.WARNING, text, "Compare these slices with their neighbours.")
    return [replace(plane, slope=slope, intercept=intercept) for plane in planes], (finding,), ""
