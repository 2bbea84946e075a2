"""Scores of a checkpoint on scans with reference masks: whole volumes, all slices, case by case."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.dataset.layout import CaseFiles
from lungseg.dataset.masks import read_tumour_mask
from lungseg.errors import DataSetError, LungSegError, RunCancelledError
from lungseg.evaluation.metrics import score_case, summarise
from lungseg.failures import failure_of_case, whereabouts
from lungseg.records.findings import ScanFinding
from lungseg.records.run_states import Failure
from lungseg.records.scores import CaseFailure, CaseScore, Summary
from lungseg.scans.formats import open_scan
from lungseg.scans.quality import explaining
from lungseg.scans.volume import Volume
from lungseg.segmentation.segmenter import Segmenter
from lungseg.workclock import WorkClock

log = logging.getLogger(__name__)

OnCase = Callable[[CaseScore | CaseFailure], None]
OnFindings = Callable[[str, tuple[ScanFinding, ...]], None]


def evaluate(
    pairs: Iterable[CaseFiles],
    segmenter: Segmenter,
    *,
    on_case: OnCase | None = None,
    on_findings: OnFindings | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[tuple[CaseScore, ...], Summary]:
    """Segment scans as `lungseg segment` does and compare each mask with the reference mask.

    A case that can't be scored, for any reason, does not stop the others: `on_case` gets the reason, and the summary
    counts it.

    Args:
        pairs: scans with reference masks, in any axis order.
        segmenter: the loaded checkpoint.
        on_case: called with each case as soon as it is done.
        on_findings: called before `on_case` with each case whose header is uncertain.
        should_stop: called between cases and between batches of slices.

    Raises:
        RunCancelledError: `should_stop` returned True.
    """
    scores: list[CaseScore] = []
    failed = 0
    for pair in pairs:
        if should_stop and should_stop():
            raise RunCancelledError(f"Stopped after {len(scores) + failed} cases.", "Evaluate again.")
        outcome, findings = _outcome(pair, segmenter, should_stop)
        if isinstance(outcome, CaseScore):
            scores.append(outcome)
        else:
            failed += 1
        if on_findings and findings:
            on_findings(pair.case, findings)
        if on_case:
            on_case(outcome)
    return tuple(scores), summarise(scores, failed=failed)


@dataclass(frozen=True, slots=True, eq=False)
class CasePrediction:
    """A scan with its reference mask and a checkpoint's mask, on one RAS+ grid.

    Attributes:
        volume: the scan.
        reference: (I, J, K) bool.
        mask: (I, J, K) bool, as `lungseg segment` makes it.
        score: of `mask` against `reference`.
        findings: what is uncertain of the scan's header.
    """

    volume: Volume
    reference: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    score: CaseScore
    findings: tuple[ScanFinding, ...] = ()


def outline_case(
    pair: CaseFiles, segmenter: Segmenter, *, should_stop: Callable[[], bool] | None = None
) -> CasePrediction:
    """Segment one scan and compare its mask with its reference mask.

    Raises:
        DataSetError: the scan has no reference mask.
        ScanError: scan or reference mask can't be used, or lie on different grids.
        RunCancelledError: `should_stop` returned True.
    """
    if pair.mask is None:
        raise DataSetError(f"The case {pair.case} has no reference mask.", "Evaluate on scans with masks.")
    clock = WorkClock(should_stop)
    started_s = clock.now()
    with open_scan(pair.scan) as reader:
        scan = reader.read()
    read_s, volume = clock.now(), scan.volume
    reference = read_tumour_mask(pair.mask, volume.grid, pair.legend)
    started_s += clock.now() - read_s
    with explaining(volume, scan.findings):
        segmented = segmenter.segment(volume, should_stop=clock.should_stop)
    seconds = clock.now() - started_s
    mask, doubtful = segmented.mask, segmented.doubtful_mask
    if reference.ignored is not None:
        mask = mask & ~reference.ignored
        doubtful = None if doubtful is None else doubtful & ~reference.ignored
    score = score_case(pair.case, mask, reference.inside, volume.grid, seconds=seconds, doubtful=doubtful)
    return CasePrediction(volume, reference.inside, mask, score, scan.findings)


def _outcome(
    pair: CaseFiles, segmenter: Segmenter, should_stop: Callable[[], bool] | None
) -> tuple[CaseScore | CaseFailure, tuple[ScanFinding, ...]]:
    try:
        prediction = outline_case(pair, segmenter, should_stop=should_stop)
    except RunCancelledError:
        raise
    except LungSegError as error:
        log.warning("a case could not be scored: %s", error.code)
        failure = Failure.of(error)
    except Exception as error:  # noqa: BLE001 - a fault of ours costs its own case alone
        log.error("a case could not be scored\n%s", whereabouts(error))  # noqa: TRY400 - its text may name a patient
        failure = failure_of_case(error)
    else:
        return prediction.score, prediction.findings
    return CaseFailure(pair.case, failure), ()
