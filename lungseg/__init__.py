"""Lung tumour segmentation in CT. Research use only."""

from __future__ import annotations

__version__ = "0.1.0"
