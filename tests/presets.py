"""Presets for tests: files as users add them, so that every process of an installation finds them under its home."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

SMALL_PRESETS = Path(__file__).with_name("small_presets")


def install_presets(home):
    """Put the presets for tests into an installation."""
    shutil.copytree(SMALL_PRESETS, Path(home) / "presets", dirs_exist_ok=True)


def write_preset(folder, preset):
    """Write a preset as a file of its name; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{preset.name}.toml"
    path.write_text(as_toml(preset), encoding="utf-8")
    return path


def as_toml(preset):
    """Write a preset as TOML."""
    values = {key: value for key, value in asdict(preset).items() if key != "name"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, section in values.items():
        if isinstance(section, dict):
            lines += ["", f"[{key}]"]
            lines += [f"{name} = {json.dumps(value)}" for name, value in section.items() if value is not None]
    return "\n".join(lines) + "\n"
