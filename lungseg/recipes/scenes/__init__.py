"""The recipe of the shipped checkpoint: synthetic samples composed of real scans and nodules."""
