"""Lung tumour segmentation in CT. Research use only.

The names that other programs may rely on; docs/python.md has examples::

    from lungseg import Segmenter, read_volume

    segmented = Segmenter.load("lungseg-3").segment(read_volume(Path("scan.nii.gz")))
    segmented.mask, segmented.lesions

Importing the package loads no library: each name is loaded at its first use, so that a process pays only for what it
uses; `__init__.pyi` has the names for type checkers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lungseg.errors import LungSegError

__version__ = "0.1.0"

_HOMES = {
    "Grid": "scans.geometry",
    "Lesion": "records.masks",
    "LesionMask": "segmentation.postprocessing",
    "ProbabilityMap": "segmentation.postprocessing",
    "ScanFinding": "records.findings",
    "ScanGeometry": "records.geometry",
    "Segmentation": "records.run_results",
    "Segmenter": "segmentation.segmenter",
    "Volume": "scans.volume",
    "open_scan": "scans.formats",
    "read_mask": "scans.formats",
    "read_volume": "scans.formats",
    "segment_scan": "segmentation.pipeline",
    "write_mask": "scans.formats",
}

__all__ = ["LungSegError", "__version__"]
__all__ += list(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
