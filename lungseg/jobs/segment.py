"""Segmenting what readers hand in, as a run; the network is kept warm for the next one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import ScanChangedError, StorageError
from lungseg.files import keys
from lungseg.files.store import FileStore
from lungseg.jobs.context import JobContext
from lungseg.records import Progress, Run, Segmentation
from lungseg.run_configs import SegmentConfig
from lungseg.scans import overlay
from lungseg.scans.reader import Scan
from lungseg.segmentation.card import find_weights, read_card
from lungseg.segmentation.pipeline import segment_scan
from lungseg.segmentation.postprocessing import LesionMask, ProbabilityMap
from lungseg.segmentation.probability_io import write_map
from lungseg.segmentation.segmenter import Segmenter, is_device_full
from lungseg.segmentation.weights_file import weights_sha256
from lungseg.services.cases import get_case, keys_beside
from lungseg.services.installation import Installation

log = logging.getLogger(__name__)

GPU_WAS_FULL = "the GPU had no memory left"


class SegmentJob:
    """Segments scans, one after the other, and keeps the network warm between them."""

    def __init__(self) -> None:
        self._segmenter: Segmenter | None = None
        self._loaded: tuple[str, str, str] | None = None

    def __call__(self, context: JobContext) -> None:
        """Segment the scan of a run and record its mask with the end of the run, or let nothing stay of it.

        Raises:
            RunCancelledError: asked to stop.
            LungSegError: the scan, the checkpoint or the disk can't be used.
        """
        run, files = context.run, context.installation.files
        mask_id = uuid4().hex
        is_recorded = False
        try:
            segmentation, picture = self._compute(context, mask_id)
            is_recorded = context.recorder.record_segmentation(mask_id, segmentation)
        finally:
            if not is_recorded:
                files.delete(keys.incoming_mask(mask_id), keys.mask(mask_id), *keys_beside(files, mask_id))
        log.info("run %s: %s in %.1f s", run.id, "done" if is_recorded else "dropped", segmentation.seconds)
        if is_recorded:
            _write_picture(files, run, picture)

    def _compute(self, context: JobContext, mask_id: str) -> tuple[Segmentation, NDArray[np.uint8]]:
        """Segment the scan of a run; also draw its small picture and keep the probabilities."""
        files, run = context.installation.files, context.run
        pictures: list[NDArray[np.uint8]] = []

        def keep(read: Scan, segmented: LesionMask) -> None:
            pictures.append(overlay.draw_thumbnail(read.volume, segmented.mask))
            _write_map(files, run, mask_id, segmented.probability)

        def segment(segmenter: Segmenter) -> Segmentation:
            context.recorder.record_provenance(segmenter.card, str(segmenter.device))
            return segment_scan(
                files.local(case.scan_path),
                files.local(keys.incoming_mask(mask_id)),
                segmenter,
                on_progress=context.monitor.report,
                should_stop=context.monitor.should_stop,
                on_answer=keep,
            )

        context.monitor.report(Progress("loading"))
        case = get_case(context.installation, run.case_id or "")
        segmentation = self._somewhere(context.installation, run, segment)
        if segmentation.scan_sha256 != case.scan_sha256:
            raise ScanChangedError("The file of the case is not the scan that was uploaded.", "Upload the scan again.")
        return segmentation, pictures[0]

    def _somewhere(
        self, installation: Installation, run: Run, segment: Callable[[Segmenter], Segmentation]
    ) -> Segmentation:
        """Segment on the device of a run; on the processor where the memory of a GPU is all in use, and say so."""
        try:
            segmenter = self._warm_segmenter(installation, run)
            segmentation = segment(segmenter)
            segmenter.give_back_memory()
        except RuntimeError as error:
            if not is_device_full(error):
                raise
        else:
            return segmentation
        log.warning("run %s: the GPU has no memory left, the processor segments", run.id)
        self._segmenter = None
        segmentation = segment(_load(installation, run, "cpu"))
        return replace(segmentation, device=f"{segmentation.device}; {GPU_WAS_FULL}")

    def _warm_segmenter(self, installation: Installation, run: Run) -> Segmenter:
        """Return the segmenter of a run's checkpoint; loaded anew only where weights, card or device are others."""
        config = run.config_as(SegmentConfig)
        weights = find_weights(config.checkpoint, installation.settings.models)
        wanted = (weights_sha256(weights), read_card(weights, to_segment=True).to_json(), config.device)
        if self._segmenter is None or wanted != self._loaded:
            self._segmenter = _load(installation, run, config.device)
            self._loaded = wanted
        return self._segmenter


job = SegmentJob()
"""The one of this process."""


def _load(installation: Installation, run: Run, device: str) -> Segmenter:
    models = installation.settings.models
    weights = find_weights(run.config_as(SegmentConfig).checkpoint, models)
    return Segmenter.load(str(weights), models=models, device=device)


def _write_picture(files: FileStore, run: Run, picture: NDArray[np.uint8]) -> None:
    try:
        overlay.write_png(files.local(keys.thumbnail(run.case_id or "")), picture)
    except StorageError as error:
        log.warning("run %s: no small picture kept: %s", run.id, error.found)


def _write_map(files: FileStore, run: Run, mask_id: str, probability: ProbabilityMap) -> None:
    """Keep the probabilities; a result without them is one whose threshold can't be moved."""
    try:
        write_map(probability, files.local(keys.probability(mask_id)))
    except StorageError as error:
        log.warning("run %s: no probabilities kept: %s", run.id, error.found)
