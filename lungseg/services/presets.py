"""The presets of an installation: those that ship, and files of its users under the home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lungseg.decoding import to_plain
from lungseg.errors import LungSegError
from lungseg.files import keys
from lungseg.records.run_configs import TrainConfig
from lungseg.services.installation import Installation
from lungseg.training.presets import AnyPreset
from lungseg.training.presets import files as preset_files


@dataclass(frozen=True, slots=True)
class PresetList:
    """Presets by name, those that ship first; and for each file that can't be used, why."""

    presets: Mapping[str, AnyPreset]
    unusable: tuple[LungSegError, ...]


def list_presets(installation: Installation) -> PresetList:
    """Read all presets; a file that is damaged costs itself alone."""
    presets: dict[str, AnyPreset] = {}
    unusable: list[LungSegError] = []
    for name in preset_files.preset_paths(_folder(installation)):
        try:
            presets[name] = find_installed_preset(installation, name)
        except LungSegError as error:
            unusable.append(error)
    return PresetList(presets, tuple(unusable))


def find_installed_preset(installation: Installation, name: str) -> AnyPreset:
    """Return the preset of this name.

    Raises:
        DataSetError: there is none, or its file can't be used.
    """
    return preset_files.find_preset(name, _folder(installation))


def add_preset(installation: Installation, file_name: str, content: bytes) -> AnyPreset:
    """Keep a preset file; one of the same name is replaced, which changes no run that has begun.

    Raises:
        DataSetError: it can't be called so, or can't be used.
        StorageError: it can't be written.
    """
    preset_files.check_name(file_name)
    preset = preset_files.parse_preset(file_name.removesuffix(preset_files.ENDING), content)
    with installation.files.write(keys.preset(file_name)) as stream:
        stream.write(content)
    return preset


def with_preset_values(installation: Installation, config: TrainConfig) -> TrainConfig:
    """Return a config that holds what its preset holds, so that later changes of the file change no run.

    Raises:
        DataSetError: there is no such preset, or its file can't be used.
    """
    if config.preset_values is not None:
        return config
    return replace(config, preset_values=to_plain(find_installed_preset(installation, config.preset)))


def _folder(installation: Installation) -> Path:
    return installation.files.local(keys.PRESETS)
