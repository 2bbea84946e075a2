"""Presets for tests: files as users add them, so that every process of an installation finds them under its home."""

import shutil
from pathlib import Path

SMALL_PRESETS = Path(__file__).with_name("small_presets")


def install_presets(home: Path) -> None:
    """Put the presets for tests into an installation."""
    shutil.copytree(SMALL_PRESETS, home / "presets", dirs_exist_ok=True)
