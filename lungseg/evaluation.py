"""How good a checkpoint is on scans whose tumours are known: whole volumes, all slices, case by case."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg import nifti
from lungseg.dataset.layout import Pair
from lungseg.errors import DataSetError, LungSegError, RunCancelledError, StorageError
from lungseg.inference import Segmenter
from lungseg.metrics import score_case, summarise
from lungseg.postprocessing import drop_implausible
from lungseg.records import CaseFailure, CaseScore, Failure, Summary
from lungseg.volume import Volume

log = logging.getLogger(__name__)

OnCase = Callable[[CaseScore | CaseFailure], None]


def evaluate(
    pairs: Iterable[Pair],
    segmenter: Segmenter,
    *,
    on_case: OnCase | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[tuple[CaseScore, ...], Summary]:
    """Segment scans as `lungseg segment` does and compare each mask with the reference mask.

    A case that can't be scored does not stop the others: `on_case` is told why, and the summary counts it.

    Args:
        pairs: scans with reference masks, in any axis order each.
        segmenter: the loaded checkpoint.
        on_case: told of each case as soon as it is done.
        should_stop: asked between cases and between batches of slices.

    Raises:
        RunCancelledError: `should_stop` said so; `on_case` has been told of the cases before.
    """
    scores: list[CaseScore] = []
    failed = 0
    for pair in pairs:
        if should_stop and should_stop():
            raise RunCancelledError(f"Stopped after {len(scores) + failed} cases.", "Evaluate again.")
        outcome = _outcome(pair, segmenter, should_stop)
        if isinstance(outcome, CaseScore):
            scores.append(outcome)
        else:
            failed += 1
        if on_case:
            on_case(outcome)
    return tuple(scores), summarise(scores, failed=failed)


@dataclass(frozen=True, slots=True, eq=False)
class Outlined:
    """A scan with its reference mask and a checkpoint's mask, on one RAS+ grid.

    Attributes:
        volume: the scan.
        reference: (I, J, K) bool.
        mask: the same, as `lungseg segment` makes it.
        score: how well they agree.
    """

    volume: Volume
    reference: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    score: CaseScore


def evaluate_case(pair: Pair, segmenter: Segmenter, *, should_stop: Callable[[], bool] | None = None) -> CaseScore:
    """Segment one scan and compare its mask with its reference mask; raises as `outline_case`."""
    return outline_case(pair, segmenter, should_stop=should_stop).score


def outline_case(pair: Pair, segmenter: Segmenter, *, should_stop: Callable[[], bool] | None = None) -> Outlined:
    """Segment one scan and compare its mask with its reference mask, which are returned with the score.

    Raises:
        DataSetError: the scan has no reference mask.
        ScanError: scan or reference mask can't be used, or lie on different grids.
        StorageError: a file can't be read.
        RunCancelledError: `should_stop` said so.
    """
    if pair.mask is None:
        raise DataSetError(f"The case {pair.case} has no reference mask.", "Evaluate on scans with masks.")
    try:
        reference = nifti.read_mask(pair.mask, nifti.read_grid(pair.scan).to_ras())
        started = time.perf_counter()
        volume = nifti.read_volume(pair.scan)
    except OSError as error:
        raise StorageError(f"A file of {pair.case} can't be read ({error.strerror}).", "Check the file.") from error
    probability = segmenter.apply(volume, should_stop=should_stop)
    mask = probability.above(segmenter.card.threshold)
    drop_implausible(mask, volume.grid, segmenter.card.min_lesion_ml)
    seconds = time.perf_counter() - started
    return Outlined(volume, reference, mask, score_case(pair.case, mask, reference, volume.grid, seconds=seconds))


def _outcome(pair: Pair, segmenter: Segmenter, should_stop: Callable[[], bool] | None) -> CaseScore | CaseFailure:
    try:
        return evaluate_case(pair, segmenter, should_stop=should_stop)
    except RunCancelledError:
        raise
    except LungSegError as error:
        log.warning("a case could not be scored: %s", error.code)
        return CaseFailure(pair.case, Failure(error.code, error.found, error.remedy))
