"""Orientation by the body: front and back, left and right, head and feet are told from the voxels alone."""

from lungseg.scans.anatomy.check import (
    OrientationCheck,
    OrientationVerdict,
    Says,
    check_orientation,
    findings_of_orientation,
)

__all__ = ["OrientationCheck", "OrientationVerdict", "Says", "check_orientation", "findings_of_orientation"]
