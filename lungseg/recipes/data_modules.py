"""The data module of each kind of preset, for `training.fit`."""

from __future__ import annotations

from collections.abc import Mapping

from lungseg.recipes.scenes.data_module import SceneDataModule
from lungseg.training.data_module import DataModuleFactory
from lungseg.training.slice_data import SliceDataModule

DATA_MODULES: Mapping[str, DataModuleFactory] = {"slices": SliceDataModule, "scenes": SceneDataModule}
