"""Words that may not come back: the field has a term for each. docs/architecture.md has the list."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from lungseg.config import PACKAGE

INSTEAD = {
    "TrainingOrder": "TrainingConfig",
    "train_order": "fit",
    "Listener": "TrainingCallbacks",
    "Course": "DataModule",
    "Learner": "Optimisation",
    "Standing": "TrainingProgress",
    "LearnerState": "Snapshot",
    "Schedule": "OptimisationConfig",
    "Warp": "SpatialAugmentation",
    "SceneMaker": "SampleComposer",
    "SceneMix": "CompositionConfig",
    "Look": "IntensityAugmentation",
    "Pose": "Placement",
    "Paste": "PastedLesion",
    "Pulse": "Heartbeat",
    "Lost": "StaleRuns",
    "take_back": "requeue_stale",
    "give_back": "release",
    "insist": "a recorder with the retry inside",
    "RunGoesOnError": "RunActiveError",
    "Offer": "PromotionCandidate",
    "Station": "PromotionRecord",
    "Operation": "ThresholdState",
    "Reading": "LoadedCase",
    "Pair": "CaseFiles",
    "Material": "EvaluationInputs",
    "hang": "to_display",
    "unhang": "from_display",
    "shrink": "to_canvas",
    "grow": "from_canvas",
    "CERTAIN": "UINT8_ONE",
    "level_of": "to_uint8_level",
    "outlines_at": "LesionRule.apply",
    "longest_gradient": "max_grad_norm",
    "uptake": "contrast_uptake",
    "decoy": "negative_paste",
    "learn_from": "mine_hard_negatives",
    "judged": "card_with_scores",
    "shared_epochs": "shared_prefix_epochs",
    "false_lesions_a_scan": "false_positives_per_scan",
    "share_of_zeros": "fraction_dice_zero",
    "ensure_worker": "Executor.wake",
    "lifeline_number": "inherited_lifeline",
}
"""Old names, and those of today."""
NO_NOUN = re.compile(r"_*(asked|at|both|each|found|given|held|it|kept|known|made|one|said|seen|told|wanted)")
"""Says nothing as the name of a variable, parameter, attribute or function."""
IN_FILES = {"at", "found", "seen"}
"""Keys of files (promotions; failures, cards and reports; the atlas), and so fields."""
OF_OLDER_FILES = {"false_lesions_a_scan", "share_of_zeros"}
"""Texts in code that reads files of older releases; they are no names there."""
ROLES = {"job"}
"""Functions that several modules define because each plays the same part: what a kind of run executes."""
MODULES = sorted(PACKAGE.rglob("*.py"))


def names_in(path: Path) -> set[str]:
    """Return the names that a module defines or uses, but not its texts."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name):
                names.add(name)
            case ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
    return names


def test_old_words_do_not_come_back():
    back = {name: path.name for path in MODULES for name in names_in(path) & INSTEAD.keys()}
    assert {name: (path, INSTEAD[name]) for name, path in back.items()} == {}


def defined_in(path: Path) -> set[str]:
    """Return the names of variables, fields, parameters, attributes and functions that a module defines."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.arg(arg=name) | ast.FunctionDef(name=name):
                names.add(name)
    return names


def test_names_are_nouns():
    words = {path: set(filter(NO_NOUN.fullmatch, defined_in(path))) - IN_FILES for path in MODULES}
    assert {str(path.relative_to(PACKAGE)): names for path, names in words.items() if names} == {}


def test_documentation_speaks_of_no_old_names():
    old = re.compile(rf"`[^`\n]*\b({'|'.join(INSTEAD.keys() - OF_OLDER_FILES)})\b[^`\n]*`")
    pages = [*(PACKAGE.parent / "docs").glob("*.md"), PACKAGE.parent / "README.md", PACKAGE.parent / "CONTRIBUTING.md"]
    assert [(page.name, hit[0]) for page in pages for hit in old.finditer(page.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("kind", [ast.ClassDef, ast.FunctionDef])
def test_no_public_name_stands_for_two_things(kind):
    """Commands are functions called after their verb; rows in `db` are handled under the names that services have."""
    homes = defaultdict(set)
    for path in MODULES:
        if path.parent.name in {"cli", "db", "versions"}:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, kind) and not node.name.startswith("_"):
                homes[node.name].add(str(path.relative_to(PACKAGE)))
    assert {name: sorted(paths) for name, paths in homes.items() if len(paths) > 1 and name not in ROLES} == {}
