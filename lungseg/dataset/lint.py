"""What is wrong with a data set, judged from the facts of its cases. Errors stop training, warnings are shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from lungseg.dataset.findings import DataSetFinding, Severity
from lungseg.dataset.fingerprint import CaseFacts, MaskFacts, ScanFacts
from lungseg.dataset.labels import Legend
from lungseg.dataset.layout import DataSet
from lungseg.dataset.likeness import Likeness, alike
from lungseg.dataset.split import Split
from lungseg.records import ScanSeverity
from lungseg.wording import counted

PLAIN_MASK = (1.0,)
MOST_VALUES = 5
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

Findings = Iterator[DataSetFinding]
Facts = tuple[CaseFacts, ...]


def lint(
    data_set: DataSet, facts: Facts, split: Split | None = None, likenesses: Sequence[Likeness] | None = None
) -> tuple[DataSetFinding, ...]:
    """List what is wrong with a data set, errors first.

    Args:
        data_set: what lies in the folder.
        facts: of its cases.
        split: of its cases, where one is given; then that is checked too.
        likenesses: cases that show one examination, as a store has kept them; None to look for them here.
    """
    found = [*data_set.findings]
    for case in facts:
        found.extend(_of_case(case))
    for check in (_duplicates, _orientations, _spacings, _no_tumour):
        found.extend(check(facts))
    likenesses = find_alike(facts) if likenesses is None else likenesses
    found.extend(_near_duplicates(facts, likenesses))
    if split:
        found.extend(of_split(facts, split, likenesses))
    return _sorted(found)


def find_alike(facts: Facts) -> tuple[Likeness, ...]:
    """Find the cases that show one examination."""
    return alike({case.case: scan.thumbnail for case, scan in _scans(facts) if scan.thumbnail})


def of_split(facts: Facts, split: Split, likenesses: Sequence[Likeness] = ()) -> tuple[DataSetFinding, ...]:
    """List what is wrong with a split: patients or examinations on both sides, a side without tumour."""
    return _sorted([*_leaks(facts, split, likenesses), *_sides_without_tumour(facts, split)])


def _sorted(found: list[DataSetFinding]) -> tuple[DataSetFinding, ...]:
    return tuple(sorted(found, key=lambda finding: (not finding.is_error, finding.case or "", finding.code)))


def _of_case(facts: CaseFacts) -> Findings:
    if facts.failure:
        yield DataSetFinding(Severity.ERROR, facts.failure.code, facts.case, facts.failure.found, facts.failure.remedy)
    if facts.scan and facts.scan.lungs is None:
        yield _warning(
            facts,
            "scan.no_lung",
            "No lungs were found in the scan.",
            "Look whether it is a CT of the chest with both lungs in view; where tumours lie can't be checked.",
        )
    if facts.scan:
        yield from _of_header(facts, facts.scan)
    if facts.mask:
        yield from _of_mask(facts, facts.mask)


def _of_header(facts: CaseFacts, scan: ScanFacts) -> Findings:
    """Pass on what the reader of the scan says of its header; one that was not understood must not be learned from."""
    for finding in scan.findings:
        if finding.severity is not ScanSeverity.NOTE:
            severity = Severity.ERROR if finding.severity is ScanSeverity.NOT_UNDERSTOOD else Severity.WARNING
            remedy = finding.remedy or "Look at the scan, and export it again if that is wrong."
            yield DataSetFinding(severity, finding.code, facts.case, finding.text, remedy)


def _of_mask(facts: CaseFacts, mask: MaskFacts) -> Findings:
    yield from _values(facts, mask)
    if not mask.lesions:
        yield _warning(
            facts,
            "mask.empty",
            _said_empty(mask),
            "Right for a patient without tumour; otherwise mark the tumour, or take the case out.",
        )
    if mask.is_over_air:
        hint = f" Mirrored ({mask.mirror}) it would lie on something." if mask.mirror else ""
        yield _warning(
            facts,
            "mask.over_air",
            f"The mask covers mostly air, no denser than the lung around it.{hint}",
            "Look at it on its scan: it is flipped, shifted, or belongs to another scan.",
        )
    if mask.outside_lungs:
        spots = [lesion for lesion in mask.lesions if lesion.number in mask.outside_lungs]
        volumes = ", ".join(f"{spot.volume_ml:.2f} ml in slices {spot.slices[0]}-{spot.slices[1]}" for spot in spots)
        yield _warning(
            facts,
            "mask.outside_lungs",
            f"{counted(len(spots), 'lesion lies', 'lesions lie')} outside the lung field: {volumes}.",
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
    """Check what a mask holds against what its values are said to stand for."""
    listed = ", ".join(f"{value:g}" for value in mask.values)
    if any(value != round(value) or value < 0 for value in mask.values):
        yield DataSetFinding(
            Severity.ERROR,
            "mask.not_binary",
            facts.case,
            f"The mask holds the values {listed}: it is not binary.",
            "Write 0 and 1; resample masks by nearest neighbour, and cut probabilities at a threshold.",
        )
        return
    if mask.off_whole:
        yield _warning(
            facts,
            "mask.rounded",
            f"Values of the mask are up to {mask.off_whole:.1g} off whole numbers; they are read as these.",
            "Nothing need be done; write whole numbers to be sure.",
        )
    yield from _unnamed(facts, mask, mask.legend) if mask.legend else _plain_values(facts, mask, listed)


def _plain_values(facts: CaseFacts, mask: MaskFacts, listed: str) -> Findings:
    """Without `labels`, one other value than 1 reads as well; several leave open what is tumour."""
    if len(mask.values) > 1:
        yield DataSetFinding(
            Severity.ERROR,
            "mask.several_values",
            facts.case,
            f"The mask holds the values {listed} besides 0.",
            "Say what they stand for by labels in dataset.json, or which is tumour by --tumour-class, or write 1.",
        )
    elif mask.values and mask.values != PLAIN_MASK:
        yield _warning(
            facts,
            "mask.other_value",
            f"The mask marks tumour with {listed} instead of 1.",
            "Nothing need be done if that is all tumour; write 0 and 1 to be sure.",
        )


def _unnamed(facts: CaseFacts, mask: MaskFacts, legend: Legend) -> Findings:
    unnamed = [f"{value:g}" for value in mask.values if value not in legend.named]
    if unnamed and legend.is_complete:
        yield DataSetFinding(
            Severity.ERROR,
            "mask.unknown_value",
            facts.case,
            f"The mask holds the values {', '.join(unnamed)}, to which labels in dataset.json give no name.",
            "Name them there, or correct the mask.",
        )


def _said_empty(mask: MaskFacts) -> str:
    if mask.legend is None or not mask.values:
        return "The mask is empty."
    others = ", ".join(mask.legend.name_of(value) for value in mask.values)
    return f"The mask marks no {mask.legend.tumour}; it holds {others}."


def _no_tumour(facts: Facts) -> Findings:
    """Refuse a data set of which not one mask marks tumour."""
    masks = [case.mask for case in facts if case.mask and case.is_usable]
    if masks and not any(mask.lesions for mask in masks):
        held = sorted({mask.legend.name_of(value) for mask in masks if mask.legend for value in mask.values})
        instead = f" They hold {', '.join(held[:MOST_VALUES])} instead." if held else ""
        legend = masks[0].legend
        yield DataSetFinding(
            Severity.ERROR,
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
                other,
                "scan.duplicate",
                f"The scan holds the same voxels as {first.case}.",
                "Take one of the two out; they count as one patient in every split.",
            )


def _near_duplicates(facts: Facts, likenesses: Sequence[Likeness]) -> Findings:
    """Tell of scans that show one examination but are not said to be of one patient."""
    known = {case.case: case for case in facts}
    for pair in likenesses:
        first, second = known.get(pair.first), known.get(pair.second)
        if first and second and first.content_sha256 != second.content_sha256 and first.patient != second.patient:
            yield _warning(
                second,
                "scan.near_duplicate",
                f"The scan seems to show the same examination as {first.case}{_mirrored(pair)} (likeness "
                f"{pair.correlation:.2f} of 1): the same scan processed otherwise, or another series of the patient.",
                "Take one of the two out, or give both the same patient in patients.csv; they count as one patient in "
                "every split.",
            )


def _mirrored(pair: Likeness) -> str:
    return ", mirrored" if pair.mirror else ""


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
                f"Its axes are stored as {scan.orientation}, those of {counted(counts[usual], 'case')} as {usual}.",
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


def _leaks(facts: Facts, split: Split, likenesses: Sequence[Likeness]) -> Findings:
    """Find patients, scans of the same content, and series of one examination on both sides of a split."""
    patients = {case.patient: case.case for case in facts if case.case in split.train}
    same = {case.content_sha256: case.case for case in facts if case.case in split.train}
    looks = {a: b for pair in likenesses for a, b in _both_ways(pair) if b in split.train}
    for case in facts:
        reasons = (
            (f"The patient {case.patient}", patients.get(case.patient)),
            ("The same scan", same.get(case.content_sha256)),
            ("A scan that seems to show the same examination", looks.get(case.case)),
        )
        who, other = next(((who, other) for who, other in reasons if other), ("", None))
        if case.case in split.validation and other:
            yield DataSetFinding(
                Severity.ERROR,
                "split.leak",
                case.case,
                f"{who} is also trained on, as case {other}.",
                "Put all cases of a patient on one side of the split.",
            )


def _both_ways(pair: Likeness) -> tuple[tuple[str, str], tuple[str, str]]:
    return (pair.first, pair.second), (pair.second, pair.first)


def _sides_without_tumour(facts: Facts, split: Split) -> Findings:
    """Refuse a side without tumour: nothing can be learned from it, or nothing be chosen on it."""
    with_tumour = {case.case for case in facts if case.mask and case.mask.lesions}
    if with_tumour.isdisjoint(split.validation):
        yield DataSetFinding(
            Severity.ERROR,
            "split.no_tumour",
            None,
            f"None of the {counted(len(split.validation), 'case')} held out has tumour in its mask: the best "
            "epoch and the threshold would be chosen on nothing.",
            "Hold out at least one case with tumour: another seed of the split, another fold, or a split of your own.",
        )
    if with_tumour.isdisjoint(split.train):
        yield DataSetFinding(
            Severity.ERROR,
            "split.no_tumour",
            None,
            f"None of the {counted(len(split.train), 'case')} to learn from has tumour in its mask.",
            "Learn from cases with tumour: another seed of the split, another fold, or a split of your own.",
        )


def _scans(facts: Facts) -> Iterable[tuple[CaseFacts, ScanFacts]]:
    return [(case, case.scan) for case in facts if case.scan]


def _warning(facts: CaseFacts, code: str, found: str, remedy: str) -> DataSetFinding:
    return DataSetFinding(Severity.WARNING, code, facts.case, found, remedy)
