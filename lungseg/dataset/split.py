"""Who is trained on and who is held out: always whole patients, never slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lungseg.dataset.likeness import Likeness
from lungseg.decoding import Natural, decode_file
from lungseg.errors import DataSetError

HELD_OUT = 0.2
"""Share of the patients held out where nothing else is asked for."""


class Member(Protocol):
    """What a split needs to know of a case."""

    @property
    def case(self) -> str:
        """Name of the case."""

    @property
    def patient(self) -> str:
        """Who it shows."""

    @property
    def content_sha256(self) -> str:
        """Of its voxels: the same scan under two names is one patient."""


@dataclass(frozen=True, slots=True)
class Split:
    """Names of cases, sorted; no patient is on both sides.

    Attributes:
        train: cases to learn from.
        validation: cases held out.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Sides:
    """A split as people write it; names of digits alone may stand without quotes."""

    train: tuple[str | Natural, ...]
    validation: tuple[str | Natural, ...]


def read_split(path: Path) -> Split:
    """Read a split given as JSON: `{"train": ["lung_001", ...], "validation": ["lung_002", ...]}`.

    Raises:
        DataSetError: the file can't be read or holds something else.
    """
    remedy = 'Write {"train": ["lung_001", ...], "validation": ["lung_002", ...]}.'
    found = decode_file(
        _Sides, path, lambda reason: DataSetError(f"The split {path} can't be read ({reason}).", remedy)
    )
    return Split(tuple(sorted(map(str, found.train))), tuple(sorted(map(str, found.validation))))


def split_cases(
    cases: Sequence[Member],
    *,
    folds: int | None = None,
    fold: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
    given: Split | None = None,
) -> Split:
    """Divide cases by patient; the same cases and seed give the same split, in whatever order the cases come.

    Args:
        cases: to be divided.
        folds: number of folds of a cross-validation; `fold` of them is held out.
        fold: 0 for the first.
        fraction: share of the patients held out at random; HELD_OUT where neither folds nor a split are given.
        seed: of the random choice.
        given: a split to be used as it is; cases that it does not name are left out.

    Raises:
        DataSetError: there are too few patients, a number is out of range, or a patient would be on both sides.
    """
    patients = _patients(cases)
    if given:
        return _checked(given, patients)
    order = np.random.default_rng(seed).permutation(len(patients)).tolist()
    if folds is not None or fold is not None:
        held_out = set(order[_fold(folds, fold, len(patients)) :: folds])
    else:
        held_out = set(order[: _held_out(HELD_OUT if fraction is None else fraction, len(patients))])
    sides = [
        tuple(sorted(case for number, group in enumerate(patients) if (number in held_out) == side for case in group))
        for side in (False, True)
    ]
    return Split(sides[0], sides[1])


@dataclass(frozen=True, slots=True)
class _Shown:
    """A case with what its scan shows: the same for all that show one examination."""

    case: str
    patient: str
    content_sha256: str


def joined_groups(cases: Sequence[Member], alike: Iterable[Likeness]) -> tuple[Member, ...]:
    """Return cases to be split of which those that show one examination go for one patient."""
    shown = {case.case: case.content_sha256 for case in cases}
    for pair in alike:
        if pair.first in shown and pair.second in shown:
            first, second = shown[pair.first], shown[pair.second]
            shown = {case: first if content == second else content for case, content in shown.items()}
    return tuple(_Shown(case.case, case.patient, shown[case.case]) for case in cases)


def _patients(cases: Sequence[Member]) -> list[tuple[str, ...]]:
    """Group cases that share a patient or the content of their scans, directly or through others; sorted."""
    groups: dict[str, set[str]] = {case.case: {case.case} for case in cases}
    for key in ("patient", "content_sha256"):
        same: dict[str, list[str]] = defaultdict(list)
        for case in cases:
            same[getattr(case, key)].append(case.case)
        for first, *others in same.values():
            for other in others:
                _join(groups, first, other)
    return sorted({tuple(sorted(group)) for group in groups.values()})


def _join(groups: dict[str, set[str]], first: str, other: str) -> None:
    joined = groups[first] | groups[other]
    for case in joined:
        groups[case] = joined


def _fold(folds: int | None, fold: int | None, patients: int) -> int:
    if folds is None or fold is None:
        raise DataSetError("A number of folds comes with the fold to hold out.", "Give both, or neither.")
    if not 2 <= folds <= patients:  # noqa: PLR2004 - one fold would hold out everyone
        raise DataSetError(f"{patients} patients can't be divided into {folds} folds.", f"Give 2 to {patients} folds.")
    if not 0 <= fold < folds:
        raise DataSetError(f"There is no fold {fold} of {folds}.", f"Give a fold from 0 to {folds - 1}.")
    return fold


def _held_out(fraction: float, patients: int) -> int:
    if not 0.0 < fraction < 1.0:
        raise DataSetError(f"A share of {fraction} can't be held out.", "Give a number between 0 and 1.")
    if patients < 2:  # noqa: PLR2004 - one to learn from, one to hold out
        raise DataSetError(
            f"There is {patients} patient with a usable mask; nobody could be held out.",
            "Add cases of other patients, or repair those that were left out.",
        )
    return min(max(1, round(fraction * patients)), patients - 1)


def _checked(given: Split, patients: Iterable[tuple[str, ...]]) -> Split:
    known = {case for group in patients for case in group}
    unknown = sorted({*given.train, *given.validation} - known)
    if unknown:
        raise DataSetError(
            f"The split names {', '.join(unknown[:5])}, which the data set does not have.",
            "Name usable cases with a mask, as `lungseg stats` lists them.",
        )
    if not given.train or not given.validation:
        raise DataSetError("One side of the split is empty.", "Name at least one case on each side.")
    for group in patients:
        if not set(group).isdisjoint(given.train) and not set(group).isdisjoint(given.validation):
            raise DataSetError(
                f"{', '.join(group)} show one patient and are on both sides of the split.",
                "Put all cases of a patient on one side.",
            )
    return given
