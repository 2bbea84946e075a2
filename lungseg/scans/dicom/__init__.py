"""DICOM in and out: headers, series, stacks of slices, pixels; segmentations, structure sets, reports; identity."""
