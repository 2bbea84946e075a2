"""What the listener takes: `python -m tests.benchmarks.listener [STUDIES] [SLICES]`.

So many studies of slices of 512 x 512 are sent at once, each by a storescu of dcmtk; an acknowledged slice is on the
disk. Prints the seconds until the last is acknowledged, and from then until all are handed over.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lungseg.config import Settings
from lungseg.files import keys
from tests.dicom_phantoms import small_volume, write_series
from tests.pacs import running_listener, send_until_kept
from tests.runs_at_work import wait_for
from tests.web import free_port

STUDIES, SLICES = 20, 20
QUIET_S = 3
SIZE = 512


def main(studies: int, slices: int) -> None:
    """Measure once in an installation that is removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {
            "LUNGSEG_HOME": str(folder / "home"),
            "LUNGSEG_LISTEN_PORT": str(free_port()),
            "LUNGSEG_LISTEN_FROM": "PACS",
            "LUNGSEG_LISTEN_QUIET": str(QUIET_S),
        }
        pacs = Settings.from_environment().pacs
        volume = small_volume(slices, SIZE, SIZE)
        series = [write_series(folder / str(number), volume, patient=f"P{number}") for number in range(studies)]
        with running_listener(pacs), ThreadPoolExecutor(studies) as senders:
            began_s = time.monotonic()
            list(senders.map(lambda files: send_until_kept(pacs, files), series))
            sent_s = time.monotonic()
            wait_for(lambda: len(list((folder / "home" / keys.INTAKES).glob("*/intake.json"))) == studies)
            print(f"{studies} studies of {slices} slices: sent in {sent_s - began_s:.1f} s")  # noqa: T201 - a benchmark
            handed_over_s = time.monotonic() - sent_s
            print(f"handed over {handed_over_s:.1f} s later, {QUIET_S} s of it quiet time")  # noqa: T201 - a benchmark


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    main(*(numbers or [STUDIES, SLICES]))
