"""Training on the slices of a data set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.contents import listed
from lungseg.dataset.findings import DataSetFinding, has_errors
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.lint import lint, of_split
from lungseg.dataset.split import Split, joined, read_split, split_cases
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
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.batches import Batch, load, suitable_loaders
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.data_module import CHOSEN_ON_THESE, blank_card
from lungseg.training.loop import ValidationResult
from lungseg.training.presets import SlicePreset
from lungseg.training.sampling import SliceTable
from lungseg.training.slice_validation import SliceValidation, select_operating_point
from lungseg.training.slices import SliceBatches
from lungseg.wording import counted

MOST_NAMED = 5


class SliceDataModule:
    """Slices of the cases learned from, drawn by weight and bent; whole volumes of the cases held out.

    A data set folder is made a slice store first, or its store is brought up to date.

    Args:
        order: what is trained.
        preset: how, with the numbers of the order.
        device: where.
        listener: told how preparation goes.

    Attributes:
        table: the slices learned from.
        steps, shared_epochs, card, scores, record: see `course.Course`.

    Raises:
        DataSetError: something stands against training on these data.
        StorageError: the store can't be written.
        RunCancelledError: the listener said so during preparation.
    """

    shared_epochs = 0

    def __init__(
        self, order: TrainingConfig, preset: SlicePreset, device: torch.device, listener: TrainingCallbacks
    ) -> None:
        _check_size(preset)
        store = open_store(order, listener)
        split = split_store(store, order)
        known = {case.case: case for case in store.cases}
        self._seen = tuple(known[case] for case in split.train)
        self._held_out = tuple(known[case] for case in split.validation)
        self._order, self._preset, self._device, self._on_notice = order, preset, device, listener.on_notice
        self._noticed: set[str] = set()
        self.record = {case.case: case.record for case in (*self._seen, *self._held_out)}
        check_arrays((*self._seen, *self._held_out))
        self._loaders = suitable_loaders(device) if order.loaders is None else order.loaders
        self.table = SliceTable.of(self._seen, preset.skip_slices)
        self.steps = len(self._epoch(1))
        self.card = replace(blank_card(order, preset), training=self._training(), data=(self._source(store),))
        self._validation = SliceValidation(self._held_out, preset, threshold=self.card.threshold, device=device)
        self.scores = self._validation.scores
        listener.on_start(
            f"{counted(len(self._seen), 'case')} to learn from with {counted(len(self.table), 'slice')}, "
            f"{int(self.table.has_tumour.sum())} of them with tumour: each of these weighs "
            f"{self.table.tumour_weight:.1f}, so that {self.table.tumour_share:.0%} of those shown hold tumour. "
            f"{counted(len(self._held_out), 'case')} held out."
        )

    def check_data(self) -> None:
        """Check that the slices are those that were prepared; of a change in the data set itself notice is given.

        Raises:
            DataChangedError: somebody has changed or prepared the store anew.
        """
        check_arrays((*self._seen, *self._held_out))
        changed = [each for each in changed_sources((*self._seen, *self._held_out)) if each not in self._noticed]
        if changed:
            self._noticed.update(changed)
            self._on_notice(
                f"The data set has changed since its slices were prepared ({listed(tuple(changed))}): the run goes on "
                "with these slices. Prepare it and start a new run to learn from the change."
            )

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Give the batches of an epoch, from 1 on."""
        return load(self._epoch(epoch), self._loaders, device=self._device)

    def judge(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Apply a network to all slices of the cases held out.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        verdict = self._validation.judge(network, should_stop)
        self.scores = self._validation.scores
        return verdict

    def judged(self) -> ModelCard:
        """Return the card with the scores at the network's resolution."""
        return replace(self.card, scores=self._report("network"))

    def learn_from(self, network: nn.Module, should_stop: Callable[[], bool]) -> None:
        """Do nothing: which slices are shown does not depend on what the network says of them."""

    def examples(self) -> list[NDArray[np.uint8]]:
        """Draw a slice of each of the first cases held out."""
        return self._validation.examples

    def calibrated(self, network: nn.Module, card: ModelCard, should_stop: Callable[[], bool]) -> ModelCard:
        """Choose the operating point on the scans held out and score the network on them as `lungseg evaluate` does.

        Where not one of the scans can be segmented, or one of them has changed, the scores at the network's resolution
        stay.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        self.check_data()
        if changed_sources(self._held_out):
            return card
        point = select_operating_point(network, card, self._held_out, self._device, should_stop)
        chosen = replace(card, threshold=point.threshold, min_lesion_ml=point.min_ml)
        pairs = [case.pair for case in self._held_out]
        segmenter = Segmenter(copy.deepcopy(network), chosen, self._device)
        scores, _ = evaluate(pairs, segmenter, should_stop=should_stop)
        if not scores:
            return card
        self.scores = scores
        return replace(chosen, scores=self._report("scan"))

    def _epoch(self, epoch: int) -> SliceBatches:
        return SliceBatches(self._seen, self.table, self._preset, seed=self._order.seed, epoch=epoch)

    def _training(self) -> dict[str, Any]:
        return {
            "schedule": asdict(self._preset.schedule),
            "warp": asdict(self._preset.warp),
            "skip_slices": self._preset.skip_slices,
            "tumour_weight": self.table.tumour_weight,
            "tumour_share": self.table.tumour_share,
            "cases": [case.case for case in self._seen],
            "held_out_cases": [case.case for case in self._held_out],
            "split": _split_of(self._order),
            "contents": self.record,
        }

    def _source(self, store: SliceStore) -> dict[str, Any]:
        return {
            "folder": store.data_set.name,
            "attribution": store.data_set.name,
            "licence": store.data_set.licence or "unknown",
            "path": str(store.data_set.root),
            "fingerprint": store.fingerprint,
            "trained_on": _counted(self._seen),
            "held_out": _counted(self._held_out),
        }

    def _report(self, resolution: str) -> dict[str, Any]:
        return {
            "note": CHOSEN_ON_THESE,
            "resolution": resolution,
            "cases": [score.report() for score in self.scores],
            "summary": summarise(self.scores, failed=len(self._held_out) - len(self.scores)).report(),
        }


def open_store(order: TrainingConfig, listener: TrainingCallbacks) -> SliceStore:
    """Open the slice store of an order, or make that of its data set.

    Raises:
        DataSetError: the data are neither.
        StorageError: the store can't be written.
        RunCancelledError: the listener said so.
    """
    if is_store(order.data):
        return SliceStore.open(order.data)
    return prepare(
        open_data_set(order.data, order.tumour_class),
        order.store or order.output / "store",
        on_progress=listener.on_progress,
        should_stop=listener.should_stop,
    )


def split_store(store: SliceStore, order: TrainingConfig) -> Split:
    """Divide a store as ordered; what stands against training is refused.

    Raises:
        DataSetError: an error of the data set, or no split can be made.
    """
    given = read_split(order.split) if order.split else None
    _refuse_errors(lint(store.data_set, store.facts, given, store.alike))
    cases = joined(store.cases, store.alike)
    split = split_cases(cases, folds=order.folds, fold=order.fold, seed=order.drawn_by, given=given)
    _refuse_errors(of_split(store.facts, split, store.alike))
    return split


def _refuse_errors(findings: tuple[DataSetFinding, ...]) -> None:
    if has_errors(findings):
        raise DataSetError(_said(findings), "Repair the data set (`lungseg lint` lists all of it), then train again.")


def _split_of(order: TrainingConfig) -> dict[str, Any]:
    """Say for the card how the patients were divided."""
    if order.split:
        return {"file": order.split.name}
    return {"folds": order.folds, "fold": order.fold, "seed": order.drawn_by}


def _said(findings: tuple[DataSetFinding, ...]) -> str:
    errors = [finding for finding in findings if finding.is_error]
    named = "; ".join(f"{finding.case or 'all'}: {finding.found}" for finding in errors[:MOST_NAMED])
    more = f" and {len(errors) - MOST_NAMED} more" if len(errors) > MOST_NAMED else ""
    stand = "stands" if len(errors) == 1 else "stand"
    return f"{counted(len(errors), 'finding')} {stand} against training on it: {named}{more}"


def _check_size(preset: SlicePreset) -> None:
    if preset.preprocessing.size != CANVAS.size:
        raise DataSetError(
            f"The preset {preset.name!r} wants slices of {preset.preprocessing.size} px; "
            f"a store holds them with {CANVAS.size}.",
            f"Give the preset a canvas of {CANVAS.size} px.",
        )
    if preset.preprocessing.finest_mm != CANVAS.finest_mm:
        raise DataSetError(
            f"The preset {preset.name!r} wants pixels of {preset.preprocessing.finest_mm} mm or more; "
            "the slices of a store fill their canvas.",
            f"Give the preset a `finest_mm` of {CANVAS.finest_mm}.",
        )


def _counted(cases: tuple[StoredCase, ...]) -> dict[str, int]:
    slices = sum(len(case.slice_tumour_px) for case in cases)
    return {"items": len(cases), "patients": len({case.patient for case in cases}), "slices": slices}
