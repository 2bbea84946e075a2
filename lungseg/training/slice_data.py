"""Training on the slices of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.contents import first_few
from lungseg.dataset.findings import DataSetFinding
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.lint import lint, of_split
from lungseg.dataset.split import Split, read_split, split_cases
from lungseg.dataset.store import (
    CANVAS,
    SliceStore,
    StoredCase,
    changed_sources,
    check_arrays,
    is_store,
    prepare,
)
from lungseg.errors import DataSetError
from lungseg.evaluation.evaluate import evaluate
from lungseg.evaluation.metrics import summarise
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.card_contents import CardScores, Count, DataSource, SplitRecord, TrainingRecord
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.batches import Batch, load, suitable_loaders
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.data_module import CHOSEN_ON_THESE, blank_card
from lungseg.training.loop import ValidationResult
from lungseg.training.presets import SlicePreset
from lungseg.training.slice_validation import SliceValidation, select_operating_point
from lungseg.training.slices import SliceBatches, SliceTable
from lungseg.wording import counted


class SliceDataModule:
    """Slices of the training cases, drawn by weight and augmented; whole volumes of the cases held out.

    The slice store of a data set folder is prepared first, or brought up to date.

    Attributes:
        table: the slices of the training cases.
        steps, shared_prefix_epochs, card, scores, record: see `DataModule`.

    Raises:
        DataSetError: the preset or the data set can't be used.
        StorageError: the store can't be written.
        RunCancelledError: stopped during preparation.
    """

    shared_prefix_epochs = 0

    def __init__(
        self, config: TrainingConfig, preset: SlicePreset, device: torch.device, callbacks: TrainingCallbacks
    ) -> None:
        _check_preprocessing(preset)
        store = open_store(config, callbacks)
        split = split_store(store, config)
        by_name = {case.case: case for case in store.cases}
        self._train = tuple(by_name[case] for case in split.train)
        self._validation = tuple(by_name[case] for case in split.validation)
        self._cases = (*self._train, *self._validation)
        self._config, self._preset, self._device, self._on_notice = config, preset, device, callbacks.on_notice
        self._reported: set[str] = set()
        self.record = {case.case: case.record for case in self._cases}
        check_arrays(self._cases)
        self._loaders = suitable_loaders(device) if config.loaders is None else config.loaders
        self.table = SliceTable.of(self._train, preset.skip_slices)
        self.steps = len(self._epoch(1))
        self.card = replace(blank_card(config, preset), training=self._training(), data=(self._source(store),))
        self._validator = SliceValidation(self._validation, preset, card=self.card, device=device)
        self.scores = self._validator.scores
        callbacks.on_start(
            f"{counted(len(self._train), 'case')} to learn from with {counted(len(self.table), 'slice')}, "
            f"{int(self.table.has_tumour.sum())} of them with tumour: each of these weighs "
            f"{self.table.positive_weight:.1f}, so that {self.table.tumour_share:.0%} of those shown hold tumour. "
            f"{counted(len(self._validation), 'case')} held out."
        )

    def check_data(self) -> None:
        """Raise DataChangedError where the store has changed; a change of the data set itself is a notice."""
        check_arrays(self._cases)
        changed = [change for change in changed_sources(self._cases) if change not in self._reported]
        if changed:
            self._reported.update(changed)
            self._on_notice(
                f"The data set has changed since its slices were prepared ({first_few(changed)}): the run goes on "
                "with these slices. Prepare it and start a new run to learn from the change."
            )

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from 1 on."""
        return load(self._epoch(epoch), self._loaders, device=self._device)

    def validate(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Apply a network to all slices of the cases held out; raises RunCancelledError where `should_stop` says so."""
        result = self._validator.validate(network, should_stop)
        self.scores = self._validator.scores
        return result

    def card_with_scores(self) -> ModelCard:
        """Return the card with the scores at the network's resolution."""
        return replace(self.card, scores=self._scores("network"))

    def mine_hard_negatives(self, network: nn.Module, should_stop: Callable[[], bool]) -> None:
        """Do nothing: the slices of an epoch do not depend on the network."""

    def previews(self) -> list[NDArray[np.uint8]]:
        """Draw a slice of each of the first cases held out."""
        return self._validator.previews

    def select_operating_point(self, network: nn.Module, card: ModelCard, should_stop: Callable[[], bool]) -> ModelCard:
        """Choose the operating point on the scans held out and score the network on them as `lungseg evaluate` does.

        Where none of the scans can be segmented, or one of them has changed, the card stays as it is, with the scores
        at the network's resolution.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        self.check_data()
        if changed_sources(self._validation):
            return card
        rule = select_operating_point(network, card, self._validation, self._device, should_stop)
        new_card = replace(card, threshold=rule.threshold, min_lesion_ml=rule.min_lesion_ml)
        pairs = [case.pair for case in self._validation]
        scores, _ = evaluate(pairs, Segmenter(network, new_card, self._device), should_stop=should_stop)
        if not scores:
            return card
        self.scores = scores
        return replace(new_card, scores=self._scores("scan"))

    def _epoch(self, epoch: int) -> SliceBatches:
        return SliceBatches(self._train, self.table, self._preset, seed=self._config.seed, epoch=epoch)

    def _training(self) -> TrainingRecord:
        return TrainingRecord(
            optimisation=asdict(self._preset.optimisation),
            augmentation=asdict(self._preset.augmentation),
            skip_slices=self._preset.skip_slices,
            tumour_weight=self.table.positive_weight,
            tumour_share=self.table.tumour_share,
            cases=tuple(case.case for case in self._train),
            held_out_cases=tuple(case.case for case in self._validation),
            split=_split_record(self._config),
            contents=self.record,
        )

    def _source(self, store: SliceStore) -> DataSource:
        return DataSource(
            folder=store.data_set.name,
            attribution=store.data_set.name,
            licence=store.data_set.licence or "unknown",
            path=str(store.data_set.root),
            fingerprint=store.fingerprint,
            trained_on=_counted(self._train),
            held_out=_counted(self._validation),
        )

    def _scores(self, resolution: str) -> CardScores:
        return CardScores(
            note=CHOSEN_ON_THESE,
            resolution=resolution,
            cases=self.scores,
            summary=summarise(self.scores, failed=len(self._validation) - len(self.scores)),
        )


def open_store(config: TrainingConfig, callbacks: TrainingCallbacks) -> SliceStore:
    """Open the slice store of a config, or prepare that of its data set; raises as `open_data_set` and `prepare`."""
    if is_store(config.data):
        return SliceStore.open(config.data)
    return prepare(
        open_data_set(config.data, config.tumour_class),
        config.store or config.output / "store",
        on_progress=callbacks.on_progress,
        should_stop=callbacks.should_stop,
    )


def split_store(store: SliceStore, config: TrainingConfig) -> Split:
    """Split a store as its config says; raises DataSetError where the data set has an error, or none can be made."""
    fixed = read_split(config.split) if config.split else None
    _refuse_errors(lint(store.data_set, store.facts, fixed, store.alike))
    split = split_cases(
        store.cases,
        store.alike,
        folds=config.folds,
        fold=config.fold,
        seed=config.effective_split_seed,
        fixed=fixed,
    )
    _refuse_errors(of_split(store.facts, split, store.alike))
    return split


def _refuse_errors(findings: tuple[DataSetFinding, ...]) -> None:
    errors = [finding for finding in findings if finding.is_error]
    if errors:
        first = first_few([f"{finding.case or 'all'}: {finding.found}" for finding in errors])
        prevent = "prevents" if len(errors) == 1 else "prevent"
        raise DataSetError(
            f"{counted(len(errors), 'finding')} {prevent} training: {first}",
            "Repair the data set (`lungseg lint` lists all of it), then train again.",
        )


def _split_record(config: TrainingConfig) -> SplitRecord:
    if config.split:
        return SplitRecord(file=config.split.name)
    return SplitRecord(folds=config.folds, fold=config.fold, seed=config.effective_split_seed)


def _check_preprocessing(preset: SlicePreset) -> None:
    if preset.preprocessing.size != CANVAS.size:
        raise DataSetError(
            f"The preset {preset.name!r} needs slices of {preset.preprocessing.size} px; "
            f"those of a store have {CANVAS.size}.",
            f"Give the preset a canvas of {CANVAS.size} px.",
        )
    if preset.preprocessing.finest_mm != CANVAS.finest_mm:
        raise DataSetError(
            f"The preset {preset.name!r} needs pixels of {preset.preprocessing.finest_mm} mm or more; "
            "the slices of a store fill their canvas.",
            f"Give the preset a `finest_mm` of {CANVAS.finest_mm}.",
        )


def _counted(cases: tuple[StoredCase, ...]) -> Count:
    slices = sum(len(case.slice_tumour_px) for case in cases)
    return Count(items=len(cases), patients=len({case.patient for case in cases}), slices=slices)
