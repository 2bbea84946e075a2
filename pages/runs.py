"""Runs: all of them in a table; one in detail, several compared; each `?run=ID` names one that is chosen."""

from __future__ import annotations

from lungseg.ui.run_dialogs import pending_dialog
from lungseg.ui.run_overview import runs_overview

pending_dialog()
runs_overview()
