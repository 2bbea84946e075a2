"""How a checkpoint's probabilities become lesions, and how well it does then: on its card, and on each of its runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lungseg.decoding import Finite, Natural, from_older, renamed
from lungseg.errors import CheckpointError

LEAST_EVIDENCE = 1 / 510
"""Half a step of an 8-bit probability: evidence is clipped this far from 0 and 1, whose logits are infinite."""
LEAST_ML = 1e-6
MIN_FLATNESS = 0.5
"""Height of a lesion as a share of its diameter, at least; one in a thousand nodules of LIDC-IDRI is flatter."""


@dataclass(frozen=True, slots=True)
class LesionCalibration:
    """The curve p = sigmoid(intercept + evidence_weight * logit(evidence) + volume_weight * ln(volume in ml)).

    Attributes:
        intercept: log odds of a lesion of 1 ml with evidence 0.5.
        evidence_weight: of the logit of the evidence; below 1 where the network is too sure of itself.
        volume_weight: of the natural logarithm of the volume in ml; 0 since curves are fitted to evidence alone.
    """

    intercept: float
    evidence_weight: float
    volume_weight: float = 0.0

    def __post_init__(self) -> None:
        """Raise CheckpointError where a number is not finite."""
        if not all(map(math.isfinite, (self.intercept, self.evidence_weight, self.volume_weight))):
            raise CheckpointError(f"{self} is not finite.", "Fit the calibration again.")

    def probability(self, evidence: float, volume_ml: float) -> float:
        """Return the probability, 0 to 1, that a lesion of this evidence (0 to 1) and volume is real."""
        evidence = min(max(evidence, LEAST_EVIDENCE), 1 - LEAST_EVIDENCE)
        evidence_logit = math.log(evidence / (1 - evidence))
        log_volume = math.log(max(volume_ml, LEAST_ML))
        logit = self.intercept + self.evidence_weight * evidence_logit + self.volume_weight * log_volume
        return 0.5 * (1.0 + math.tanh(0.5 * logit))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a checkpoint reaches at one threshold, on patients that it did not learn from.

    Attributes:
        threshold: probability from which a pixel counts as tumour.
        sensitivity: share of the lesions that it finds.
        false_positives_per_scan: mean number of false lesions.
    """

    threshold: Finite
    sensitivity: Finite
    false_positives_per_scan: Finite

    @from_older
    @classmethod
    def _from_card_1(cls, fields: object) -> object:
        return renamed(fields, {"false_lesions_a_scan": "false_positives_per_scan"})


@dataclass(frozen=True, slots=True)
class WholeScans:
    """What a checkpoint reaches on whole scans that it did not learn from, at the threshold of its card.

    Attributes:
        scans: number of scans.
        lesions: in their reference masks.
        found: lesions that it finds.
        false_lesions: in all scans together.
    """

    scans: Natural
    lesions: Natural
    found: Natural
    false_lesions: Natural

    @property
    def false_positives_per_scan(self) -> float:
        """Mean number of false lesions; 0 without scans."""
        return self.false_lesions / self.scans if self.scans else 0.0
