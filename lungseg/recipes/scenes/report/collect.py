"""The evaluation of a checkpoint on all data that are there: whole scans, and nodules of tested patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lungseg.dataset.layout import CaseFiles, open_data_set
from lungseg.errors import DataSetError, LungSegError
from lungseg.evaluation.evaluate import outline_case
from lungseg.evaluation.metrics import summarise
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.manifest import CorpusManifest, read_corpus_manifest
from lungseg.recipes.scenes.nodules import NoduleScore
from lungseg.recipes.scenes.report import panels
from lungseg.recipes.scenes.report.panels import Panel
from lungseg.records.scores import CaseScore, Summary
from lungseg.segmentation.card import ModelCard, read_card
from lungseg.segmentation.segmenter import Segmenter

MOST_FAILURES = 6

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """The data for an evaluation.

    Attributes:
        data: folder of the sources of presets of scenes; it need not exist.
        demo: the demo scan with its reference mask, from which no checkpoint learns; None where it is not installed.
    """

    data: Path
    demo: CaseFiles | None


@dataclass(frozen=True, slots=True, eq=False)
class ScanPart:
    """A whole scan, segmented now.

    Attributes:
        score: of the checkpoint.
        is_unseen: whether the checkpoint has certainly not learned from it.
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
        missed: a picture of each with Dice 0, largest first.
    """

    scores: tuple[NoduleScore, ...]
    examples: Mapping[str, Panel]
    missed: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        card: of the checkpoint, with the scores of its folds.
        device: where it ran.
        scans: whole scans, segmented now.
        nodules: those of the patients tested; None where there are none.
        remarks: sentences about what is missing, and why.
        is_complete: whether all scans could be scored.
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
        names = {score.case for score in of_card}
        now = (part.score for part in self.scans if part.is_unseen)
        return (*of_card, *(score for score in now if score.case not in names))

    @property
    def summary(self) -> Summary:
        """The summary of the unseen scans."""
        return summarise(self.unseen)

    @property
    def worst(self) -> ScanPart | None:
        """The scan with the most false lesions; among equals the one outlined worst."""
        return max(self.scans, key=lambda part: (part.score.false_lesions, -part.score.dice), default=None)

    @property
    def failures(self) -> tuple[Panel, ...]:
        """Pictures of failures: false lesions, of unseen scans first, and nodules missed; six at most."""
        ordered = sorted(self.scans, key=lambda part: not part.is_unseen)
        false = [tile for part in ordered for tile in part.false_lesions]
        missed = list(self.nodules.missed if self.nodules else ())
        missed = missed[: max(MOST_FAILURES // 2, MOST_FAILURES - len(false))]
        return (*false[: MOST_FAILURES - len(missed)], *missed)


def gather(weights: Path, inputs: EvaluationInputs, *, device: str = "auto", on_step: OnStep) -> Evaluation:
    """Evaluate a checkpoint on all data that are there; a remark names what is missing or can't be scored.

    Args:
        weights: of the checkpoint.
        inputs: the data.
        device: `auto`, `cpu` or `cuda`.
        on_step: called with the name of the next step.

    Raises:
        CheckpointError: card or weights are damaged, or the device is not there.
    """
    remarks: list[str] = []
    manifest = read_corpus_manifest(inputs.data)
    card, segmenter = read_card(weights), Segmenter.load(str(weights), models=weights.parent, device=device)
    scans, failed = [], 0
    for pair, is_unseen in _scans(card, inputs, manifest, remarks):
        on_step(f"segmenting {pair.case}")
        try:
            case = outline_case(pair, segmenter)
            scans.append(ScanPart(case.score, is_unseen, panels.most_tumour(case), panels.false_lesions(case)))
        except LungSegError as error:
            failed += 1
            remarks.append(f"{pair.case} could not be scored. {error}")
    on_step("scoring nodules of the patients tested")
    return Evaluation(
        card=card,
        device=str(segmenter.device),
        scans=tuple(scans),
        nodules=_nodule_part(segmenter, inputs.data / manifest.crops.folder, remarks),
        remarks=tuple(remarks),
        is_complete=not failed,
    )


def _scans(
    card: ModelCard, inputs: EvaluationInputs, manifest: CorpusManifest, remarks: list[str]
) -> list[tuple[CaseFiles, bool]]:
    """List whole scans with reference masks, and whether the checkpoint has certainly not learned from them."""
    if not inputs.demo:
        remarks.append("The demo scan is not there: run `lungseg demo`, then this again.")
    try:
        labelled = open_data_set(inputs.data / manifest.scans.folder).labelled
    except DataSetError as error:
        remarks.append(f"No labelled scans. {error}")
        labelled = ()
    unseen = {*card.training.held_out_patients, *card.training.tested_patients}
    demo = [(inputs.demo, True)] if inputs.demo else []
    return demo + [(pair, manifest.patient_of(pair.case) in unseen) for pair in labelled]


def _nodule_part(segmenter: Segmenter, folder: Path, remarks: list[str]) -> NodulePart | None:
    rule = segmenter.card.rule
    if not segmenter.card.training.tested_patients:
        remarks.append("No nodules: the card names no test patients.")
        return None
    try:
        pairs = zip(*nodules.predict_folder(folder, segmenter, only_tested=True), strict=True)
    except DataSetError as error:
        remarks.append(f"No nodules. {error}")
        return None
    scored = [(nodules.score_nodule(crop, probability, rule), crop, probability) for crop, probability in pairs]
    scored.sort(key=lambda nodule: (-nodule[0].dice, nodule[0].extent_mm))

    def tile(number: int, word: str) -> Panel:
        score, crop, probability = scored[number]
        dice = "" if word == "missed" else f"Dice {score.dice:.2f}, "
        return panels.nodule(
            crop, probability, rule.threshold, f"{score.patient}: {word}, {dice}{score.extent_mm:.0f} mm"
        )

    examples = {"best": 0, "median": len(scored) // 2, "worst": len(scored) - 1}
    return NodulePart(
        scores=tuple(score for score, _, _ in scored),
        examples={word: tile(number, word) for word, number in examples.items()},
        missed=tuple(tile(number, "missed") for number in reversed(range(len(scored))) if not scored[number][0].dice),
    )
