"""Runs beside each other: what was set differently, how their scores differ on the same cases, and as CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from lungseg.decoding import JsonObject, to_plain
from lungseg.errors import DataSetError
from lungseg.evaluation.metrics import paired_difference, summarise
from lungseg.files.spreadsheet import csv_table
from lungseg.records.cases import CaseSummary
from lungseg.records.run_configs import TrainConfig
from lungseg.records.run_results import PrepareResult, TrainResult
from lungseg.records.runs import Run, RunSummary
from lungseg.records.scores import CaseScore, PairedDifference, Summary
from lungseg.services.training import preset_of
from lungseg.training.presets import ScenePreset

SCAN_ENDINGS = (".nii.gz", ".nii", "_0000")
ABSENT = "–"
FINGERPRINT = 8
"""Characters of a fingerprint of data that are shown."""
NO_SETTINGS = {"name", "output", "calibration", "operating_points", "folds", "fold", "split", "split_seed"}
"""What a run's config holds beside settings: its name, what the card of its checkpoint says, what `split_of` words."""
NO_SETTINGS_OF_PRESET = {"kind", "name", "summary"}
SAME_VOLUME = 0.05
"""Relative difference in volume up to which two reference masks count as one: a run that was stopped is scored at the
resolution of its network, one that has ended on the scan's own grid."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that is not the same in all runs.

    Attributes:
        name: where it stands, such as `schedule.learning_rate`.
        values: its value in each run, as text; a dash where a run has none.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CasePair:
    """The scores of one case in two runs."""

    case: str
    first: CaseScore
    second: CaseScore

    @property
    def change(self) -> float:
        """Dice in the second run less that in the first; NaN where either has none."""
        return self.second.dice - self.first.dice


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the cases that both have scored.

    Attributes:
        pairs: the cases that both have scored, those that lost most first; without a Dice last.
        first: what the first run's scores on these cases say together.
        second: the same of the second run.
        difference: of Dice, second less first.
    """

    pairs: tuple[CasePair, ...]
    first: Summary
    second: Summary
    difference: PairedDifference

    @property
    def verdict(self) -> str:
        """Say in one word or two which run is better, if either."""
        if not self.difference.pairs:
            return "not comparable"
        if self.difference.is_inside_noise:
            return "inside the noise"
        return "better" if self.difference.mean > 0 else "worse"


def compare(first: Sequence[CaseScore], second: Sequence[CaseScore]) -> Comparison:
    """Set the scores of two runs against each other, case by case.

    A case is the same where name and reference mask are: `lung_001` of another data set, or with a reference mask that
    was drawn anew, is left out.
    """
    before = {score.case: score for score in first}
    same = [score for score in second if score.case in before and _is_same_reference(before[score.case], score)]
    pairs = [CasePair(score.case, before[score.case], score) for score in same]
    pairs.sort(key=lambda pair: (math.isnan(pair.change), pair.change if pair.change == pair.change else 0, pair.case))
    difference = paired_difference(first, same)
    cases = before.keys() | {score.case for score in second}
    return Comparison(
        pairs=tuple(pairs),
        first=summarise([pair.first for pair in pairs]),
        second=summarise([pair.second for pair in pairs]),
        difference=replace(difference, left_out=len(cases) - difference.pairs),
    )


def different_settings(runs: Sequence[Run]) -> tuple[Setting, ...]:
    """List the settings in which runs differ, sorted by name; what they share is left out."""
    flat = [_flat(run) for run in runs]
    names = sorted({name for settings in flat for name in settings})
    rows = (Setting(name, tuple(settings.get(name, ABSENT) for settings in flat)) for name in names)
    return tuple(row for row in rows if len(set(row.values)) > 1)


def split_of(run: Run) -> str:
    """Say who a training run has held out: the fold, or the share that a seed has drawn; empty for other runs.

    In runs of releases up to 0.1 the run's own seed has drawn the split; see `TrainingConfig.split_seed`.
    """
    config = run.config
    if not isinstance(config, TrainConfig) or _is_of_scenes(config):
        return ""
    if config.split:
        return f"as in {config.split.name}"
    seed = run.seed if config.split_seed is None else config.split_seed
    drawn = f"drawn by seed {seed or 0}"
    if config.folds is not None and config.fold is not None:
        return f"fold {config.fold + 1} of {config.folds}, {drawn}"
    return f"a fifth of the patients, {drawn}"


def _is_of_scenes(config: TrainConfig) -> bool:
    try:
        return isinstance(preset_of(config), ScenePreset)
    except DataSetError:  # the preset is gone
        return False


def fingerprint_of(run: Run) -> str:
    """Return by what the content of a run's data is known (sha256); empty where it has noted none."""
    result = run.result
    return result.fingerprint or "" if isinstance(result, TrainResult | PrepareResult) else ""


def worst_first(scores: Sequence[CaseScore]) -> tuple[CaseScore, ...]:
    """Sort scores by Dice, lowest first; cases without a Dice (both masks empty) come last."""
    return tuple(sorted(scores, key=lambda score: (math.isnan(score.dice), score.dice, score.case)))


def viewable(summaries: Sequence[CaseSummary], names: Sequence[str]) -> dict[str, str]:
    """Find the cases of the installation, newest first, that show cases of a data set, such as `lung_001`.

    Returns:
        The id of the newest case of the same name, with or without a scan's ending, for each name that has one.
    """
    case_ids = {bare_name(summary.case.name): summary.case.id for summary in reversed(summaries)}
    return {name: case_ids[bare_name(name)] for name in names if bare_name(name) in case_ids}


def bare_name(name: str) -> str:
    """Strip the ending of a scan's file name, so that `lung_001_0000.nii.gz` is `lung_001`."""
    for ending in SCAN_ENDINGS:
        name = name.removesuffix(ending)
    return name


def runs_csv(summaries: Sequence[RunSummary]) -> str:
    """Write one row for each run, its config in columns."""
    return csv_table(_run_row(summary) for summary in summaries)


def scores_csv(scores: Mapping[str, Sequence[CaseScore]], names: Mapping[str, str]) -> str:
    """Write one row for each case of each run, of scores and names by run id."""
    return csv_table(
        {"run": names[run_id], "run_id": run_id, **to_plain(score)}
        for run_id, scores_of_run in scores.items()
        for score in scores_of_run
    )


def _is_same_reference(first: CaseScore, second: CaseScore) -> bool:
    return math.isclose(first.reference_ml, second.reference_ml, rel_tol=SAME_VOLUME, abs_tol=SAME_VOLUME)


def _run_row(summary: RunSummary) -> JsonObject:
    run = summary.run
    columns = {
        field.name: getattr(run, field.name)
        for field in fields(run)
        if field.name not in {"config", "result", "progress", "failure", "warnings", "tags"}
    }
    return {
        **columns,
        "held_out": split_of(run),
        "tags": " ".join(run.tags),
        "failure": run.failure.found if run.failure else "",
        "epochs": summary.epochs,
        "best_dice": summary.best_dice,
        "validation_loss": summary.validation_loss,
        **{f"configuration.{name}": value for name, value in _flatten(_given_settings(run))},
    }


def _flat(run: Run) -> dict[str, str]:
    facts = {
        "kind": run.kind.value,
        "data set": run.dataset,
        "data set's content": fingerprint_of(run)[:FINGERPRINT] or None,
        "held out": split_of(run) or None,
        "seed": run.seed,
        "device": run.device,
        "code": run.code_version,
    }
    settings = {key: value for key, value in _given_settings(run).items() if key not in NO_SETTINGS}
    if isinstance(run.config, TrainConfig):
        settings["preset_values"] = _settings_of_preset(run.config)
    return {name: _text(value) for name, value in [*_flatten(settings), *facts.items()]}


def _settings_of_preset(config: TrainConfig) -> JsonObject:
    """Return what was set by a run's preset; in runs of releases up to 0.1, by the preset of that name that ships."""
    try:
        values = config.preset_values or to_plain(preset_of(config))
    except DataSetError:  # the preset is gone
        return {}
    return {key: value for key, value in values.items() if key not in NO_SETTINGS_OF_PRESET}


def _given_settings(run: Run) -> JsonObject:
    """Return the settings that the config gives; all others have their defaults."""
    return {key: value for key, value in to_plain(run.config).items() if value not in (None, "", [])}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat += _flatten(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return flat


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value)
