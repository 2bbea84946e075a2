"""Everything that can be measured of a checkpoint with what is at hand: whole scans, and nodules of tested patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lungseg.dataset.layout import CaseFiles, open_data_set
from lungseg.errors import DataSetError, LungSegError
from lungseg.evaluation.evaluate import outline_case
from lungseg.evaluation.metrics import summarise
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.manifest import CorpusManifest, read_manifest
from lungseg.recipes.scenes.nodules import NoduleScore
from lungseg.recipes.scenes.report import panels
from lungseg.recipes.scenes.report.panels import Panel
from lungseg.records import CaseScore, Summary
from lungseg.segmentation.card import ModelCard, read_card
from lungseg.segmentation.segmenter import Segmenter

MOST_FAILURES = 6

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """What a checkpoint is evaluated on.

    Attributes:
        data: folder of the sources that presets of scenes learn from, whether it is there or not.
        demo: the demo scan with its reference mask, that no checkpoint learns from; None where it is not there.
    """

    data: Path
    demo: CaseFiles | None


@dataclass(frozen=True, slots=True, eq=False)
class ScanPart:
    """A whole scan, segmented now.

    Attributes:
        score: of the checkpoint.
        is_unseen: whether the checkpoint has surely not learned from it.
        most_tumour: picture of the slice with most tumour.
        false_lesions: a picture of each, largest first.
    """

    score: CaseScore
    is_unseen: bool
    most_tumour: Panel
    false_lesions: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, eq=False)
class NodulePart:
    """The nodules of the patients tested.

    Attributes:
        scores: of the checkpoint.
        examples: pictures of the best, the median and the worst.
        missed: a picture of each that was not found at all, largest first.
    """

    scores: tuple[NoduleScore, ...]
    examples: Mapping[str, Panel]
    missed: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All that was measured of a checkpoint, with what its card says of its folds.

    Attributes:
        card: of the checkpoint that was evaluated.
        device: where it ran.
        scans: whole scans, segmented now.
        nodules: those of the patients tested; None where they could not be had.
        remarks: sentences about what is missing, and why.
        is_complete: whether all scans that are there could be scored.
    """

    card: ModelCard
    device: str
    scans: tuple[ScanPart, ...]
    nodules: NodulePart | None
    remarks: tuple[str, ...]
    is_complete: bool

    @property
    def unseen(self) -> tuple[CaseScore, ...]:
        """Scores of scans by networks that did not learn from them: the card's, then others segmented now."""
        of_card = self.card.scores.cases
        known = {score.case for score in of_card}
        now = (part.score for part in self.scans if part.is_unseen)
        return (*of_card, *(score for score in now if score.case not in known))

    @property
    def summary(self) -> Summary:
        """What the unseen ones say together."""
        return summarise(self.unseen)

    @property
    def worst(self) -> ScanPart | None:
        """The scan with the most false lesions; among equals the one outlined worst."""
        return max(self.scans, key=lambda part: (part.score.false_lesions, -part.score.dice), default=None)

    @property
    def failures(self) -> tuple[Panel, ...]:
        """Pictures of what goes wrong: false lesions, of unseen scans first, and nodules missed; six at most."""
        ordered = sorted(self.scans, key=lambda part: not part.is_unseen)
        false = [tile for part in ordered for tile in part.false_lesions]
        missed = list(self.nodules.missed if self.nodules else ())
        missed = missed[: max(MOST_FAILURES // 2, MOST_FAILURES - len(false))]
        return (*false[: MOST_FAILURES - len(missed)], *missed)


def gather(weights: Path, material: EvaluationInputs, *, device: str = "auto", on_step: OnStep) -> Evaluation:
    """Measure a checkpoint on all that is at hand; what is missing or can't be scored is left out and said.

    Args:
        weights: of the checkpoint that is evaluated.
        material: on what.
        device: `auto`, `cpu` or `cuda`.
        on_step: told in words what is done next.

    Raises:
        CheckpointError: card or weights are damaged, or the device is not there.
    """
    remarks: list[str] = []
    manifest = read_manifest(material.data)
    card, segmenter = read_card(weights), Segmenter.load(str(weights), models=weights.parent, device=device)
    scans, failed = [], 0
    for pair, is_unseen in _scans(card, material, manifest, remarks):
        on_step(f"segmenting {pair.case}")
        try:
            scans.append(_scan_part(pair, segmenter, is_unseen=is_unseen))
        except LungSegError as error:
            failed += 1
            remarks.append(f"{pair.case} could not be scored. {error}")
    on_step("scoring nodules of the patients tested")
    return Evaluation(
        card=card,
        device=str(segmenter.device),
        scans=tuple(scans),
        nodules=_nodule_part(segmenter, material.data / manifest.crops.folder, remarks),
        remarks=tuple(remarks),
        is_complete=not failed,
    )


def _scans(
    card: ModelCard, material: EvaluationInputs, manifest: CorpusManifest, remarks: list[str]
) -> list[tuple[CaseFiles, bool]]:
    """List whole scans with reference masks, each with whether the checkpoint has surely not learned from it."""
    found = []
    if material.demo:
        found.append((material.demo, True))
    else:
        remarks.append("The demo scan is not there: run `lungseg demo`, then this again.")
    try:
        labelled = open_data_set(material.data / manifest.scans.folder).labelled
    except DataSetError as error:
        remarks.append(f"No labelled scans. {error}")
        labelled = ()
    unseen = {*card.training.held_out_patients, *card.training.tested_patients}
    return found + [(pair, manifest.patient_of(pair.case) in unseen) for pair in labelled]


def _scan_part(pair: CaseFiles, segmenter: Segmenter, *, is_unseen: bool) -> ScanPart:
    outlined = outline_case(pair, segmenter)
    return ScanPart(outlined.score, is_unseen, panels.most_tumour(outlined), panels.false_lesions(outlined))


def _nodule_part(segmenter: Segmenter, folder: Path, remarks: list[str]) -> NodulePart | None:
    rule = segmenter.card.rule
    if not segmenter.card.training.tested_patients:
        remarks.append("No nodules: the card names no patients that were left for testing.")
        return None
    try:
        pairs = zip(*nodules.predict_folder(folder, segmenter, only_tested=True), strict=True)
    except DataSetError as error:
        remarks.append(f"No nodules. {error}")
        return None
    scored = [(nodules.score_nodule(crop, probability, rule), crop, probability) for crop, probability in pairs]
    scored.sort(key=lambda each: (-each[0].dice, each[0].extent_mm))

    def tile(at: int, word: str) -> Panel:
        score, crop, probability = scored[at]
        figures = (
            f"{score.extent_mm:.0f} mm" if word == "missed" else f"Dice {score.dice:.2f}, {score.extent_mm:.0f} mm"
        )
        return panels.nodule(crop, probability, rule.threshold, f"{score.patient}: {word}, {figures}")

    places = {"best": 0, "median": len(scored) // 2, "worst": len(scored) - 1}
    missed = [at for at in reversed(range(len(scored))) if scored[at][0].dice == 0]
    return NodulePart(
        scores=tuple(score for score, _, _ in scored),
        examples={word: tile(at, word) for word, at in places.items()},
        missed=tuple(tile(at, "missed") for at in missed),
    )
