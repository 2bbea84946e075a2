"""How long 300 slices of 512 x 512 take from files on the disk to a volume, uncompressed and compressed."""

import subprocess
import zipfile
from io import BytesIO

import numpy as np
import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, generate_uid

from lungseg.scans.formats import read_volume

SLICES, STEP_MM = 300, 1.0


@pytest.fixture(scope="module")
def slices(shared_data):
    """The slices of one series of the real examination, repeated there and back at new positions."""
    with zipfile.ZipFile(shared_data / "dicom/lungdx_a0001_two_series.zip") as archive:
        datasets = [dcmread(BytesIO(archive.read(name))) for name in archive.namelist()]
    one = [dataset for dataset in datasets if dataset.ConvolutionKernel == "L"]
    there_and_back = np.concatenate([np.arange(len(one)), np.arange(len(one))[::-1]])
    return [one[place] for place in np.resize(there_and_back, SLICES)]


@pytest.fixture(scope="module")
def series(slices, tmp_path_factory):
    """Return the files of the series in a transfer syntax."""
    folder = tmp_path_factory.mktemp("series")

    def write(syntax):
        files = []
        for k, dataset in enumerate(slices):
            files.append(folder / f"{syntax or 'native'}-{k}")
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], -139 + STEP_MM * k]
            dataset.InstanceNumber, dataset.SliceThickness = k + 1, STEP_MM
            dataset.save_as(files[-1])
            if syntax == JPEGLosslessSV1:
                subprocess.run(["dcmcjpeg", "+e1", files[-1], files[-1]], check=True)
            elif syntax:
                copy = dcmread(files[-1])
                copy.compress(syntax, generate_instance_uid=False)
                copy.save_as(files[-1])
        return files

    return write


@pytest.mark.parametrize(
    "syntax",
    [
        pytest.param("", id="uncompressed", marks=pytest.mark.target(at_most={"median_s": 1.5})),
        pytest.param(JPEGLosslessSV1, id="jpeg_lossless", marks=pytest.mark.target(at_most={"median_s": 2})),
        pytest.param(JPEG2000Lossless, id="jpeg_2000", marks=pytest.mark.target(at_most={"median_s": 3.5})),
    ],
)
def test_300_slices_from_files_to_a_volume(benchmark, series, syntax):
    """Half of what is promised from a zip on the server to a scan that is ready for the network."""
    files = series(syntax)
    volume = benchmark.pedantic(read_volume, (files,), rounds=3, warmup_rounds=1)
    assert volume.grid.shape == (512, 512, SLICES)
    benchmark.extra_info["resident_mb"] = psutil.Process().memory_info().rss / 1e6
