"""The operating point of a result: its mask at another threshold, from the probabilities kept, without the network.

The stored mask, made at the threshold of the card, is never touched: masks at other thresholds are derived when someone
asks for them, and kept as files that may be lost.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lungseg import nifti
from lungseg.calibration import LesionCalibration
from lungseg.card import OperatingPoint, sha256_of
from lungseg.config import Settings
from lungseg.errors import StorageError
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


def operation_of(settings: Settings, mask: Mask, run: Run, level: int | None = None) -> Operation:
    """Say at which thresholds the mask of a run can be shown.

    Args:
        settings: of the installation.
        mask: as stored.
        run: that made it.
        level: the threshold chosen, in 255ths; the default where it is None or can't be had.
    """
    default = level_of(run.configuration.get("threshold", 0.5))
    is_kept = (settings.home / probability_path(mask.id)).is_file()
    points = [OperatingPoint(**point) for point in run.configuration.get("operating_points", ())]
    choices = tuple(_choice(each, points) for each in sorted({*LEVELS, default}))
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
    if not (facts.is_file() and kept.is_file()):
        _derive(settings, case, run, (settings.home / probability_path(mask.id), kept, facts), level)
    fields = json.loads(facts.read_text(encoding="utf-8"))
    lesions = tuple(_lesion_of(each) for each in fields["lesions"])
    return replace(
        mask,
        id=f"{mask.id}.{level}",
        path=name,
        sha256=sha256_of(kept),  # not kept with the lesions: two sessions may derive the same mask at once
        volume_ml=sum(lesion.volume_ml for lesion in lesions),
        slice_voxels=tuple(fields["slice_voxels"]),
        lesions=lesions,
    )


def _derive(settings: Settings, case: Case, run: Run, files: tuple[Path, Path, Path], level: int) -> None:
    """Write the mask at a level, then what is known of it: where the second is there, the first is whole."""
    probabilities, kept, facts = files
    calibration = run.configuration.get("calibration")
    inside, lesions = lesions_at(
        read_map(probabilities),
        level / CERTAIN,
        min_lesion_ml=run.configuration["min_lesion_ml"],
        calibration=LesionCalibration(**calibration) if calibration else None,
    )
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        nifti.write_mask(inside, kept, like=settings.home / case.scan_path)
        known = {"slice_voxels": slice_voxels(inside), "lesions": [asdict(each) for each in lesions]}
        partial = facts.with_name(f".{secrets.token_hex(8)}.partial")
        partial.write_text(json.dumps(known), encoding="utf-8")
        os.replace(partial, facts)
    except OSError as error:
        raise StorageError(
            f"The mask at another threshold can't be kept ({error.strerror}).", "Check LUNGSEG_HOME and free disk."
        ) from error


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


def _lesion_of(fields: dict[str, Any]) -> Lesion:
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Lesion(**known)
