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
        """Return their number; 0 where there is no server, or where it does not know the study or does not answer.

        Whatever the server or a file of the study holds: the study is taken in.
        """
        if not self._settings.pacs.dicomweb_url or self._clock() < self._asks_from_s:
            return 0
        try:
            return self._count(study)
        except LungSegError as error:
            log.warning("the DICOMweb server can't say whether a study is whole: %s", error.code)
            self._asks_from_s = self._clock() + AGAIN_AFTER_S
        except Exception as error:  # noqa: BLE001 - whatever bytes arrived, the listener goes on
            log.error("it can't be told whether a study is whole: %s", type(error).__name__)  # noqa: TRY400 - its text may name a patient
        return 0

    def _count(self, study: Path) -> int:
        counts: dict[str, int] = {}
        study_uid = ""
        for path, count in first_files(study):
            for instance in read_headers([path]).instances[:1]:
                study_uid, counts[instance.series_uid] = instance.study_uid, count
        if not study_uid:
            return 0
        series = search(self._settings, PacsQuery(study_uid=study_uid)).series
        announced = {item.series_uid: item.instances or 0 for item in series}
        return sum(max(0, announced.get(series_uid, 0) - count) for series_uid, count in counts.items())
