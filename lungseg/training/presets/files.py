"""Preset files: TOML that can be copied, changed and trained with; a file is named as its preset.

The product's own lie beside this module, those of an installation under its home. A preset is read whole or refused
with the place of the fault; an unknown setting is refused, too, since it may be a typing error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lungseg.decoding import MOST_TOML_BYTES, decode_value, parse_toml
from lungseg.errors import DataSetError, LungSegError
from lungseg.files.atomic import is_file
from lungseg.training.presets import AnyPreset, ScenePreset, SlicePreset

SHIPPED = Path(__file__).parent
ENDING = ".toml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
KINDS: Mapping[str, type[AnyPreset]] = {"slices": SlicePreset, "scenes": ScenePreset}


def find_preset(name: str, folder: Path | None = None) -> AnyPreset:
    """Return the preset of this name: one that ships, or one of a folder.

    Args:
        name: of the preset.
        folder: of more preset files; it need not be there.

    Raises:
        DataSetError: there is none, or its file can't be used.
    """
    paths = preset_paths(folder)
    if name not in paths:
        raise DataSetError(
            f"There is no preset {name!r}.", f"Choose one of: {', '.join(paths)}; or give the path of a preset file."
        )
    return shipped_presets()[name] if paths[name].parent == SHIPPED else read_preset(paths[name])


def preset_paths(folder: Path | None = None) -> dict[str, Path]:
    """List the files of the presets that ship, then of those in a folder, by name; none takes the place of another."""
    shipped = {path.stem: path for path in sorted(SHIPPED.glob(f"*{ENDING}"))}
    own = {path.stem: path for path in sorted(folder.glob(f"*{ENDING}"))} if folder else {}
    return {**shipped, **{name: path for name, path in own.items() if name not in shipped}}


@cache
def shipped_presets() -> dict[str, AnyPreset]:
    """Return the presets that ship, by name."""
    return {path.stem: parse_preset(path.stem, path.read_bytes()) for path in preset_paths().values()}


def read_preset(path: Path) -> AnyPreset:
    """Read a preset file of a user's.

    Raises:
        DataSetError: it can't be read, has the name of a preset that ships, or holds no preset.
    """
    if not is_file(path):
        raise DataSetError(f"There is no preset file {path}.", "Give the path of one; `lungseg presets` lists names.")
    check_name(path.name)
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_TOML_BYTES + 1)
    except OSError as error:
        raise DataSetError(f"The preset file {path} can't be read ({error.strerror}).", "Check its rights.") from error
    return parse_preset(path.stem, content)


def check_name(file_name: str) -> None:
    """Refuse a file name that no preset of a user's can have.

    Raises:
        DataSetError: its ending is another, it holds odd characters, or a preset that ships has the name.
    """
    name = file_name.removesuffix(ENDING)
    if name == file_name or not NAME.fullmatch(name):
        raise DataSetError(
            f"A preset file can't be called {file_name!r}.",
            f"Call it with up to 48 letters, digits, dots, dashes and underscores, then {ENDING}.",
        )
    if name in preset_paths():
        raise DataSetError(f"The preset {name!r} ships with LungSeg.", "Give the file another name.")


def parse_preset(name: str, content: bytes) -> AnyPreset:
    """Read a preset from the content of its file.

    Args:
        name: of the preset.
        content: TOML, UTF-8, at most 64 KB.

    Raises:
        DataSetError: the content is no preset; the text names the place.
    """
    try:
        values = parse_toml(content, _refusal)
        kind = values.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise _refusal(f"kind: it has to be one of {', '.join(KINDS)}")
        if "name" in values:
            raise _refusal("name: a preset has that of its file")
        preset = decode_value(KINDS[kind], {**values, "name": name}, _refusal)
        if unknown := _unknown_setting(values, preset):
            raise _refusal(unknown)
    except LungSegError as error:
        reason = error.found.rstrip(".")
        raise DataSetError(f"The preset file {name}{ENDING} can't be used ({reason}).", error.remedy) from error
    return preset


def _refusal(reason: str) -> DataSetError:
    return DataSetError(reason, "Compare it with one that ships: `lungseg presets --show baseline`.")


def _unknown_setting(values: Mapping[str, Any], config: Any) -> str:
    """Name the first key that a dataclass does not have, and those that it has; empty where there is none."""
    names = [field.name for field in fields(config)]
    for key, value in values.items():
        if key not in names:
            return f"{key}: there is no such setting; there are {', '.join(sorted(set(names) - {'name'}))}"
        inner = getattr(config, key)
        if is_dataclass(inner) and (unknown := _unknown_setting(value, inner)):
            return f"{key}.{unknown}"
    return ""
