"""Lung tumour segmentation in CT. Research use only.

What other programs may rely on is named here; docs/python.md shows it at work::

    from lungseg import Segmenter, read_volume

    segmented = Segmenter.load("lungseg-3").segment(read_volume(Path("scan.nii.gz")))
    segmented.mask, segmented.lesions

Importing the package loads no library: each name is loaded when it is first used, so that every process pays only for
what it uses; `__init__.pyi` tells type checkers what they are.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lungseg.errors import LungSegError

__version__ = "0.1.0"

__all__ = [
    "Grid",
    "Lesion",
    "LesionMask",
    "LungSegError",
    "ProbabilityMap",
    "ScanFinding",
    "ScanGeometry",
    "Segmentation",
    "Segmenter",
    "Volume",
    "__version__",
    "open_scan",
    "read_mask",
    "read_volume",
    "segment_scan",
    "write_mask",
]

_HOMES = {
    "records": ("Lesion", "ScanFinding", "ScanGeometry", "Segmentation"),
    "scans.formats": ("open_scan", "read_mask", "read_volume", "write_mask"),
    "scans.geometry": ("Grid",),
    "scans.volume": ("Volume",),
    "segmentation.pipeline": ("segment_scan",),
    "segmentation.postprocessing": ("LesionMask", "ProbabilityMap"),
    "segmentation.segmenter": ("Segmenter",),
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
