"""Which cases are trained on and which are held out: always whole patients, never slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Protocol

import numpy as np

from lungseg.dataset.likeness import Likeness
from lungseg.decoding import Natural, decode_file
from lungseg.errors import DataSetError

HELD_OUT = 0.2
"""Share of the patients held out where there are no folds."""


class Member(Protocol):
    """What a split needs of a case."""

    @property
    def case(self) -> str:
        """Name."""

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
    """Read a split as JSON: `{"train": ["lung_001", ...], "validation": ["lung_002", ...]}`.

    Raises:
        DataSetError: the file can't be read or holds something else.
    """
    remedy = 'Write {"train": ["lung_001", ...], "validation": ["lung_002", ...]}.'
    sides = decode_file(
        _Sides, path, lambda reason: DataSetError(f"The split {path} can't be read ({reason}).", remedy)
    )
    return Split(tuple(sorted(map(str, sides.train))), tuple(sorted(map(str, sides.validation))))


def split_cases(
    cases: Sequence[Member],
    likenesses: Sequence[Likeness] = (),
    *,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
    fixed: Split | None = None,
) -> Split:
    """Divide cases by patient; the same cases and seed give the same split, in whatever order the cases come.

    Args:
        cases: to be divided.
        likenesses: cases that show one examination: they count as one patient.
        folds: number of folds of a cross-validation; `fold` of them is held out.
        fold: 0 for the first.
        seed: of the random choice.
        fixed: a split to be used as it is; cases that it does not name are left out.

    Raises:
        DataSetError: there are too few patients, a number is out of range, or a patient would be on both sides.
    """
    patients = _patients(cases, likenesses)
    if fixed:
        _check(fixed, patients)
        return fixed
    order = np.random.default_rng(seed).permutation(len(patients)).tolist()
    if folds is not None or fold is not None:
        held_out = set(order[_fold(folds, fold, len(patients)) :: folds])
    else:
        held_out = set(order[: _held_out(len(patients))])
    train, validation = (
        tuple(sorted(case for number, group in enumerate(patients) if (number in held_out) == side for case in group))
        for side in (False, True)
    )
    return Split(train, validation)


def _patients(cases: Sequence[Member], likenesses: Sequence[Likeness]) -> list[tuple[str, ...]]:
    """Group cases that share patient, content or examination, directly or through others; sorted."""
    groups = {case.case: {case.case} for case in cases}
    pairs = [(pair.first, pair.second) for pair in likenesses if {pair.first, pair.second} <= groups.keys()]
    for key in (attrgetter("patient"), attrgetter("content_sha256")):
        first_with: dict[str, str] = {}
        pairs += [(first_with.setdefault(key(case), case.case), case.case) for case in cases]
    for first, second in pairs:
        union = groups[first] | groups[second]
        groups.update(dict.fromkeys(union, union))
    return sorted({tuple(sorted(group)) for group in groups.values()})


def _fold(folds: int | None, fold: int | None, patients: int) -> int:
    if folds is None or fold is None:
        raise DataSetError("A number of folds comes with the fold to hold out.", "Give both, or neither.")
    if not 2 <= folds <= patients:  # noqa: PLR2004 - one fold would hold out everyone
        raise DataSetError(f"{patients} patients can't be divided into {folds} folds.", f"Give 2 to {patients} folds.")
    if not 0 <= fold < folds:
        raise DataSetError(f"There is no fold {fold} of {folds}.", f"Give a fold from 0 to {folds - 1}.")
    return fold


def _held_out(patients: int) -> int:
    if patients < 2:  # noqa: PLR2004 - one to learn from, one to hold out
        raise DataSetError(
            f"There is {patients} patient with a usable mask; nobody could be held out.",
            "Add cases of other patients, or repair those that were left out.",
        )
    return min(max(1, round(HELD_OUT * patients)), patients - 1)


def _check(split: Split, patients: Iterable[tuple[str, ...]]) -> None:
    cases = {case for group in patients for case in group}
    unknown = sorted({*split.train, *split.validation} - cases)
    if unknown:
        raise DataSetError(
            f"The split names {', '.join(unknown[:5])}, which the data set does not have.",
            "Name usable cases with a mask, as `lungseg stats` lists them.",
        )
    if not split.train or not split.validation:
        raise DataSetError("One side of the split is empty.", "Name at least one case on each side.")
    for group in patients:
        if not set(group).isdisjoint(split.train) and not set(group).isdisjoint(split.validation):
            raise DataSetError(
                f"{', '.join(group)} show one patient and are on both sides of the split.",
                "Put all cases of a patient on one side.",
            )
