"""Orientation by the body: front and back, left and right, head and feet, from the voxels alone."""
