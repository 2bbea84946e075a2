"""The operating point of a result: its mask at another threshold, from the probabilities kept, without the network.

The stored mask, made at the threshold of the card, is never touched: masks at other thresholds are derived when someone
asks for them, and kept as files that may be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lungseg.config import Settings
from lungseg.decoding import Finite, Natural, decode_file, decode_value, encode
from lungseg.errors import StorageError
from lungseg.evaluation.metrics import share_interval
from lungseg.files.atomic import disk_errors, write_bytes
from lungseg.records import Case, Lesion, Mask, Run
from lungseg.scans import nifti
from lungseg.scans.lesions import slice_voxels
from lungseg.segmentation.calibration import LesionCalibration, LesionRule
from lungseg.segmentation.card import OperatingPoint, WholeScans, sha256_of
from lungseg.segmentation.postprocessing import STOPS, UINT8_ONE, outlines_at, to_uint8_level
from lungseg.segmentation.probability_io import read_map
from lungseg.services.storage import WITH_DOUBTFUL, derived_path, probability_path

RULE = 1
"""Of what is a lesion, and which lesion a voxel belongs to; another number where the steps change."""
NO_MAP = "No probabilities were kept of this result: segment the case again to move its threshold."


@dataclass(frozen=True, slots=True)
class ThresholdOption:
    """A threshold that can be chosen, and what is known of it.

    Attributes:
        level: the threshold in 255ths.
        expected: what to expect of it, in a sentence or two.
    """

    level: int
    expected: str

    @property
    def threshold(self) -> float:
        """Probability from which a voxel counts as tumour."""
        return self.level / UINT8_ONE


@dataclass(frozen=True, slots=True)
class ThresholdState:
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
    choices: tuple[ThresholdOption, ...]
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
    doubtful_below: Finite | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    whole_scans: WholeScans | None = None


@dataclass(frozen=True, slots=True)
class _Derived:
    """What is kept beside a derived mask; what another rule of lesions made is derived anew."""

    slice_voxels: tuple[Natural, ...]
    lesions: tuple[Lesion, ...]
    doubtful: tuple[Lesion, ...] = ()
    all_slice_voxels: tuple[Natural, ...] = ()
    rule: Natural = 0


def operation_of(settings: Settings, mask: Mask, run: Run, level: int | None = None) -> ThresholdState:
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
    default = to_uint8_level(said.threshold)
    is_kept = (settings.home / probability_path(mask.id)).is_file()
    choices = tuple(ThresholdOption(each, _expected(each, default, said)) for each in sorted({*STOPS, default}))
    is_choice = is_kept and level in {choice.level for choice in choices}
    shown = level if is_choice and level is not None else default
    return ThresholdState(mask.id, shown, default, choices, "" if is_kept else NO_MAP)


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
    found = _at(settings, case, mask, run, level)
    moved = replace(
        mask,
        volume_ml=sum(lesion.volume_ml for lesion in found.lesions),
        lesions=found.lesions,
        doubtful=found.doubtful,
    )
    return _placed(settings, moved, level, found.slice_voxels)


def with_doubtful(settings: Settings, case: Case, mask: Mask, run: Run, level: int) -> Mask:
    """Derive the mask that also holds the doubtful lesions: 1 in lesions, 2 in doubtful ones.

    Takes and raises as `mask_at`; id and file are its own (`<id>.<level>.all`), `slice_voxels` count both.
    """
    found = _at(settings, case, mask, run, level)
    return _placed(settings, mask, level, found.all_slice_voxels, WITH_DOUBTFUL)


def _placed(settings: Settings, mask: Mask, level: int, counts: tuple[int, ...], ending: str = "") -> Mask:
    """Return a mask as one that was derived from it; its hash is not kept: two sessions may derive it at once."""
    own_id = mask.id.partition(".")[0]
    path = derived_path(own_id, level, with_doubtful=bool(ending))
    sha256 = sha256_of(settings.home / path)
    return replace(mask, id=f"{own_id}.{level}{ending}", path=path, sha256=sha256, slice_voxels=counts)


def _at(settings: Settings, case: Case, mask: Mask, run: Run, level: int) -> _Derived:
    """Return what the probabilities of a mask say at a level; its files are there then."""
    own_id = mask.id.partition(".")[0]
    facts = settings.home / f"{settings.derived.name}/{own_id}.{level}.json"
    found = _derived(facts)
    files = [
        derived_path(own_id, level, with_doubtful=bool(more)) for more in range(1 + bool(found and found.doubtful))
    ]
    if found is None or found.rule != RULE or not all((settings.home / name).is_file() for name in files):
        found = _derive(settings, case, run, own_id, level)
        write_bytes(facts, encode(found))
    return found


def _derived(facts: Path) -> _Derived | None:
    """Read what is known of a derived mask; None where it is to be derived anew."""
    try:
        return decode_file(_Derived, facts, _damaged)
    except StorageError:
        return None


def _derive(settings: Settings, case: Case, run: Run, own_id: str, level: int) -> _Derived:
    """Write the masks at a level, before what is known of them: where that is there, they are whole."""
    said = _said(run)
    if said.min_lesion_ml is None:
        raise _damaged("min_lesion_ml is missing")
    rule = LesionRule(said.threshold, said.min_lesion_ml, said.calibration, said.doubtful_below)
    probability = read_map(settings.home / probability_path(own_id), limits=settings.limits)
    outlines = outlines_at(probability, level / UINT8_ONE, rule)
    header = nifti.read_header(settings.home / case.scan_path, limits=settings.limits, sha256=case.scan_sha256)
    kept = settings.home / derived_path(own_id, level)
    with disk_errors("The mask at another threshold"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        nifti.write_mask(outlines.mask, kept, like=header)
        if outlines.doubtful:
            kept = settings.home / derived_path(own_id, level, with_doubtful=True)
            nifti.write_mask(outlines.marks, kept, like=header)
    return _Derived(
        slice_voxels(outlines.mask), outlines.lesions, outlines.doubtful, slice_voxels(outlines.marks > 0), RULE
    )


def _said(run: Run) -> _Said:
    return decode_value(_Said, run.configuration, _damaged)


def _damaged(reason: str) -> StorageError:
    return StorageError(f"What is kept of the result is damaged ({reason}).", "Segment the case again.")


def _expected(level: int, default: int, said: _Said) -> str:
    """Tell what a threshold reaches: on whole scans at the card's, where that was measured; else how it differs."""
    if level == default:
        return (
            _of_whole_scans(said.whole_scans)
            if said.whole_scans
            else "No figures of whole scans are known for this result."
        )
    effect = (
        "more voxels, perhaps more lesions, none lost" if level < default else "fewer voxels, perhaps fewer lesions"
    )
    change = _change(level, default, said.operating_points)
    way = "sensitive" if level < default else "specific"
    return f"More {way} than the checkpoint's {default / UINT8_ONE:.2f}: {effect}. {change}"


def _of_whole_scans(found: WholeScans) -> str:
    scans = f"{found.scans} whole scan{'' if found.scans == 1 else 's'} not learned from"
    if not found.lesions:
        return f"Measured on {scans}, without a lesion: {found.false_lesions_a_scan:.2f} false per scan."
    low, high = share_interval(found.found, found.lesions)
    return (
        f"Measured on {scans}: {found.found} of {found.lesions} lesions found (95 % interval {low:.0%} to {high:.0%}), "
        f"{found.false_lesions_a_scan:.2f} false per scan."
    )


def _change(level: int, default: int, points: Sequence[OperatingPoint]) -> str:
    """Say what was measured of a threshold beside the card's, on nodules that mostly are small."""
    thresholds = [point.threshold for point in points]
    if not points or not to_uint8_level(min(thresholds)) <= min(level, default) <= max(
        level, default
    ) <= to_uint8_level(max(thresholds)):
        return "Beyond what was measured."
    order = np.argsort(thresholds)
    shares = np.array([point.sensitivity for point in points])[order]
    here, there = (float(np.interp(at / UINT8_ONE, np.array(thresholds)[order], shares)) for at in (level, default))
    return f"Measured on nodules only, most of them small: {here:.0%} found, {there:.0%} at the checkpoint's threshold."
