"""Orientation by the body: front and back, left and right, head and feet are told from the voxels alone."""

from lungseg.anatomy.check import OrientationCheck, Says, Verdict, check_orientation, findings_of_orientation

__all__ = ["OrientationCheck", "Says", "Verdict", "check_orientation", "findings_of_orientation"]
