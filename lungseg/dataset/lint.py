"""What is wrong with a data set, judged from the facts of its cases. Errors stop training, warnings are shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

from lungseg.dataset.findings import DataSetFinding, Severity
from lungseg.dataset.fingerprint import CaseFacts, MaskFacts, ScanFacts
from lungseg.dataset.layout import DataSet
from lungseg.dataset.likeness import Likeness, alike
from lungseg.dataset.split import Split
from lungseg.records.findings import ScanSeverity
from lungseg.wording import counted

PLAIN_MASK = (1.0,)
MOST_VALUES = 5
SPACING_FACTOR = 3.0
"""A spacing is an outlier when it is this many times the median of the set, or the median this many times it."""
THICK_SLICE_MM = 6.0
"""Slices further apart than this miss small tumours, whatever the median of the set is."""
SIDE_NAMES = {
    "L": "left edge",
    "R": "right edge",
    "P": "posterior edge",
    "A": "anterior edge",
    "I": "lowest slice",
    "S": "highest slice",
}
AXIS_NAMES = ("pixel width", "pixel height", "slice distance")

Findings = Iterator[DataSetFinding]
Facts = tuple[CaseFacts, ...]
_error = partial(DataSetFinding, Severity.ERROR)
_warning = partial(DataSetFinding, Severity.WARNING)


def lint(
    data_set: DataSet, facts: Facts, split: Split | None = None, likenesses: Sequence[Likeness] | None = None
) -> tuple[DataSetFinding, ...]:
    """List what is wrong with a data set, errors first.

    Args:
        data_set: what lies in the folder.
        facts: of its cases.
        split: of its cases; checked too where there is one.
        likenesses: cases that show one examination, as a store holds them; None to look for them here.
    """
    findings = [*data_set.findings]
    for case in facts:
        findings.extend(_of_case(case))
    for check in (_duplicates, _orientations, _spacings, _no_tumour):
        findings.extend(check(facts))
    if likenesses is None:
        likenesses = alike({case.case: scan.thumbnail for case, scan in _scans(facts) if scan.thumbnail})
    findings.extend(_near_duplicates(facts, likenesses))
    if split:
        findings.extend(of_split(facts, split, likenesses))
    return _sorted(findings)


def of_split(facts: Facts, split: Split, likenesses: Sequence[Likeness] = ()) -> tuple[DataSetFinding, ...]:
    """List what is wrong with a split: patients or examinations on both sides, a side without tumour."""
    return _sorted([*_leaks(facts, split, likenesses), *_sides_without_tumour(facts, split)])


def _sorted(findings: list[DataSetFinding]) -> tuple[DataSetFinding, ...]:
    return tuple(sorted(findings, key=lambda finding: (not finding.is_error, finding.case or "", finding.code)))


def _of_case(facts: CaseFacts) -> Findings:
    if facts.failure:
        yield _error(facts.failure.code, facts.case, facts.failure.found, facts.failure.remedy)
    if facts.scan and facts.scan.lungs is None:
        yield _warning(
            "scan.no_lung",
            facts.case,
            "No lungs were found in the scan.",
            "Look whether it is a CT of the chest with both lungs in view; where tumours lie can't be checked.",
        )
    if facts.scan:
        yield from _of_header(facts, facts.scan)
    if facts.mask:
        yield from _of_mask(facts, facts.mask)


def _of_header(facts: CaseFacts, scan: ScanFacts) -> Findings:
    """Pass on the findings of the scan's reader; no scan may be learned from whose header was not understood."""
    for finding in scan.findings:
        if finding.severity is not ScanSeverity.NOTE:
            severity = Severity.ERROR if finding.severity is ScanSeverity.NOT_UNDERSTOOD else Severity.WARNING
            remedy = finding.remedy or "Look at the scan, and export it again if that is wrong."
            yield DataSetFinding(severity, finding.code, facts.case, finding.text, remedy)


def _of_mask(facts: CaseFacts, mask: MaskFacts) -> Findings:
    yield from _values(facts, mask)
    if not mask.lesions:
        yield _warning(
            "mask.empty",
            facts.case,
            _why_empty(mask),
            "Right for a patient without tumour; otherwise mark the tumour, or take the case out.",
        )
    if mask.is_over_air:
        hint = f" Mirrored ({mask.mirror}) it would lie on tissue." if mask.mirror else ""
        yield _warning(
            "mask.over_air",
            facts.case,
            f"The mask covers mostly air, no denser than the lung around it.{hint}",
            "Look at it on its scan: it is flipped, shifted, or belongs to another scan.",
        )
    if mask.outside_lungs:
        spots = [lesion for lesion in mask.lesions if lesion.number in mask.outside_lungs]
        volumes = ", ".join(f"{spot.volume_ml:.2f} ml in slices {spot.slices[0]}-{spot.slices[1]}" for spot in spots)
        yield _warning(
            "mask.outside_lungs",
            facts.case,
            f"{counted(len(spots), 'lesion lies', 'lesions lie')} outside the lung field: {volumes}.",
            "Look whether the mask is flipped, belongs to another scan, or holds a slip of the pen.",
        )
    if mask.cut_off:
        sides = ", ".join(SIDE_NAMES[side] for side in mask.cut_off)
        yield _warning(
            "mask.cut_off",
            facts.case,
            f"The tumour reaches the border of the scan ({sides}) and may be cut off.",
            "Use the complete series; a tumour seen in part teaches a wrong shape and volume.",
        )


def _values(facts: CaseFacts, mask: MaskFacts) -> Findings:
    """Check the values of a mask against its legend."""
    values = ", ".join(f"{value:g}" for value in mask.values)
    if any(value != round(value) or value < 0 for value in mask.values):
        yield _error(
            "mask.not_binary",
            facts.case,
            f"The mask holds the values {values}: it is not binary.",
            "Write 0 and 1; resample masks by nearest neighbour, and cut probabilities at a threshold.",
        )
        return
    if mask.off_whole:
        yield _warning(
            "mask.rounded",
            facts.case,
            f"Values of the mask are up to {mask.off_whole:.1g} off whole numbers; they are read as these.",
            "Nothing need be done; write whole numbers to be sure.",
        )
    if mask.legend:
        unnamed = [f"{value:g}" for value in mask.values if value not in mask.legend.named]
        if unnamed and mask.legend.is_complete:
            yield _error(
                "mask.unknown_value",
                facts.case,
                f"The mask holds the values {', '.join(unnamed)}, to which labels in dataset.json give no name.",
                "Name them there, or correct the mask.",
            )
    elif len(mask.values) > 1:
        yield _error(
            "mask.several_values",
            facts.case,
            f"The mask holds the values {values} besides 0.",
            "Say what they stand for by labels in dataset.json, or which is tumour by --tumour-class, or write 1.",
        )
    elif mask.values and mask.values != PLAIN_MASK:
        yield _warning(
            "mask.other_value",
            facts.case,
            f"The mask marks tumour with {values} instead of 1.",
            "Nothing need be done if that is all tumour; write 0 and 1 to be sure.",
        )


def _why_empty(mask: MaskFacts) -> str:
    if mask.legend is None or not mask.values:
        return "The mask is empty."
    others = ", ".join(mask.legend.name_of(value) for value in mask.values)
    return f"The mask marks no {mask.legend.tumour}; it holds {others}."


def _no_tumour(facts: Facts) -> Findings:
    """Refuse a data set of which not one mask marks tumour."""
    masks = [case.mask for case in facts if case.mask and case.is_usable]
    if masks and not any(mask.lesions for mask in masks):
        values = sorted({mask.legend.name_of(value) for mask in masks if mask.legend for value in mask.values})
        instead = f" They hold {', '.join(values[:MOST_VALUES])} instead." if values else ""
        legend = masks[0].legend
        yield _error(
            "mask.no_tumour",
            None,
            f"Not one of {counted(len(masks), 'mask')} marks {legend.tumour if legend else 'tumour'}.{instead}",
            "Nothing can be learned from it: use masks of tumour, or say which class is tumour.",
        )


def _duplicates(facts: Facts) -> Findings:
    """Find scans that hold the same voxels."""
    groups: dict[str, list[CaseFacts]] = defaultdict(list)
    for case, scan in _scans(facts):
        groups[scan.content_sha256].append(case)
    for first, *others in groups.values():
        for other in others:
            yield _warning(
                "scan.duplicate",
                other.case,
                f"The scan holds the same voxels as {first.case}.",
                "Take one of the two out; they count as one patient in every split.",
            )


def _near_duplicates(facts: Facts, likenesses: Sequence[Likeness]) -> Findings:
    """Find scans that show one examination but are listed under different patients."""
    by_name = {case.case: case for case in facts}
    for pair in likenesses:
        first, second = by_name.get(pair.first), by_name.get(pair.second)
        if first and second and first.content_sha256 != second.content_sha256 and first.patient != second.patient:
            yield _warning(
                "scan.near_duplicate",
                second.case,
                f"The scan seems to show the same examination as {first.case}{', mirrored' * bool(pair.mirror)} "
                f"(likeness {pair.correlation:.2f} of 1): the same scan processed otherwise, or another series of the "
                "patient.",
                "Take one of the two out, or give both the same patient in patients.csv; they count as one patient in "
                "every split.",
            )


def _orientations(facts: Facts) -> Findings:
    """Find scans whose axis order is not that of most others."""
    counts = Counter(scan.orientation for _, scan in _scans(facts))
    usual = counts.most_common(1)[0][0] if counts else ""
    for case, scan in _scans(facts):
        if scan.orientation != usual:
            yield _warning(
                "scan.orientation",
                case.case,
                f"Its axes are stored as {scan.orientation}, those of {counted(counts[usual], 'case')} as {usual}.",
                "Nothing need be done if the scans are right side up, as each is read by its own affine. Look at one.",
            )


def _spacings(facts: Facts) -> Findings:
    for axis, name in enumerate(AXIS_NAMES):
        values = [scan.spacing_mm[axis] for _, scan in _scans(facts)]
        usual = median(values) if values else 0.0
        for case, scan in _scans(facts):
            spacing = scan.spacing_mm[axis]
            thick = axis == len(AXIS_NAMES) - 1 and spacing > THICK_SLICE_MM
            if thick or not usual / SPACING_FACTOR <= spacing <= usual * SPACING_FACTOR:
                yield _warning(
                    "scan.spacing",
                    case.case,
                    f"Its {name} is {spacing:.3g} mm, the median of the set {usual:.3g} mm.",
                    "Check that the spacing in the header is right; take the case out if it is not like those to come.",
                )


def _leaks(facts: Facts, split: Split, likenesses: Sequence[Likeness]) -> Findings:
    """Find patients, scans of the same content, and series of one examination on both sides of a split."""
    patients = {case.patient: case.case for case in facts if case.case in split.train}
    same = {case.content_sha256: case.case for case in facts if case.case in split.train}
    both_ways = [names for pair in likenesses for names in ((pair.first, pair.second), (pair.second, pair.first))]
    examinations = {case: other for case, other in both_ways if other in split.train}
    for case in facts:
        reasons = (
            (f"The patient {case.patient}", patients.get(case.patient)),
            ("The same scan", same.get(case.content_sha256)),
            ("A scan that seems to show the same examination", examinations.get(case.case)),
        )
        reason, other = next(((reason, other) for reason, other in reasons if other), ("", None))
        if case.case in split.validation and other:
            yield _error(
                "split.leak",
                case.case,
                f"{reason} is also trained on, as case {other}.",
                "Put all cases of a patient on one side of the split.",
            )


def _sides_without_tumour(facts: Facts, split: Split) -> Findings:
    """Refuse a side without tumour: nothing can be learned from it, or nothing be chosen on it."""
    with_tumour = {case.case for case in facts if case.mask and case.mask.lesions}
    for cases, role, consequence, remedy in (
        (
            split.validation,
            "held out",
            ": the best epoch and the threshold would be chosen on nothing.",
            "Hold out at least one case with tumour",
        ),
        (split.train, "to learn from", ".", "Learn from cases with tumour"),
    ):
        if with_tumour.isdisjoint(cases):
            yield _error(
                "split.no_tumour",
                None,
                f"None of the {counted(len(cases), 'case')} {role} has tumour in its mask{consequence}",
                f"{remedy}: another seed of the split, another fold, or a split of your own.",
            )


def _scans(facts: Facts) -> list[tuple[CaseFacts, ScanFacts]]:
    return [(case, case.scan) for case in facts if case.scan]
