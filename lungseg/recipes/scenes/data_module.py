"""Training on samples composed of whole scans, crops and pasted nodules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.contents import Record, fingerprint
from lungseg.errors import DataSetError
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
from lungseg.recipes.scenes.manifest import CorpusManifest, read_corpus_manifest
from lungseg.recipes.scenes.plans import SyntheticSample
from lungseg.recipes.scenes.validation import Validation, false_alarms
from lungseg.records.scores import CaseScore
from lungseg.scans.canvas import Preprocessing
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


class SceneBatches:
    """The samples of one epoch, counted from 1; batch n depends on seed, epoch and n alone."""

    def __init__(self, composer: SampleComposer, preset: ScenePreset, *, seed: int, epoch: int) -> None:
        self._composer, self._preset, self._seed, self._epoch = composer, preset, seed, epoch

    def __len__(self) -> int:
        """Return the number of steps of the epoch."""
        return self._preset.optimisation.steps or 1

    def __getitem__(self, n: int) -> Batch:
        """Make batch n."""
        if not 0 <= n < len(self):
            raise IndexError(n)
        rng = np.random.default_rng((self._seed, self._epoch, n))
        plans = [self._composer.draw(rng) for _ in range(self._preset.optimisation.batch)]
        return batch_of_samples([self._composer.apply(plan) for plan in plans], self._preset.preprocessing)


def batch_of_samples(samples: Sequence[SyntheticSample], preprocessing: Preprocessing) -> Batch:
    """Scale and stack samples."""
    planes = preprocessing.scale(np.stack([sample.planes for sample in samples]))
    tumour = np.stack([sample.tumour for sample in samples])[:, None].astype(np.float32)
    weight = np.stack([sample.weight for sample in samples])[:, None].astype(np.float32)
    tile = np.stack([sample.tile for sample in samples])[:, None]
    return Batch(*(torch.from_numpy(array) for array in (planes, tumour, weight, tile)))


class SceneDataModule:
    """Samples of the training patients; whole scans and crops of the patients held out.

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
        self._unlabelled = [number for number, scan in enumerate(self._train.scans) if not len(scan.lesion)]
        if preset.labelled_from > 1 and not self._unlabelled:
            raise DataSetError(
                f"Before epoch {preset.labelled_from} only scans without labels are shown, and there are none to show.",
                "Add one, or give the preset a `labelled_from` of 1.",
            )
        self.record = read_record(config.data)
        self._preset, self._seed, self._device = preset, config.seed, device
        self._loaders = suitable_loaders(device) if config.loaders is None else config.loaders
        self._hard_negatives: dict[int, Points] = {}
        self.steps = preset.optimisation.steps or 1
        holds_out_unlabelled = any(not len(scan.lesion) for scan in split.validation.scans)
        self.shared_prefix_epochs = 0 if holds_out_unlabelled else preset.labelled_from - 1
        self.card = replace(
            blank_card(config, preset),
            training=_training(preset, split, config.hold_out),
            data=_sources(read_corpus_manifest(config.data), split, self.record),
        )
        self._validation = Validation(split.validation, self.card, device)
        self._epoch = 0
        self.scores: tuple[CaseScore, ...] = ()

    def check_data(self) -> None:
        """Do nothing: all data are in memory since the run began."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from 1 on."""
        self._epoch = epoch
        scans = None if epoch >= self._preset.labelled_from else self._unlabelled
        composer = SampleComposer(self._train, self._preset, scans=scans, hard_negatives=self._hard_negatives)
        scenes = SceneBatches(composer, self._preset, seed=self._seed, epoch=epoch)
        return load(scenes, self._loaders, device=self._device)

    def validate(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Score a network on the patients held out. The later epoch ranks higher: the schedule ends at rate zero."""
        scores = self._validation.score(network, should_stop)
        self.scores = scores.cases
        dices = [case.dice for case in scores.cases if not np.isnan(case.dice)]
        return ValidationResult(rank=(float(self._epoch),), mean_dice=float(np.mean(dices)) if dices else None)

    def card_with_scores(self) -> ModelCard:
        """Return the card with the scores of the last `validate`."""
        return self._validation.card_with(self._validation.latest)

    def mine_hard_negatives(self, network: nn.Module, should_stop: Callable[[], bool]) -> None:
        """Find where the network suspects tumour that is not there: the next epoch shows more of these places."""
        segmenter = Segmenter(network, self.card, self._device)
        points = {number: false_alarms(segmenter, scan, should_stop) for number, scan in enumerate(self._train.scans)}
        self._hard_negatives = {number: negatives for number, negatives in points.items() if len(negatives)}

    def previews(self) -> list[NDArray[np.uint8]]:
        """Draw nothing: most cases held out are crops."""
        return []

    def select_operating_point(self, network: nn.Module, card: ModelCard, should_stop: Callable[[], bool]) -> ModelCard:
        """Return the card with the operating point at which the network scores best."""
        scores = self._validation.best(self._validation.predict(network, should_stop))
        self.scores = scores.cases
        return replace(self._validation.card_with(scores), training=card.training)


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
    """Count for the card the items for training, validation and test of each folder."""
    return tuple(
        DataSource(
            folder=source.folder,
            attribution=source.attribution,
            licence=source.licence,
            fingerprint=fingerprint(
                f"{name} {part} {content}"
                for name, parts in record.items()
                if name.startswith(f"{source.folder}/")
                for part, content in parts.items()
            ),
            trained_on=_counted(getattr(split.train, kind)),
            held_out=_counted(getattr(split.validation, kind)),
            tested=_counted(getattr(split.test, kind)),
        )
        for kind, source in zip(("scans", "crops", "nodules"), manifest.sources, strict=True)
    )


def _counted(items: Sequence[CorpusScan | Nodule | Crop]) -> Count:
    return Count(items=len(items), patients=len({item.patient for item in items}))
