"""Training on scenes put together from whole scans, crops and pasted nodules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.contents import Record, fingerprint
from lungseg.recipes.scenes.batches import SceneBatches
from lungseg.recipes.scenes.compositing import SampleComposer
from lungseg.recipes.scenes.corpus import (
    CorpusScan,
    CorpusSplit,
    Crop,
    Nodule,
    Points,
    read_corpus,
    read_record,
    split_corpus,
)
from lungseg.recipes.scenes.manifest import CorpusManifest, read_manifest
from lungseg.recipes.scenes.validation import Validation, false_alarms
from lungseg.records import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.card_contents import Count, DataSource, TrainingRecord
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.batches import Batch, load, suitable_loaders
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.data_module import blank_card
from lungseg.training.loop import ValidationResult
from lungseg.training.presets import ScenePreset

KNOWN_FAILURES = (
    "Trained on few whole scans: heart or diaphragm where a slice cuts their dome, bowel under the diaphragm and "
    "collapsed lung can be marked as tumour, with high probability.",
    "Large tumours, above all those that invade the mediastinum or the chest wall, are outlined in part.",
    "Nodules below about 5 mm, and slices more than 5 mm apart, are hardly represented.",
)


class SceneDataModule:
    """Scenes of the patients learned from; whole scans and crops of the patients held out.

    Args:
        config: what is trained.
        preset: how, with the numbers of the config.
        device: where.

    Attributes:
        steps, shared_prefix_epochs, card, scores, record: see `DataModule`.

    Raises:
        DataSetError: the sources can't be used.
    """

    def __init__(
        self, config: TrainingConfig, preset: ScenePreset, device: torch.device, _callbacks: TrainingCallbacks
    ) -> None:
        split = split_corpus(
            read_corpus(config.data),
            test_share=preset.test_share,
            validation_share=preset.validation_share,
            hold_out=config.hold_out,
        )
        self._train = split.train
        self.record = read_record(config.data)
        self._preset, self._seed, self._device = preset, config.seed, device
        self._loaders = suitable_loaders(device) if config.loaders is None else config.loaders
        self._hard_negatives: dict[int, Points] = {}
        self.steps = preset.optimisation.steps or 1
        self.shared_prefix_epochs = preset.labelled_from - 1
        self.card = replace(
            blank_card(config, preset),
            training=_training(preset, split, config.hold_out),
            data=_sources(read_manifest(config.data), split, self.record),
        )
        self._validation = Validation(split.validation, self.card, device)
        self._epoch = 0
        self.scores: tuple[CaseScore, ...] = ()

    def check_data(self) -> None:
        """Do nothing: all of it is in memory since the run began."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Give the batches of an epoch, from 1 on."""
        self._epoch = epoch
        is_labelled_shown = epoch >= self._preset.labelled_from
        shown = [at for at, scan in enumerate(self._train.scans) if is_labelled_shown or not len(scan.lesion)]
        composer = SampleComposer(self._train, self._preset, scans=shown, hard_negatives=self._hard_negatives)
        scenes = SceneBatches(composer, self._preset, seed=self._seed, epoch=epoch)
        return load(scenes, self._loaders, device=self._device)

    def validate(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Apply a network to what is held out. The later epoch ranks higher: the schedule ends at rate zero.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        scores = self._validation.score(network, should_stop)
        self.scores = scores.cases
        known = [case.dice for case in scores.cases if not np.isnan(case.dice)]
        return ValidationResult(rank=(float(self._epoch),), mean_dice=float(np.mean(known)) if known else None)

    def card_with_scores(self) -> ModelCard:
        """Return the card with the scores of the last `validate`."""
        return self._validation.at(self._validation.latest)

    def mine_hard_negatives(self, network: nn.Module, should_stop: Callable[[], bool]) -> None:
        """Find where the network suspects tumour that is not there: the next epoch shows it more of that."""
        segmenter = Segmenter(network, self.card, self._device)
        found = {number: false_alarms(segmenter, scan, should_stop) for number, scan in enumerate(self._train.scans)}
        self._hard_negatives = {number: points for number, points in found.items() if len(points)}

    def previews(self) -> list[NDArray[np.uint8]]:
        """Draw nothing: most of what is held out are crops."""
        return []

    def select_operating_point(self, network: nn.Module, card: ModelCard, should_stop: Callable[[], bool]) -> ModelCard:
        """Return the card with the operating point at which the network scores best.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        scores = self._validation.best(self._validation.predict(network, should_stop))
        self.scores = scores.cases
        return replace(self._validation.at(scores), training=card.training)


def _training(preset: ScenePreset, split: CorpusSplit, hold_out: tuple[str, ...]) -> TrainingRecord:
    return TrainingRecord(
        optimisation=asdict(preset.optimisation),
        composition=asdict(preset.composition),
        hold_out=hold_out,
        known_failures=KNOWN_FAILURES,
        held_out_patients=split.validation.patients,
        tested_patients=split.test.patients,
    )


def _sources(manifest: CorpusManifest, split: CorpusSplit, record: Record) -> tuple[DataSource, ...]:
    """Say for the card what was learned from, held out and tested of each folder."""
    return tuple(
        DataSource(
            folder=source.folder,
            attribution=source.attribution,
            licence=source.licence,
            fingerprint=_fingerprint(source.folder, record),
            trained_on=_counted(getattr(split.train, kind)),
            held_out=_counted(getattr(split.validation, kind)),
            tested=_counted(getattr(split.test, kind)),
        )
        for kind, source in zip(("scans", "crops", "nodules"), manifest.sources, strict=True)
    )


def _fingerprint(folder: str, record: Record) -> str:
    """Hash what came from a folder of the corpus."""
    return fingerprint(
        f"{name} {part} {content}"
        for name, parts in record.items()
        if name.startswith(f"{folder}/")
        for part, content in parts.items()
    )


def _counted(items: Sequence[CorpusScan | Nodule | Crop]) -> Count:
    return Count(items=len(items), patients=len({item.patient for item in items}))
