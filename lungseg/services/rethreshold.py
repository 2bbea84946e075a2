"""The operating point of a result: its mask at another threshold, from the probabilities kept, without the network.

The stored mask, made at the threshold of the card, is never touched: masks at other thresholds are derived when someone
asks for them, and kept as files that may be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Settings
from lungseg.decoding import Natural, decode_file, encode
from lungseg.errors import StorageError
from lungseg.evaluation.metrics import share_interval
from lungseg.files import keys
from lungseg.files.atomic import write_bytes
from lungseg.files.digests import sha256_of
from lungseg.records.cases import Case
from lungseg.records.masks import Lesion, Mask
from lungseg.records.operating_points import OperatingPoint, WholeScans
from lungseg.records.run_configs import CheckpointUse
from lungseg.records.runs import Run
from lungseg.scans.formats import write_mask
from lungseg.scans.lesions import slice_voxels
from lungseg.segmentation.postprocessing import STOPS, UINT8_ONE, LesionRule, to_uint8_level
from lungseg.segmentation.probability_io import read_map
from lungseg.services.file_store import files_of
from lungseg.wording import counted

RULE = 1
"""Of what is a lesion, and which lesion a voxel belongs to; another number where the steps change."""
NO_MAP = "No probabilities were kept of this result: segment the case again to move its threshold."


@dataclass(frozen=True, slots=True)
class ThresholdOption:
    """A threshold that can be chosen, in 255ths, and what to expect of it, in a sentence or two."""

    level: int
    expected: str

    @property
    def threshold(self) -> float:
        """Probability from which a voxel counts as tumour."""
        return self.level / UINT8_ONE


@dataclass(frozen=True, slots=True)
class ThresholdState:
    """At which threshold a mask is shown, and at which others it can be.

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


@dataclass(frozen=True, slots=True)
class _Derived:
    """What is kept beside a derived mask; what another rule of lesions made is derived anew."""

    slice_voxels: tuple[Natural, ...]
    lesions: tuple[Lesion, ...]
    doubtful: tuple[Lesion, ...] = ()
    all_slice_voxels: tuple[Natural, ...] = ()
    rule: Natural = 0


def threshold_state(settings: Settings, mask: Mask, run: Run, level: int | None = None) -> ThresholdState:
    """Return at which thresholds a stored mask can be shown.

    Args:
        settings: of the installation.
        mask: as stored.
        run: that made it.
        level: the threshold chosen, in 255ths; the default is shown where it is None or no choice.

    Raises:
        StorageError: what is kept of the run is damaged.
    """
    config = run.config_as(CheckpointUse)
    default = to_uint8_level(config.threshold)
    has_map = files_of(settings).exists(keys.probability(mask.id))
    levels = sorted({*STOPS, default})
    choices = tuple(ThresholdOption(choice, _expected(choice, default, config)) for choice in levels)
    shown = level if level is not None and has_map and level in levels else default
    return ThresholdState(mask.id, shown, default, choices, "" if has_map else NO_MAP)


def mask_at(settings: Settings, case: Case, mask: Mask, run: Run, level: int) -> Mask:
    """Derive the mask of a case at another threshold, by the very steps that made the stored one.

    Args:
        settings: of the installation.
        case: with its geometry.
        mask: as stored.
        run: that made it.
        level: the threshold in 255ths.

    Returns:
        The stored mask with file, lesions and id (`<id>.<level>`) of the derived one.

    Raises:
        StorageError: the map can't be read any more, or there is no room.
    """
    derived = _derived_at(settings, case, mask, run, level)
    volume_ml = sum(lesion.volume_ml for lesion in derived.lesions)
    moved = replace(mask, volume_ml=volume_ml, lesions=derived.lesions, doubtful=derived.doubtful)
    return _with_file(settings, moved, level, derived.slice_voxels)


def with_doubtful(settings: Settings, case: Case, mask: Mask, run: Run, level: int) -> Mask:
    """Derive the mask that also holds the doubtful lesions: 1 in lesions, 2 in doubtful ones.

    Takes and raises as `mask_at`; id and file are its own (`<id>.<level>.all`), `slice_voxels` count both.
    """
    derived = _derived_at(settings, case, mask, run, level)
    return _with_file(settings, mask, level, derived.all_slice_voxels, keys.WITH_DOUBTFUL)


def numbers_at(settings: Settings, mask: Mask, run: Run, level: int) -> NDArray[np.uint16]:
    """Return (I, J, K): the number of the lesion that each voxel belongs to at a level, doubtful ones among them.

    Takes and raises as `mask_at`.
    """
    own_id = mask.id.partition(".")[0]
    probability = read_map(files_of(settings).local(keys.probability(own_id)), limits=settings.limits)
    return _rule_of(run.config_as(CheckpointUse)).numbers(probability, level / UINT8_ONE)


def _with_file(settings: Settings, mask: Mask, level: int, counts: tuple[int, ...], ending: str = "") -> Mask:
    """Return a mask with id and file of one derived from it, hashed anew: two sessions may derive it at once."""
    own_id = mask.id.partition(".")[0]
    key = keys.derived(own_id, level, with_doubtful=bool(ending))
    sha256 = sha256_of(files_of(settings).local(key))
    return replace(mask, id=f"{own_id}.{level}{ending}", path=key, sha256=sha256, slice_voxels=counts)


def _derived_at(settings: Settings, case: Case, mask: Mask, run: Run, level: int) -> _Derived:
    """Return what the probabilities of a mask say at a level; its files are there then."""
    own_id = mask.id.partition(".")[0]
    files = files_of(settings)
    facts = files.local(keys.derived_facts(own_id, level))
    try:
        derived = decode_file(_Derived, facts, _damaged)
    except StorageError:
        derived = _Derived((), ())  # whose rule is none of ours
    variants = (False, True) if derived.doubtful else (False,)
    masks = [keys.derived(own_id, level, with_doubtful=with_doubtful) for with_doubtful in variants]
    if derived.rule != RULE or not all(map(files.exists, masks)):
        derived = _derive(settings, case, run, own_id, level)
        write_bytes(facts, encode(derived))
    return derived


def _derive(settings: Settings, case: Case, run: Run, own_id: str, level: int) -> _Derived:
    """Write the masks at a level; their facts are written after them, and so never stand beside half a mask."""
    rule = _rule_of(run.config_as(CheckpointUse))
    files = files_of(settings)
    probability = read_map(files.local(keys.probability(own_id)), limits=settings.limits)
    derived = rule.apply(probability, level / UINT8_ONE)
    if case.geometry is None:
        raise _damaged("the geometry of the scan is missing")
    write_mask(derived.mask, files.local(keys.derived(own_id, level)), case.geometry)
    if derived.doubtful:
        write_mask(derived.labels, files.local(keys.derived(own_id, level, with_doubtful=True)), case.geometry)
    return _Derived(
        slice_voxels(derived.mask), derived.lesions, derived.doubtful, slice_voxels(derived.labels > 0), RULE
    )


def _rule_of(config: CheckpointUse) -> LesionRule:
    """Return the rule by which the mask of a run was made; raises StorageError where that is not known."""
    if config.min_lesion_ml is None:
        raise _damaged("min_lesion_ml is missing")
    return LesionRule(
        config.threshold, config.min_lesion_ml, config.calibration, config.doubtful_below, config.min_flatness
    )


def _damaged(reason: str) -> StorageError:
    return StorageError(f"What is kept of the result is damaged ({reason}).", "Segment the case again.")


def _expected(level: int, default: int, config: CheckpointUse) -> str:
    """Tell what a threshold reaches: on whole scans at the card's, where that was measured; else how it differs."""
    if level == default:
        if config.whole_scans is None:
            return "No figures of whole scans are known for this result."
        return _of_whole_scans(config.whole_scans)
    direction, effect = (
        ("sensitive", "more voxels, perhaps more lesions, none lost")
        if level < default
        else ("specific", "fewer voxels, perhaps fewer lesions")
    )
    change = _change(level, default, config.operating_points)
    return f"More {direction} than the checkpoint's {default / UINT8_ONE:.2f}: {effect}. {change}"


def _of_whole_scans(result: WholeScans) -> str:
    scans = f"{counted(result.scans, 'whole scan')} not learned from"
    false_lesions = f"{result.false_positives_per_scan:.2f} false lesions per scan"
    if not result.lesions:
        return f"Measured on {scans}, without a lesion: {false_lesions}."
    low, high = share_interval(result.found, result.lesions)
    return (
        f"Measured on {scans}: {result.found} of {result.lesions} lesions found (95 % interval {low:.0%} to "
        f"{high:.0%}), {false_lesions}."
    )


def _change(level: int, default: int, points: Sequence[OperatingPoint]) -> str:
    """Say what was measured at a threshold beside the card's, on nodules that mostly are small."""
    ordered = sorted(points, key=lambda point: point.threshold)
    thresholds = [point.threshold for point in ordered]
    measured = range(to_uint8_level(thresholds[0]), to_uint8_level(thresholds[-1]) + 1) if ordered else range(0)
    if level not in measured or default not in measured:
        return "Beyond what was measured."
    shares = [point.sensitivity for point in ordered]
    here, there = (float(np.interp(stop / UINT8_ONE, thresholds, shares)) for stop in (level, default))
    return f"Measured on nodules only, most of them small: {here:.0%} found, {there:.0%} at the checkpoint's threshold."
