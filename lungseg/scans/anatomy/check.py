"""Whether the body lies as the header says: front and back, left and right, head and feet, and its long axis.

Of the header only the tilt of its slices is used; spacing plays no part. The thresholds were set on scans that are not
in the atlas (docs/quality.md, "Orientation").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.anatomy.atlas import ORDERS, VIEWS, Atlas, fits
from lungseg.scans.anatomy.body import UPRIGHT_DEGREES, Body, tilt_of_slices
from lungseg.scans.anatomy.sides import Sides, side_evidence
from lungseg.scans.geometry import Orientation
from lungseg.scans.volume import Volume

FIT: Final = (3.4, 3.8)
"""Below the first, a body fits the atlas too badly for a verdict; from the second on differences count in full."""
STEEPNESS = 25.0
"""Of the logistic curve from a difference of fits to a certainty: 0.18 gives 0.99."""
SIDE_STEEPNESS = 25.0
AGREES_FROM, CONTRADICTS_FROM = 0.9, 0.97
SIDE_VIEWS: Final = ("whole", "lower part", "upper part")
"""Views of a chest in which the heart can be distinguished from a mass or fluid."""
LOWEST_END, HIGHEST_END = 0.35, 0.7
"""Lung in the first and last slice, as shares of the fullest one; with more of it the heart may not be in view."""
DOUBT = 0.03
"""Largest evidence of heart, mediastinum or abdomen for a header that the others contradict."""
EQUAL_LUNGS = 0.4
"""Share of the larger lung that the smaller one has; below, the heart may be pushed or drawn to the other side."""
TILTED_DEGREES = 20.0
CLEAR_IF_TILTED = 0.35
"""Least evidence for a heart on the right in a tilted scan, whose ends are unclear."""
REMEDY = "Export the scan again from the DICOM series, with its orientation, and look where front, left and head are."
_AS_IS = (0, 1, 2)
_NAMES = ("left to right", "back to front", "feet to head")
_SAME_AXES = np.array([order.axes == _AS_IS for order in ORDERS])
_FLIPS = np.array([order.flips for order in ORDERS])


class Says(StrEnum):
    """What the body says of the header."""

    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    UNDECIDED = "undecided"


_DIRECTIONS: Final = ("the long axis", "front and back", "head and feet", "left and right")
_VERBS: Final = {
    Says.AGREES: "agrees with the header on",
    Says.CONTRADICTS: "contradicts the header on",
    Says.UNDECIDED: "does not tell",
}


@dataclass(frozen=True, slots=True)
class OrientationVerdict:
    """What the body says of one direction.

    Attributes:
        says: whether it agrees with the header.
        certainty: 0.5 to 1, of the likelier answer: a logistic function of the evidence.
        reason: a sentence.
    """

    says: Says
    certainty: float
    reason: str


@dataclass(frozen=True, slots=True)
class OrientationCheck:
    """What the body says of a header.

    Attributes:
        front_back, left_right, head_feet: of each direction.
        long_axis: whether the body's axes are those of the header, either way round.
        tilt_degrees: angle between the slices and the axial plane, by the header.
    """

    front_back: OrientationVerdict
    left_right: OrientationVerdict
    head_feet: OrientationVerdict
    long_axis: OrientationVerdict
    tilt_degrees: float

    @property
    def by_code(self) -> dict[str, OrientationVerdict]:
        """The verdicts by the codes of their findings."""
        return {
            "orientation.axes": self.long_axis,
            "orientation.front_back": self.front_back,
            "orientation.head_feet": self.head_feet,
            "orientation.left_right": self.left_right,
        }

    @property
    def summary(self) -> str:
        """A sentence: in which directions the body agrees with the header, contradicts it or does not tell."""
        directions = list(zip(_DIRECTIONS, self.by_code.values(), strict=True))
        parts = [
            f"{verb} {', '.join(names)}"
            for says, verb in _VERBS.items()
            if (names := [name for name, verdict in directions if verdict.says is says])
        ]
        return f"The body {'; it '.join(parts)}."


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measurements behind the verdicts; differences are positive if the header is right.

    Attributes:
        fit: logarithm of the likelihood per cell of the best order.
        view: view of a chest that fits best.
        likeliest: the axes R, A, S of the best order.
        long_axis: best fit with the header's axes, less the best with any other axes.
        front_back: best fit with the header's front, less the best with front and back swapped.
        head_feet: the same for head and feet.
        sides: evidence for left and right.
        ends: lung in the lowest and the highest slice, as shares of the fullest one.
    """

    fit: float
    view: str
    likeliest: tuple[int, int, int]
    long_axis: float
    front_back: float
    head_feet: float
    sides: Sides
    ends: tuple[float, float]


def check_orientation(volume: Volume, atlas: Atlas | None = None) -> OrientationCheck:
    """Compare the orientation of a scan with the body that it shows, by the shipped atlas unless another is given."""
    tilt = tilt_of_slices(volume.grid)
    body = Body.of(volume)
    if body is None:
        unclear = OrientationVerdict(Says.UNDECIDED, 0.5, "There are no lungs in view to judge the body by.")
        return OrientationCheck(unclear, unclear, unclear, unclear, tilt)
    return verdict_of(weigh(body, atlas or Atlas.shipped()), tilt)


def weigh(body: Body, atlas: Atlas) -> Evidence:
    """Measure the evidence for and against the header."""
    by_view = fits(body, atlas)
    best = by_view.max(axis=0)

    def gain(axis: int) -> float:
        right, wrong = (best[_SAME_AXES & (_FLIPS[:, axis] == flip)].max() for flip in (False, True))
        return float(right - wrong)

    _, back, down = ORDERS[int(np.where(_SAME_AXES, best, -np.inf).argmax())].flips
    upright = body.turned(Orientation(_AS_IS, (False, back, down)))
    areas = upright.lungs.sum(axis=(0, 1))
    return Evidence(
        fit=float(best.max()),
        view=VIEWS[int(by_view.max(axis=1).argmax())],
        likeliest=ORDERS[int(best.argmax())].axes,
        long_axis=float(best[_SAME_AXES].max() - best[~_SAME_AXES].max()),
        front_back=gain(1),
        head_feet=gain(2),
        sides=side_evidence(upright, atlas),
        ends=(float(areas[0] / areas.max()), float(areas[-1] / areas.max())),
    )


def verdict_of(evidence: Evidence, tilt_degrees: float) -> OrientationCheck:
    """Turn measurements into verdicts."""
    low, high = FIT
    trust = float(np.clip((evidence.fit - low) / (high - low), 0, 1)) * STEEPNESS
    axes = _verdict(trust * evidence.long_axis, *_words_of_axes(evidence.likeliest))
    if axes.says is not Says.AGREES:
        unclear = OrientationVerdict(Says.UNDECIDED, 0.5, "It is not clear along which axes the body lies.")
        return OrientationCheck(unclear, unclear, unclear, axes, tilt_degrees)
    front = _verdict(
        trust * evidence.front_back,
        "The spine lies behind and the breastbone in front.",
        "The spine lies in front and the breastbone behind: front and back are swapped in the header.",
    )
    head = _verdict(
        trust * evidence.head_feet,
        "The tips of the lungs lie above and the diaphragm below.",
        "The tips of the lungs lie below and the diaphragm above: head and feet are swapped in the header.",
    )
    return OrientationCheck(front, _left_right(evidence, front, head, tilt_degrees), head, axes, tilt_degrees)


def _verdict(logit: float, right: str, wrong: str) -> OrientationVerdict:
    certainty = float(1 / (1 + np.exp(-abs(logit))))
    if logit > 0 and certainty >= AGREES_FROM:
        return OrientationVerdict(Says.AGREES, certainty, right)
    if logit < 0 and certainty >= CONTRADICTS_FROM:
        return OrientationVerdict(Says.CONTRADICTS, certainty, wrong)
    return OrientationVerdict(Says.UNDECIDED, certainty, "Too little of the body is in view to tell.")


def _words_of_axes(likeliest: tuple[int, int, int]) -> tuple[str, str]:
    long = _NAMES[likeliest[2]]
    wrong = f"The body's long axis runs {long} by the header"
    if likeliest[2] == _AS_IS[2]:
        wrong = "The body's width runs back to front by the header"
    return "The body's long axis runs from feet to head.", f"{wrong}: the axes of the array are mixed up."


def _left_right(
    evidence: Evidence, front: OrientationVerdict, head: OrientationVerdict, tilt_degrees: float
) -> OrientationVerdict:
    if Says.UNDECIDED in (front.says, head.says):
        return OrientationVerdict(Says.UNDECIDED, 0.5, "It is not clear where front and head are.")
    sides = evidence.sides
    verdict = _verdict(
        SIDE_STEEPNESS * sides.total,
        "The heart lies on the left.",
        "The heart lies on the right: left and right are swapped in the header, or the organs lie mirrored.",
    )
    lowest, highest = evidence.ends
    is_sure = (
        evidence.view in SIDE_VIEWS
        and lowest <= LOWEST_END
        and highest <= HIGHEST_END
        and sides.smaller_lung >= EQUAL_LUNGS
        and max(sides.votes) <= DOUBT
        and (tilt_degrees <= UPRIGHT_DEGREES or sides.total <= -CLEAR_IF_TILTED)
    )
    if verdict.says is Says.CONTRADICTS and not is_sure:
        return OrientationVerdict(Says.UNDECIDED, 0.5, "Heart and lungs don't lie as usual, or are not wholly in view.")
    return verdict


def findings_of_orientation(check: OrientationCheck) -> tuple[ScanFinding, ...]:
    """Return the contradictions of header and body, and the tilt of the slices, as findings."""
    findings = [
        ScanFinding(code, ScanSeverity.NOT_UNDERSTOOD, f"{verdict.reason} Certainty {verdict.certainty:.2f}.", REMEDY)
        for code, verdict in check.by_code.items()
        if verdict.says is Says.CONTRADICTS
    ]
    if check.tilt_degrees > TILTED_DEGREES:
        text = f"The slices are {check.tilt_degrees:.0f} degrees off the axial plane; the network knows axial slices."
        findings.append(ScanFinding("orientation.tilted", ScanSeverity.NOTE, text))
    return tuple(findings)
