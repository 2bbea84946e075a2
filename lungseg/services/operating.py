"""The operating point of a result: its mask at another threshold, from the probabilities kept, without the network.

The stored mask, made at the threshold of the card, is never touched: masks at other thresholds are derived when someone
asks for them, and kept as files that may be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lungseg import nifti
from lungseg.calibration import LesionCalibration
from lungseg.card import OperatingPoint, sha256_of
from lungseg.config import Settings
from lungseg.decoding import Finite, Natural, decode_file, decode_value, encode
from lungseg.errors import StorageError
from lungseg.files import disk_errors, write_bytes
from lungseg.maps import read_map
from lungseg.postprocessing import CERTAIN, lesions_at, level_of, slice_voxels
from lungseg.records import Case, Lesion, Mask, Run
from lungseg.services.storage import derived_path, probability_path

LEVELS = range(10, 250, 5)
"""Thresholds that can be chosen, in 255ths: about every 0.02."""
NO_MAP = "No probabilities were kept of this result: segment the case again to move its threshold."


@dataclass(frozen=True, slots=True)
class Choice:
    """A threshold that can be chosen, and what it reached on patients held out.

    Attributes:
        level: the threshold in 255ths.
        sensitivity: share of the lesions found; None where nobody measured it.
        false_lesions_a_scan: mean number of false lesions; None likewise.
    """

    level: int
    sensitivity: float | None = None
    false_lesions_a_scan: float | None = None

    @property
    def threshold(self) -> float:
        """Probability from which a voxel counts as tumour."""
        return self.level / CERTAIN

    @property
    def expected(self) -> str:
        """What to expect of this threshold, as a sentence; empty where nobody measured it."""
        if self.sensitivity is None or self.false_lesions_a_scan is None:
            return ""
        return (
            f"Held-out patients: {self.sensitivity:.0%} of lesions found, {self.false_lesions_a_scan:.1f} false a scan."
        )


@dataclass(frozen=True, slots=True)
class Operation:
    """At which threshold a mask is shown, and at which others it could be.

    Attributes:
        mask_id: of the stored mask.
        level: the threshold that is shown, in 255ths.
        default: the one of the checkpoint's card, at which the stored mask was made.
        choices: what can be chosen, most sensitive first.
        reason: why it can't be moved; empty where it can.
    """

    mask_id: str
    level: int
    default: int
    choices: tuple[Choice, ...]
    reason: str

    @property
    def at(self) -> int:
        """Place of the shown threshold among the choices."""
        return [choice.level for choice in self.choices].index(self.level)


@dataclass(frozen=True, slots=True)
class _Said:
    """What stands on a run of the checkpoint that it used; older releases kept less."""

    threshold: Finite = 0.5
    min_lesion_ml: Finite | None = None
    calibration: LesionCalibration | None = None
    operating_points: tuple[OperatingPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class _Derived:
    """What is kept beside a derived mask."""

    slice_voxels: tuple[Natural, ...]
    lesions: tuple[Lesion, ...]


def operation_of(settings: Settings, mask: Mask, run: Run, level: int | None = None) -> Operation:
    """Say at which thresholds the mask of a run can be shown.

    Args:
        settings: of the installation.
        mask: as stored.
        run: that made it.
        level: the threshold chosen, in 255ths; the default where it is None or can't be had.

    Raises:
        StorageError: what is kept of the run is damaged.
    """
    said = _said(run)
    default = level_of(said.threshold)
    is_kept = (settings.home / probability_path(mask.id)).is_file()
    choices = tuple(_choice(each, said.operating_points) for each in sorted({*LEVELS, default}))
    is_choice = is_kept and level in {choice.level for choice in choices}
    shown = level if is_choice and level is not None else default
    return Operation(mask.id, shown, default, choices, "" if is_kept else NO_MAP)


def mask_at(settings: Settings, case: Case, mask: Mask, run: Run, level: int) -> Mask:
    """Derive the mask of a case at another threshold, by the very steps that made the stored one.

    Args:
        settings: of the installation.
        case: whose scan it is.
        mask: as stored.
        run: that made it.
        level: the threshold in 255ths.

    Returns:
        The stored mask with file, lesions and id (`<id>.<level>`) of the derived one.

    Raises:
        StorageError: the map can't be read any more, or there is no room.
        ScanError: the scan can't be read any more.
    """
    name = derived_path(mask.id, level)
    kept = settings.home / name
    facts = kept.with_name(f"{mask.id}.{level}.json")
    found = _derived(facts) if kept.is_file() else None
    if found is None:
        _derive(settings, case, run, (settings.home / probability_path(mask.id), kept, facts), level)
        found = decode_file(_Derived, facts, _damaged)
    return replace(
        mask,
        id=f"{mask.id}.{level}",
        path=name,
        sha256=sha256_of(kept),  # not kept with the lesions: two sessions may derive the same mask at once
        volume_ml=sum(lesion.volume_ml for lesion in found.lesions),
        slice_voxels=found.slice_voxels,
        lesions=found.lesions,
    )


def _derived(facts: Path) -> _Derived | None:
    """Read what is known of a derived mask; None where it is to be derived anew."""
    try:
        return decode_file(_Derived, facts, _damaged)
    except StorageError:
        return None


def _derive(settings: Settings, case: Case, run: Run, paths: tuple[Path, Path, Path], level: int) -> None:
    """Write the mask at a level, then what is known of it: where the second is there, the first is whole."""
    probabilities, kept, facts = paths
    said = _said(run)
    if said.min_lesion_ml is None:
        raise _damaged("min_lesion_ml is missing")
    inside, lesions = lesions_at(
        read_map(probabilities, limits=settings.limits),
        level / CERTAIN,
        min_lesion_ml=said.min_lesion_ml,
        calibration=said.calibration,
    )
    with disk_errors("The mask at another threshold"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        nifti.write_mask(inside, kept, like=settings.home / case.scan_path)
        write_bytes(facts, encode(_Derived(slice_voxels(inside), lesions)))


def _said(run: Run) -> _Said:
    return decode_value(_Said, run.configuration, _damaged)


def _damaged(reason: str) -> StorageError:
    return StorageError(f"What is kept of the result is damaged ({reason}).", "Segment the case again.")


def _choice(level: int, points: Sequence[OperatingPoint]) -> Choice:
    """Tell what a threshold reaches, between the points that were measured; nothing beyond them."""
    thresholds = [point.threshold for point in points]
    if not points or not level_of(min(thresholds)) <= level <= level_of(max(thresholds)):
        return Choice(level)
    order = np.argsort(thresholds)
    sensitivity, false = (
        float(np.interp(level / CERTAIN, np.array(thresholds)[order], np.array(values)[order]))
        for values in ([p.sensitivity for p in points], [p.false_lesions_a_scan for p in points])
    )
    return Choice(level, sensitivity, false)
