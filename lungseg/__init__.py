"""Lung tumour segmentation in CT. Research use only.

From Python::

    from lungseg.segmentation.segmenter import Segmenter
    from lungseg.scans.formats import read_volume

    segmented = Segmenter.load("NAME", models=Path("models")).segment(read_volume(Path("scan.nii.gz")))
    segmented.mask, segmented.lesions

Importing the package itself loads no library, so that every process pays only for what it uses.
"""

from __future__ import annotations

from lungseg.errors import LungSegError

__version__ = "0.1.0"

__all__ = ["LungSegError", "__version__"]
