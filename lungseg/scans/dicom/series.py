"""The series of a set of planes, what each is, and which of an examination is the best to outline lesions on."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lungseg.errors import ScanError
from lungseg.records.findings import ScanFinding
from lungseg.records.intakes import SeriesKind, SeriesOffer
from lungseg.scans.dicom.classification import is_derived, is_secondary, verdict_on
from lungseg.scans.dicom.grouping import Group, groups_of
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.kernels import Sharpness, sharpness_of
from lungseg.scans.dicom.order import heights_mm, step_mm
from lungseg.scans.dicom.pixels import check_decoders
from lungseg.scans.dicom.rescaling import check_values
from lungseg.scans.dicom.stacks import stack_of
from lungseg.wording import counted

KEY_LENGTH = 12
THIN_MM = 3.0
"""Slices at this distance or less show small nodules; a series of them goes before one of thicker slices."""
COMPLETE = 0.8
"""Of the longest series of an examination, or of a pair of lungs: shorter ones miss a part of them."""
LUNGS_MM = 300.0
"""Lungs are seldom longer: a series of the trunk shows no more of them than one of the chest."""
SAME_RANGE = 0.8
"""Of the longer of two series: they are of one acquisition where they share more than that."""
KINDS = (SeriesKind.CHEST_CT, SeriesKind.CT, SeriesKind.DERIVED)
"""Those that can be taken, the best first."""


@dataclass(frozen=True, slots=True)
class Series:
    """Planes that make one stack: a series, a phase of one, or what was set apart from one.

    Attributes:
        key: names it among the series of the same files, whatever their order and names.
        instances: sorted along the normal where they have positions.
        kind: what it is.
        note: what else a reader should know.
        refusal: why it can't be taken in, and what to do; empty where nothing in the headers speaks against it.
        findings: what was dropped or set apart, and what of the values is uncertain.
    """

    key: str
    instances: tuple[Instance, ...]
    kind: SeriesKind
    note: str = ""
    refusal: str = ""
    findings: tuple[ScanFinding, ...] = ()

    @property
    def first(self) -> Instance:
        """The first plane: what all planes share stands in it."""
        return self.instances[0]

    @property
    def extent_mm(self) -> float:
        """Length along the normal, mm; 0 where planes have no position."""
        heights = heights_mm(self.instances)
        return 0.0 if heights is None else float(np.ptp(heights))

    @property
    def label(self) -> str:
        """What people call it: its number, else its description."""
        number, description = self.first.series_number, self.first.series_description
        return f"series {number}" if number is not None else f"series {description!r}" if description else "a series"


def series_in(instances: Sequence[Instance]) -> tuple[Series, ...]:
    """Group planes into series, and tell what each is.

    The order of `instances` changes nothing. Whether a series makes a volume is not tested here: `stack_of` does.
    """
    counts: Counter[str] = Counter()
    series = []
    for group in groups_of(instances):
        key = _key(group.instances)
        counts[key] += 1
        series.append(_series(f"{key}-{counts[key]}" if counts[key] > 1 else key, group))
    return tuple(
        sorted(series, key=lambda member: (*_study(member), member.first.series_number or 0, member.note, member.key))
    )


def _key(instances: Sequence[Instance]) -> str:
    lines = sorted(
        f"{plane.sop_instance_uid} {plane.frame} {plane.instance_number} {plane.position_mm}" for plane in instances
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:KEY_LENGTH]


def _series(key: str, group: Group) -> Series:
    verdict = verdict_on(group.instances)
    return Series(
        key,
        group.instances,
        verdict.kind,
        note=" ".join(filter(None, (group.note, verdict.note))),
        refusal=verdict.refusal or group.refusal,
        findings=(*group.findings, *verdict.findings),
    )


def _study(series: Series) -> tuple[str, str, str]:
    """Return what tells examinations apart: patients with one study UID are two."""
    first = series.first
    return first.patient_id or first.patient_name, first.study_date, first.study_uid


def offers_of(series: Sequence[Series]) -> tuple[SeriesOffer, ...]:
    """Say of series what a reader chooses by, in order of examinations, the preferred one of each first.

    A series whose planes make no volume, or that nothing decodes, is refused with the reason.
    """
    checked = [_checked(member) for member in series]
    studies: dict[tuple[str, str, str], list[Series]] = defaultdict(list)
    for member in checked:
        studies[_study(member)].append(member)
    names = _study_names(list(studies.values()))
    offers: list[SeriesOffer] = []
    for study, members in studies.items():
        usable = [member for member in members if not member.refusal]
        longest = max((member.extent_mm for member in usable), default=0.0)
        ranked = sorted(usable, key=lambda member: _rank(member, longest))
        refused = [member for member in members if member.refusal]
        for place, member in enumerate((*ranked, *refused)):
            note = " ".join(filter(None, (member.note, _relation(member, ranked))))
            offer = replace(_offer(member), study=names[study], note=note)
            is_best = place == 0 and bool(ranked)
            offers.append(replace(offer, is_preferred=True, reason=_reason(member, ranked)) if is_best else offer)
    return tuple(offers)


def _checked(series: Series) -> Series:
    if series.refusal:
        return series
    try:
        check_values(series.instances)
        check_decoders(series.instances)
        stack_of(series.instances)
    except ScanError as error:
        return replace(series, refusal=str(error))
    return series


def _study_names(studies: Sequence[Sequence[Series]]) -> dict[tuple[str, str, str], str]:
    """Name examinations by date and description; those of one patient that share a name are numbered."""
    counts: Counter[tuple[str, str]] = Counter()
    names = {}
    for members in studies:
        first = members[0].first
        name = " ".join(filter(None, (_iso(first.study_date), first.study_description))) or "an examination"
        counts[_patient(first), name] += 1
        number = counts[_patient(first), name]
        names[_study(members[0])] = f"{name} ({number})" if number > 1 else name
    return names


def _iso(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == len("20261130") and date.isdecimal() else date


def _patient(first: Instance) -> str:
    name = " ".join(first.patient_name.replace("^", " ").split())
    return f"{name} ({first.patient_id})" if name and first.patient_id not in {"", name} else name or first.patient_id


def _offer(series: Series) -> SeriesOffer:
    first = series.first
    return SeriesOffer(
        key=series.key,
        kind=series.kind,
        patient=_patient(first),
        description=first.series_description or first.protocol,
        number=first.series_number,
        kernel=first.kernel,
        slice_mm=step_mm(series.instances),
        slices=len(series.instances),
        size=(first.rows, first.columns) if first.rows and first.columns else None,
        note=series.note,
        refusal=series.refusal,
    )


def _rank(series: Series, longest_mm: float) -> tuple[object, ...]:
    """Return what sorts the series of an examination, the best one first."""
    step = step_mm(series.instances) or 0.0
    return (
        KINDS.index(series.kind),
        series.extent_mm < COMPLETE * min(longest_mm, LUNGS_MM),
        step > THIN_MM,
        round(step, 1),
        sharpness_of(series.first.kernel),
        is_derived(series.first),
        -len(series.instances),
        series.first.series_number or 0,
        series.note,
        series.key,
    )


def _reason(best: Series, ranked: Sequence[Series]) -> str:
    """Say why a series is the preferred one of its examination, by what it has before the others."""
    if len(ranked) == 1:
        return "The only series of its examination that can be taken."
    step, kernel = step_mm(best.instances) or 0.0, best.first.kernel
    others = [step_mm(member.instances) or 0.0 for member in ranked[1:]]
    reasons = [f"{'thinnest slices' if step < min(others) else 'slices'} of {step:.3g} mm"]
    if kernel and sharpness_of(kernel) is Sharpness.SOFT:
        reasons.append(f"soft kernel {kernel}")
    if not is_secondary(best.first) and any(is_secondary(member.first) for member in ranked[1:]):
        reasons.append("original, not computed from other slices")
    if len(best.instances) > max(len(member.instances) for member in ranked[1:]):
        reasons.append("most slices")
    text = ", ".join((*reasons, counted(len(best.instances), "slice")))
    return f"{text[0].upper()}{text[1:]}."


def _relation(series: Series, ranked: Sequence[Series]) -> str:
    """Say of which better series of the examination this one is another reconstruction."""
    place = ranked.index(series) if series in ranked else 0
    twin = next((better for better in ranked[:place] if _is_same_acquisition(series, better)), None)
    if twin is None:
        return ""
    own, other = series.first.kernel, twin.first.kernel
    if own != other:
        return f"Same acquisition as {twin.label} (kernel {other or 'unknown'}), with kernel {own or 'unknown'}."
    step = step_mm(series.instances) or 0.0
    return f"Same acquisition as {twin.label}, in slices of {step:.3g} mm."


def _is_same_acquisition(some: Series, other: Series) -> bool:
    """Tell whether two series were made of the same raw data: same frame, acquisition, contrast, time and range."""
    if some.note != other.note or _acquisition(some) != _acquisition(other):
        return False
    times = [{plane.acquisition_time for plane in series.instances} for series in (some, other)]
    heights, others = heights_mm(some.instances), heights_mm(other.instances)
    if heights is None or others is None or max(min(times[0]), min(times[1])) > min(max(times[0]), max(times[1])):
        return False
    shared = min(heights.max(), others.max()) - max(heights.min(), others.min())
    return bool(shared > SAME_RANGE * max(np.ptp(heights), np.ptp(others)))


def _acquisition(series: Series) -> tuple[object, ...]:
    first = series.first
    return first.study_uid, first.frame_of_reference_uid, first.acquisition_number, first.contrast_agent
