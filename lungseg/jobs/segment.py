"""Segmenting what readers hand in, as a run; the network is kept warm for the next one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import ScanChangedError, StorageError
from lungseg.files import keys
from lungseg.jobs.context import JobContext
from lungseg.records.run_configs import SegmentConfig
from lungseg.records.run_results import Segmentation
from lungseg.records.run_states import Progress
from lungseg.records.runs import Run
from lungseg.scans import overlay
from lungseg.scans.quality import gravest_first
from lungseg.scans.reader import Scan
from lungseg.segmentation.card import find_weights, read_card
from lungseg.segmentation.pipeline import segment_scan
from lungseg.segmentation.postprocessing import LesionMask
from lungseg.segmentation.probability_io import write_map
from lungseg.segmentation.segmenter import Segmenter, is_device_full
from lungseg.segmentation.weights_file import weights_sha256
from lungseg.services.cases import get_case, keys_beside

log = logging.getLogger(__name__)


class SegmentJob:
    """Segments scans, one after the other, and keeps the network warm between them."""

    def __init__(self) -> None:
        self._segmenter: Segmenter | None = None
        self._origin: tuple[str, str, str] | None = None

    def __call__(self, context: JobContext) -> None:
        """Segment the scan of a run and record its mask with the end of the run, or leave nothing of it.

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
            with _dispensable(run, "small picture"):
                overlay.write_png(files.local(keys.thumbnail(run.case_id or "")), picture)

    def _compute(self, context: JobContext, mask_id: str) -> tuple[Segmentation, NDArray[np.uint8]]:
        """Segment the scan of a run; also draw its small picture and keep the probabilities."""
        files, run = context.installation.files, context.run
        pictures: list[NDArray[np.uint8]] = []

        def keep(scan: Scan, lesions: LesionMask) -> None:
            pictures.append(overlay.draw_thumbnail(scan.volume, lesions.mask))
            with _dispensable(run, "probabilities"):  # without them the threshold can't be moved
                write_map(lesions.probability, files.local(keys.probability(mask_id)))

        def segment(segmenter: Segmenter) -> Segmentation:
            context.recorder.record_provenance(segmenter.card, str(segmenter.device))
            return segment_scan(
                files.local(case.scan_path),
                files.local(keys.incoming_mask(mask_id)),
                segmenter,
                on_progress=context.monitor.report,
                should_stop=context.monitor.should_stop,
                on_result=keep,
            )

        context.monitor.report(Progress("loading"))
        case = get_case(context.installation, run.case_id or "")
        models = context.installation.settings.models
        segmentation = self._somewhere(run.config_as(SegmentConfig), models, segment)
        if segmentation.scan_sha256 != case.scan_sha256:
            raise ScanChangedError("The file of the case is not the scan that was uploaded.", "Upload the scan again.")
        findings = gravest_first((*segmentation.findings, *case.findings))  # of taking it in, such as a repair
        return replace(segmentation, findings=findings), pictures[-1]

    def _somewhere(
        self, config: SegmentConfig, models: Path, segment: Callable[[Segmenter], Segmentation]
    ) -> Segmentation:
        """Segment on the device of a run; on the processor where the memory of a GPU is all in use, and say so."""
        try:
            segmenter = self._warm_segmenter(config, models)
            segmentation = segment(segmenter)
            segmenter.give_back_memory()
        except RuntimeError as error:
            if not is_device_full(error):
                raise
        else:
            return segmentation
        log.warning("the GPU has no memory left, the processor segments")
        self._segmenter = None
        segmentation = segment(Segmenter.load(config.checkpoint, models=models, device="cpu"))
        return replace(segmentation, device=f"{segmentation.device}; the GPU had no memory left")

    def _warm_segmenter(self, config: SegmentConfig, models: Path) -> Segmenter:
        """Return the segmenter of a run's checkpoint; loaded anew only where weights, card or device are others."""
        weights = find_weights(config.checkpoint, models)
        origin = (weights_sha256(weights), read_card(weights, to_segment=True).to_json(), config.device)
        if self._segmenter is None or origin != self._origin:
            self._segmenter = Segmenter.load(str(weights), models=models, device=config.device)
            self._origin = origin
        return self._segmenter


job = SegmentJob()
"""The job of this process."""


@contextmanager
def _dispensable(run: Run, name: str) -> Iterator[None]:
    """Write what a result can do without: where that fails, the log says so."""
    try:
        yield
    except StorageError as error:
        log.warning("run %s: no %s kept: %s", run.id, name, error.found)
