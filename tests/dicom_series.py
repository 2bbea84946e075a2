"""Series of DICOM files, for tests: from files to what the package makes of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread

from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.series import Series, series_in
from tests.dicom_phantoms import set_pixels, write_dataset


def series_of(files: Sequence[Path]) -> tuple[Series, ...]:
    """Return the series in files, none of which is damaged."""
    headers = read_headers(files)
    assert not headers.unreadable
    return series_in(headers.instances)


def only_series(files: Sequence[Path]) -> Series:
    """Return the only series in files."""
    (series,) = series_of(files)
    return series


def codes_of(series: Series) -> list[str]:
    """Return the codes of what was noticed of a series."""
    return [finding.code for finding in series.findings]


def retag(path: Path, **values: object) -> Path:
    """Change tags of a file."""
    dataset = dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return write_dataset(dataset, path)


def spoil(path: Path) -> None:
    """Damage the pixels of a JPEG 2000 file within, so that only a decoder notices."""
    raw = bytearray(path.read_bytes())
    start = raw.index(b"\xff\x4f\xff\x51")
    raw[start : start + 60] = bytes(60)
    path.write_bytes(raw)


def repaint(path: Path, **values: object) -> Path:
    """Change all pixels, and tags, of a file."""
    dataset = dcmread(path)
    set_pixels(dataset, np.full((dataset.Rows, dataset.Columns), 77, dtype=np.int16))
    write_dataset(dataset, path)
    return retag(path, **values)
