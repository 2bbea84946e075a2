"""Checkpoints against reference masks: metrics, and cases one by one."""
