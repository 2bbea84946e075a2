"""How long four full-size scans take to prepare, and how much memory all processes need together."""

import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from lungseg.config import CHECKOUT
from lungseg.scans import formats
from tests.phantoms import write_nifti

SCANS = 4
DEPTH = 280
"""Slices of a median scan of Task06_Lung."""


@pytest.fixture(scope="module")
def full_size(shared_data, tmp_path_factory):
    """Four different scans of 512 x 512 x 280 voxels with their masks, made of a real one."""
    source = shared_data / "chest_ct_msd_layout"
    volume = formats.read_volume(source / "imagesTr" / "lung_101.nii.gz")
    mask = formats.read_mask(source / "labelsTr" / "lung_101.nii.gz", volume.grid)
    there_and_back = np.concatenate([np.arange(volume.grid.shape[2]), np.arange(volume.grid.shape[2])[::-1]])
    folder = tmp_path_factory.mktemp("full") / "set"
    for number in range(SCANS):
        slices = np.resize(np.roll(there_and_back, number), DEPTH)
        for place, array in (("imagesTr", volume.hu), ("labelsTr", mask.astype(np.uint8))):
            (folder / place).mkdir(parents=True, exist_ok=True)
            write_nifti(folder / place / f"lung_{number}.nii.gz", array[:, :, slices], volume.grid.affine, "LPS")
    return folder


@pytest.fixture(scope="module")
def real(shared_data):
    return shared_data / "chest_ct_msd_layout"


@pytest.mark.parametrize("name", ["full_size", "real"])
def test_four_scans_from_a_cold_start_of_the_command(benchmark, request, tmp_path, name):
    folder = request.getfixturevalue(name)
    peaks, number = [], iter(range(10))

    def prepare():
        arguments = ["prepare", folder, "-o", tmp_path / f"store-{next(number)}", "--workers", "2"]
        command = [sys.executable, "-m", "lungseg", *map(str, arguments)]
        with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL) as process:
            peaks.append(peak_mb_of(psutil.Process(process.pid)))
        assert process.returncode == 0

    benchmark.pedantic(prepare, rounds=2)
    benchmark.extra_info["peak_mb_of_all_processes"] = max(peaks)


def peak_mb_of(process):
    """Watch a process with all its children until it ends; returns the highest sum of what they hold, in MB.

    What they share (libraries, mapped files) counts once for each: the true figure is a little lower.
    """
    peak, ended = 0, threading.Event()

    def watch():
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, resident_bytes(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.02)
    ended.set()
    watcher.join()
    return peak / 1e6


def resident_bytes(process):
    try:
        return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0
