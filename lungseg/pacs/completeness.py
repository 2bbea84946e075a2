"""Whether a study that was sent is whole: its series are compared with what the DICOMweb server has of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from lungseg.config import Settings
from lungseg.errors import LungSegError
from lungseg.pacs.dicomweb import search
from lungseg.pacs.inbox import first_files
from lungseg.pacs.queries import PacsQuery
from lungseg.scans.dicom.headers import read_headers

log = logging.getLogger(__name__)

AGAIN_AFTER_S = 300.0
"""A server that does not answer is not asked for this long: studies do not wait for each of its silences."""


class LackingSlices:
    """Counts the slices that a DICOMweb server has of the series in the folder of a study, and that did not come.

    Args:
        settings: name the server.
        clock: seconds that only grow.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._asks_from_s = clock()

    def __call__(self, study: Path) -> int:
        """Return their number; 0 where there is no server, or where it does not know the study or does not answer."""
        if not self._settings.pacs.dicomweb_url or self._clock() < self._asks_from_s:
            return 0
        counts: dict[str, int] = {}
        study_uid = ""
        for path, count in first_files(study):
            for instance in read_headers([path]).instances[:1]:
                study_uid, counts[instance.series_uid] = instance.study_uid, count
        if not study_uid:
            return 0
        try:
            series = search(self._settings, PacsQuery(study_uid=study_uid)).series
        except LungSegError as error:
            log.warning("the DICOMweb server can't say whether a study is whole: %s", error.code)
            self._asks_from_s = self._clock() + AGAIN_AFTER_S
            return 0
        announced = {item.series_uid: item.instances or 0 for item in series}
        return sum(max(0, announced.get(series_uid, 0) - count) for series_uid, count in counts.items())
