"""How long a scan takes, warm and cold, and how much memory: the figures that `make bench` prints."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from lungseg.config import CHECKOUT, SHIPPED_CHECKPOINT
from lungseg.scans import formats
from tests.phantoms import write_nifti

MODELS = CHECKOUT / "models"


def segment_in_new_process(scan, folder):
    """Run the command as a user does and return its report."""
    report = folder / "report.json"
    arguments = ["segment", scan, "-o", folder / "mask.nii.gz", "--json", report, "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "lungseg", *map(str, arguments)], check=True, capture_output=True)
    return json.loads(report.read_text())


@pytest.fixture(scope="module")
def tall_scans(demo_files, tmp_path_factory):
    """The demo scan repeated upward and downward, to 512 x 512 x 300 and 512 x 512 x 1000."""
    volume = formats.read_volume(demo_files.scan)
    folder = tmp_path_factory.mktemp("tall")
    there_and_back = np.concatenate([volume.hu, volume.hu[:, :, ::-1]], axis=2)
    for depth in (300, 1000):
        tall = np.tile(there_and_back, (1, 1, -(-depth // there_and_back.shape[2])))[:, :, :depth]
        write_nifti(folder / f"{depth}.nii.gz", tall, volume.grid.affine)
    return folder


@pytest.mark.target(at_most={"median_s": 10})
def test_demo_scan_by_a_warm_segmenter(benchmark, demo_files, tmp_path):
    from lungseg.segmentation.pipeline import segment_scan
    from lungseg.segmentation.segmenter import Segmenter

    segmenter = Segmenter.load(SHIPPED_CHECKPOINT, models=MODELS, device="cpu")
    benchmark.pedantic(segment_scan, (demo_files.scan, tmp_path / "mask.nii.gz", segmenter), rounds=5, warmup_rounds=1)


@pytest.mark.target(at_most={"median_s": 15, "peak_rss_mb": 1200})
def test_demo_scan_from_a_cold_start_of_the_command(benchmark, demo_files, tmp_path):
    report = benchmark.pedantic(segment_in_new_process, (demo_files.scan, tmp_path), rounds=3)
    benchmark.extra_info["peak_rss_mb"] = report["peak_rss_mb"]


@pytest.mark.target(at_most={"median_s": 10, "lesions_known_after_ms": 4000})
def test_tall_scan_by_a_warm_segmenter(benchmark, tall_scans, tmp_path):
    """From opening the scan to the mask on the disk, and to the moment in which its lesions are known."""
    from lungseg.segmentation.pipeline import segment_scan
    from lungseg.segmentation.segmenter import Segmenter

    segmenter = Segmenter.load(SHIPPED_CHECKPOINT, models=MODELS, device="cpu")
    known_ms = []

    def segment():
        started = time.perf_counter()

        def tell(step):
            if step.stage == "writing":
                known_ms.append(1000 * (time.perf_counter() - started))

        segment_scan(tall_scans / "300.nii.gz", tmp_path / "mask.nii.gz", segmenter, on_progress=tell)

    benchmark.pedantic(segment, rounds=3, warmup_rounds=1)
    benchmark.extra_info["lesions_known_after_ms"] = min(known_ms)


@pytest.mark.parametrize("depth", [300, 1000])
@pytest.mark.target(at_most={"peak_rss_mb": 2048})
def test_tall_scan_from_a_cold_start_of_the_command(benchmark, tall_scans, tmp_path, depth):
    report = benchmark.pedantic(segment_in_new_process, (tall_scans / f"{depth}.nii.gz", tmp_path), rounds=1)
    benchmark.extra_info["peak_rss_mb"] = report["peak_rss_mb"]
