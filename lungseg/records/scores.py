"""How well masks agree with their reference masks."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lungseg.decoding import Finite, JsonObject, Measure, Natural, from_older, renamed
from lungseg.records.run_states import Failure


@dataclass(frozen=True, slots=True)
class CaseScore:
    """How well the mask of one case agrees with its reference mask, on the whole volume.

    Attributes:
        dice: NaN when both masks are empty.
        hd95_mm: 95th percentile of the surface distances; NaN when a mask is empty, because there is no such distance.
        nsd_2mm: share of both surfaces that lies within 2 mm of the other; 0 when one mask is empty, NaN when both are.
        reference_ml: volume of the reference mask.
        predicted_ml: volume of the mask.
        lesions_reference: lesions of the reference mask.
        lesions_found: lesions of the reference that the mask touches.
        false_lesions: lesions of the mask that touch no lesion of the reference.
        seconds: time from opening the scan to the mask; NaN where nobody measured it.
        doubtful_true: doubtful lesions, which are not in the mask, that touch the reference.
        doubtful_false: doubtful lesions that don't.
    """

    case: str
    dice: Measure
    hd95_mm: Measure
    nsd_2mm: Measure
    reference_ml: Measure
    predicted_ml: Measure
    lesions_reference: Natural
    lesions_found: Natural
    false_lesions: Natural
    seconds: Measure
    doubtful_true: Natural = 0
    doubtful_false: Natural = 0


@dataclass(frozen=True, slots=True)
class CaseFailure:
    """Why a case has no score."""

    case: str
    failure: Failure

    def report(self) -> JsonObject:
        """Return JSON-ready values."""
        return {"case": self.case, **asdict(self.failure)}

    @from_older
    @classmethod
    def _from_report(cls, fields: object) -> object:
        """Read what `report` returns, which is what runs of older releases hold."""
        if not isinstance(fields, dict) or "failure" in fields:
            return fields
        return {"case": fields.get("case"), "failure": fields}


@dataclass(frozen=True, slots=True)
class Summary:
    """The scores of several cases together.

    Attributes:
        cases: cases with a score.
        failed: cases that could not be scored; no other figure counts them.
        mean: of Dice, over the cases that have one.
        median: of Dice; likewise.
        interval: 95 % interval of the mean; None with fewer than two cases, which say nothing about others.
        nan: cases whose Dice is NaN: mask and reference are both empty.
        fraction_dice_zero: share of cases with Dice 0 among those that have one.
        sensitivity: lesions found / lesions in the references, over all cases; NaN where there is none.
        false_positives_per_scan: mean number of false lesions.
        median_hd95_mm: over the cases in which neither mask is empty.
        mean_nsd_2mm: over the cases in which not both masks are empty.
    """

    cases: Natural
    failed: Natural
    mean: Measure
    median: Measure
    interval: tuple[Finite, Finite] | None
    nan: Natural
    fraction_dice_zero: Measure
    sensitivity: Measure
    false_positives_per_scan: Measure
    median_hd95_mm: Measure
    mean_nsd_2mm: Measure

    @from_older
    @classmethod
    def _from_card_1(cls, fields: object) -> object:
        names = {"share_of_zeros": "fraction_dice_zero", "false_lesions_a_scan": "false_positives_per_scan"}
        return renamed(fields, names)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """By how much Dice differs between two ways to segment the same cases.

    Attributes:
        pairs: cases for which both have a Dice.
        left_out: cases that only one of the two has, or whose Dice is NaN.
        mean: second minus first, over the pairs; NaN without pairs.
        interval: 95 % interval of the mean; None with fewer than two pairs.
    """

    pairs: Natural
    left_out: Natural
    mean: Measure
    interval: tuple[Finite, Finite] | None

    @property
    def is_inside_noise(self) -> bool:
        """Whether there may be no difference: the interval holds 0, or there are too few pairs for an interval."""
        return self.interval is None or self.interval[0] <= 0 <= self.interval[1]
