"""Runs: a table of all, one in detail, several compared; each `?run=ID` names a chosen one."""

from __future__ import annotations

from lungseg.ui.run_dialogs import run_dialog
from lungseg.ui.run_overview import runs_overview

run_dialog()
runs_overview()
