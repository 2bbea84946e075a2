"""From a zip of 300 slices on the server to a case that is ready for the network, with a worker of its own process."""

import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from lungseg.config import CHECKOUT
from lungseg.scans.formats import read_volume
from lungseg.services import cases, intake
from lungseg.services.home import open_home, open_installation
from lungseg.services.installation import Installation
from tests.dicom_phantoms import write_series
from tests.runs_at_work import wait_for

SLICES = 300
READY_S = 5
"""Until a worker, or the process that stands by for the next intake, has loaded its libraries."""
NATIVE, JPEG_LOSSLESS, JPEG_2000 = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90"


@pytest.fixture(scope="module")
def volume(shared_data):
    """A real chest, up and down again: (300, 512, 512) HU."""
    hu = read_volume(shared_data / "chest_ct_msd_layout" / "imagesTr" / "lung_101.nii.gz").hu
    planes = np.transpose(hu, (2, 1, 0))[:, ::-1]
    there_and_back = np.resize(np.concatenate([planes, planes[::-1]]), (SLICES, *planes.shape[1:]))
    return np.clip(there_and_back, -1024, 3071).astype(np.int16)


@pytest.fixture
def installation(environment, database):
    """An installation whose worker waits for work; no checkpoint segments, so that nothing else is done."""
    open_home(environment)
    opened = Installation(environment, database)
    open_installation(opened)
    with subprocess.Popen([sys.executable, "-m", "lungseg", "worker"], cwd=CHECKOUT) as worker:
        time.sleep(READY_S)
        yield opened
        worker.kill()


@pytest.mark.parametrize(
    "syntax",
    [
        pytest.param(NATIVE, marks=pytest.mark.target(at_most={"median_s": 3}), id="uncompressed"),
        pytest.param(JPEG_LOSSLESS, marks=pytest.mark.target(at_most={"median_s": 4}), id="jpeg_lossless"),
        pytest.param(JPEG_2000, marks=pytest.mark.target(at_most={"median_s": 7}), id="jpeg_2000"),
    ],
)
def test_zip_on_the_server_to_case(benchmark, installation, volume, tmp_path, syntax):
    files = write_series(tmp_path / "series", volume, spacing_mm=(0.7, 0.7), step_mm=1.0, transfer_syntax=syntax)
    with zipfile.ZipFile(tmp_path / "series.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in files:
            archive.write(path, path.name)

    def drop():
        for summary in cases.list_cases(installation):
            cases.delete_case(installation, summary.case.id)
        shutil.copy(tmp_path / "series.zip", installation.settings.home / "series.zip")
        time.sleep(READY_S)
        return (), {}

    def take_in():
        intake.begin(installation, [("series.zip", installation.settings.home / "series.zip")])
        wait_for(lambda: cases.list_cases(installation))

    benchmark.pedantic(take_in, setup=drop, rounds=3)
    benchmark.extra_info["zip_mb"] = (tmp_path / "series.zip").stat().st_size / 1e6
