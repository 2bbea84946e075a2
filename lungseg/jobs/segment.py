"""Segmenting what readers hand in: runs of kind SEGMENT, one after the other, by a network that is kept warm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Settings
from lungseg.db import Database
from lungseg.errors import ScanChangedError, StorageError
from lungseg.jobs import recorder
from lungseg.jobs.heartbeat import Heartbeat
from lungseg.records import Progress, Run, Segmentation
from lungseg.scans import overlay
from lungseg.scans.volume import Volume
from lungseg.segmentation.card import find_weights, read_card, sha256_of
from lungseg.segmentation.pipeline import segment_scan
from lungseg.segmentation.postprocessing import ProbabilityMap
from lungseg.segmentation.probability_io import write_map
from lungseg.segmentation.segmenter import Segmenter, is_device_full
from lungseg.services.cases import get_case
from lungseg.services.installation import Installation
from lungseg.services.storage import files_beside, incoming_mask_path, mask_path, probability_path, thumbnail_path

log = logging.getLogger(__name__)

GPU_WAS_FULL = "the GPU had no memory left"


class SegmentLane:
    """Carries out runs that segment, and keeps the network warm between them.

    Args:
        settings: of the installation.
        database: its database.
        on_step: told whenever the work gets on.
        should_leave: asked between steps; the run at hand goes back into the queue then.
    """

    def __init__(
        self, settings: Settings, database: Database, *, on_step: Callable[[], None], should_leave: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._database = database
        self._on_step = on_step
        self._should_leave = should_leave
        self._segmenter: Segmenter | None = None
        self._loaded: tuple[str, ...] = ()

    def carry_out(self, run: Run) -> None:
        """Segment the scan of a claimed run; what it leaves is recorded, or nothing stays of it.

        Raises:
            RunCancelledError: the run or this worker is to end.
            LungSegError: the scan, the checkpoint or the disk can't be used.
        """
        mask_id = uuid4().hex
        mask = self._settings.home / incoming_mask_path(mask_id)
        for folder in (mask.parent, self._settings.masks):
            folder.mkdir(parents=True, exist_ok=True)
        kept = False
        try:
            segmentation, picture = self._compute(run, mask_id)
            kept = recorder.retrying(
                lambda: recorder.keep_segmentation(self._settings, self._database, run, mask_id, segmentation)
            )
        finally:
            if not kept:
                for path in (mask, self._settings.home / mask_path(mask_id), *files_beside(self._settings, mask_id)):
                    path.unlink(missing_ok=True)
        log.info("run %s: %s in %.1f s", run.id, "done" if kept else "dropped", segmentation.seconds)
        if kept:
            self._keep_picture(run, picture)

    def _compute(self, run: Run, mask_id: str) -> tuple[Segmentation, NDArray[np.uint8]]:
        """Segment the scan of a run while its pulse beats; also draw its small picture and keep the probabilities."""
        pictures: list[NDArray[np.uint8]] = []

        def keep(volume: Volume, inside: NDArray[np.bool_], probability: ProbabilityMap) -> None:
            pictures.append(overlay.thumbnail(volume, inside))
            self._keep_map(run, mask_id, probability)

        def tell(progress: Progress) -> None:
            self._on_step()
            pulse.tell(progress)

        def segment(segmenter: Segmenter) -> Segmentation:
            recorder.retrying(
                lambda: recorder.note_provenance(self._database, run, segmenter.card, str(segmenter.device))
            )
            return segment_scan(
                scan,
                self._settings.home / incoming_mask_path(mask_id),
                segmenter,
                on_progress=tell,
                should_stop=lambda: self._should_leave() or pulse.should_stop(),
                on_answer=keep,
            )

        with Heartbeat(self._database, run) as pulse:
            pulse.tell(Progress("loading"))
            case = get_case(Installation(self._settings, self._database), run.case_id or "")
            scan = self._settings.home / case.scan_path
            segmentation = self._somewhere(run, segment)
        if segmentation.scan_sha256 != case.scan_sha256:
            raise ScanChangedError("The file of the case is not the scan that was uploaded.", "Upload the scan again.")
        return segmentation, pictures[0]

    def _somewhere(self, run: Run, segment: Callable[[Segmenter], Segmentation]) -> Segmentation:
        """Segment on the device of a run; on the processor where the memory of a GPU is all in use, and say so."""
        try:
            segmenter = self._warm_segmenter(run)
            segmentation = segment(segmenter)
            segmenter.give_back_memory()
        except RuntimeError as error:
            if not is_device_full(error):
                raise
        else:
            return segmentation
        log.warning("run %s: the GPU has no memory left, the processor segments", run.id)
        self._segmenter = None
        on_processor = self._load(run, "cpu")
        segmentation = segment(on_processor)
        return replace(segmentation, device=f"{segmentation.device}; {GPU_WAS_FULL}")

    def _warm_segmenter(self, run: Run) -> Segmenter:
        """Return the segmenter of a run's checkpoint; loaded anew only where weights, card or device are others."""
        checkpoint, device = run.configuration["checkpoint"], run.configuration["device"]
        weights = find_weights(checkpoint, self._settings.models)
        wanted = (sha256_of(weights), read_card(weights).to_json(), device)
        if self._segmenter is None or wanted != self._loaded:
            self._segmenter = self._load(run, device)
            self._loaded = wanted
        return self._segmenter

    def _load(self, run: Run, device: str) -> Segmenter:
        weights = find_weights(run.configuration["checkpoint"], self._settings.models)
        return Segmenter.load(str(weights), models=self._settings.models, device=device)

    def _keep_picture(self, run: Run, picture: NDArray[np.uint8]) -> None:
        try:
            overlay.write_png(thumbnail_path(self._settings, run.case_id or ""), picture)
        except StorageError as error:
            log.warning("run %s: no small picture kept: %s", run.id, error.found)

    def _keep_map(self, run: Run, mask_id: str, probability: ProbabilityMap) -> None:
        """Keep the probabilities; a result without them is one whose threshold can't be moved."""
        try:
            write_map(probability, self._settings.home / probability_path(mask_id))
        except StorageError as error:
            log.warning("run %s: no probabilities kept: %s", run.id, error.found)
