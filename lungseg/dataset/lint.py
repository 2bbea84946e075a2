"""What is wrong with a data set, judged from the facts of its cases. Errors stop training, warnings are shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from statistics import median

from lungseg.dataset.facts import CaseFacts, MaskFacts, ScanFacts
from lungseg.dataset.findings import Finding, Severity
from lungseg.dataset.layout import DataSet
from lungseg.dataset.split import Split

PLAIN_MASK = (1.0,)
SPACING_FACTOR = 3.0
"""A spacing is an outlier when it is this many times the median of the set, or less than the median by as much."""
THICK_SLICE_MM = 6.0
"""Slices further apart than this miss small tumours, whatever the rest of the set is like."""
SIDE_NAMES = {
    "L": "left edge",
    "R": "right edge",
    "P": "posterior edge",
    "A": "anterior edge",
    "I": "lowest slice",
    "S": "highest slice",
}
AXIS_NAMES = ("pixel width", "pixel height", "slice distance")

Findings = Iterator[Finding]
Facts = tuple[CaseFacts, ...]


def lint(data_set: DataSet, facts: Facts, split: Split | None = None) -> tuple[Finding, ...]:
    """List what is wrong with a data set, errors first.

    Args:
        data_set: what lies in the folder.
        facts: of its cases.
        split: of its cases, where one is given; then also checked for patients on both of its sides.
    """
    found = [*data_set.findings]
    for case in facts:
        found.extend(_of_case(case))
    for check in (_duplicates, _orientations, _spacings):
        found.extend(check(facts))
    if split:
        found.extend(_leaks(facts, split))
    return tuple(sorted(found, key=lambda finding: (not finding.is_error, finding.case or "", finding.code)))


def _of_case(facts: CaseFacts) -> Findings:
    if facts.failure:
        yield Finding(Severity.ERROR, facts.failure.code, facts.case, facts.failure.found, facts.failure.remedy)
    if facts.scan and facts.scan.lungs is None:
        yield _warning(
            facts,
            "scan.no_lung",
            "No lungs were found in the scan.",
            "Look whether it is a CT of the chest with both lungs in view; where tumours lie can't be checked.",
        )
    if facts.mask:
        yield from _of_mask(facts, facts.mask)


def _of_mask(facts: CaseFacts, mask: MaskFacts) -> Findings:
    yield from _values(facts, mask)
    if not mask.lesions:
        yield _warning(
            facts,
            "mask.empty",
            "The mask is empty.",
            "Right for a patient without tumour; otherwise mark the tumour, or take the case out.",
        )
    if mask.outside_lungs:
        spots = [lesion for lesion in mask.lesions if lesion.number in mask.outside_lungs]
        volumes = ", ".join(f"{spot.volume_ml:.2f} ml in slices {spot.slices[0]}-{spot.slices[1]}" for spot in spots)
        yield _warning(
            facts,
            "mask.outside_lungs",
            f"{_count(len(spots), 'lesion lies', 'lesions lie')} outside the lung field: {volumes}.",
            "Look whether the mask is flipped, belongs to another scan, or holds a slip of the pen.",
        )
    if mask.cut_off:
        sides = ", ".join(SIDE_NAMES[side] for side in mask.cut_off)
        yield _warning(
            facts,
            "mask.cut_off",
            f"The tumour reaches the border of the scan ({sides}) and may be cut off.",
            "Use the complete series; a tumour seen in part teaches a wrong shape and volume.",
        )


def _values(facts: CaseFacts, mask: MaskFacts) -> Findings:
    """Check that the mask is 0 and 1. One other value reads as well; several leave open what is tumour."""
    listed = ", ".join(f"{value:g}" for value in mask.values)
    if any(value != round(value) or value < 0 for value in mask.values):
        yield Finding(
            Severity.ERROR,
            "mask.not_binary",
            facts.case,
            f"The mask holds the values {listed}: it is not binary.",
            "Write 0 and 1; resample masks by nearest neighbour, and cut probabilities at a threshold.",
        )
    elif len(mask.values) > 1:
        yield Finding(
            Severity.ERROR,
            "mask.several_values",
            facts.case,
            f"The mask holds the values {listed} besides 0.",
            "Keep the one that marks tumour and write it as 1.",
        )
    elif mask.values and mask.values != PLAIN_MASK:
        yield _warning(
            facts,
            "mask.other_value",
            f"The mask marks tumour with {listed} instead of 1.",
            "Nothing need be done if that is all tumour; write 0 and 1 to be sure.",
        )


def _duplicates(facts: Facts) -> Findings:
    """Find scans that hold the same voxels."""
    groups: dict[str, list[CaseFacts]] = defaultdict(list)
    for case, scan in _scans(facts):
        groups[scan.content_sha256].append(case)
    for first, *others in groups.values():
        for other in others:
            yield _warning(
                other,
                "scan.duplicate",
                f"The scan holds the same voxels as {first.case}.",
                "Take one of the two out; they count as one patient in every split.",
            )


def _orientations(facts: Facts) -> Findings:
    """Find scans whose axis order is not that of most others."""
    counts = Counter(scan.orientation for _, scan in _scans(facts))
    usual = counts.most_common(1)[0][0] if counts else ""
    remedy = "Nothing need be done if the scans are right side up: each is read by its own affine. Look at one of them."
    for case, scan in _scans(facts):
        if scan.orientation != usual:
            yield _warning(
                case,
                "scan.orientation",
                f"Its axes are stored as {scan.orientation}, those of {_count(counts[usual], 'case', 'cases')} as "
                f"{usual}.",
                remedy,
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
                    case,
                    "scan.spacing",
                    f"Its {name} is {spacing:.3g} mm, the median of the set {usual:.3g} mm.",
                    "Check that the spacing in the header is right; take the case out if it is not like those to come.",
                )


def _leaks(facts: Facts, split: Split) -> Findings:
    """Find patients, and scans of the same content, on both sides of a split."""
    patients = {case.patient: case.case for case in facts if case.case in split.train}
    contents = {case.content_sha256: case.case for case in facts if case.case in split.train}
    for case in facts:
        other = patients.get(case.patient) or contents.get(case.content_sha256)
        if case.case in split.validation and other:
            who = f"The patient {case.patient}" if case.patient in patients else "The same scan"
            yield Finding(
                Severity.ERROR,
                "split.leak",
                case.case,
                f"{who} is also trained on, as case {other}.",
                "Put all cases of a patient on one side of the split.",
            )


def _scans(facts: Facts) -> Iterable[tuple[CaseFacts, ScanFacts]]:
    return [(case, case.scan) for case in facts if case.scan]


def _warning(facts: CaseFacts, code: str, found: str, remedy: str) -> Finding:
    return Finding(Severity.WARNING, code, facts.case, found, remedy)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
