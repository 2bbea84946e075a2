"""Damaged files through every reader: each gives a result or a reason, no traceback, no hang, not all of the memory."""
