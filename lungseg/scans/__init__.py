"""Scans: geometry and volume, readers and writers, lungs, and what a reader should know of a scan."""
