"""Promotion: in with the card, out with the reason, and never a broken checkpoint in `models/`."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lungseg.config import SHIPPED_CHECKPOINT, Settings
from lungseg.db import open_database
from lungseg.db.cases import insert_case
from lungseg.errors import CheckpointError, PromotionError, StorageError
from lungseg.files import keys
from lungseg.records.run_states import RunKind, RunState
from lungseg.segmentation.card import read_card, replace_card
from lungseg.segmentation.weights_file import weights_sha256
from lungseg.services import in_use, promotion, runs, training
from lungseg.services.installation import Installation
from lungseg.services.training import list_runs
from tests.data_sets import write_data_set
from tests.installations import installation_of
from tests.narrowing import existing
from tests.rows import new_case
from tests.run_rows import keep_run, keep_scores, score_of, training_run

CASES = [f"lung_{number:03d}" for number in range(8)]
PRESENT = [0.50, 0.62, 0.41, 0.70, 0.55, 0.66, 0.38, 0.59]


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, models=tmp_path / "models")


@pytest.fixture
def database(installation):
    opened = open_database(installation.database_url)
    yield opened
    opened.close()


def add_run(settings, database, name, dice, **changes):
    """Keep a run with a checkpoint of its own and scores on the cases."""
    from tests.networks import save_network

    run = training_run(name=name, checkpoint=name, **changes)
    card = save_network(settings.runs / run.id, name, logit=1.0 + len(name))
    run = replace(run, checkpoint_sha256=card.sha256)
    with database.begin() as session:
        keep_run(session, run)
        if dice:
            keep_scores(session, run.id, [score_of(case, value) for case, value in zip(CASES, dice, strict=False)])
    return run


@pytest.fixture
def present(installation, database):
    """The checkpoint in use, promoted from a run of its own."""
    run = add_run(installation, database, "present", PRESENT)
    promotion.promote(Installation(installation, database), run.id)
    return run


def changed(by):
    return [value + by + 0.01 * (number % 3) for number, value in enumerate(PRESENT)]


def test_first_checkpoint_goes_in_with_its_card(installation, database):
    run = add_run(installation, database, "present", PRESENT)
    card = promotion.promote(Installation(installation, database), run.id, comment="the first")
    weights = installation.models / "present.safetensors"
    assert read_card(weights).to_json() == card.to_json()
    assert weights_sha256(weights) == card.sha256
    promoted = existing(card.training.promotion)
    assert (promoted.run, promoted.comment) == (run.id, "the first")
    assert promotion.promoted_names(installation) == {card.sha256: "present"}
    assert sorted(path.name for path in installation.models.iterdir()) == ["present.json", "present.safetensors"]


def test_better_one_goes_in_and_its_card_says_so(installation, database, present):
    run = add_run(installation, database, "better", changed(0.1))
    card = promotion.promote(Installation(installation, database), run.id)
    promoted = existing(card.training.promotion)
    compared = existing(promoted.compared_with)
    assert compared.name == "present"
    assert compared.verdict == "better"
    assert existing(compared.dice_difference).pairs == len(CASES)
    assert promoted.kept_out_because == ""


def test_worse_one_is_kept_out_with_the_reason(installation, database, present):
    run = add_run(installation, database, "worse", changed(-0.2))
    with pytest.raises(PromotionError, match=r"worse than present by 0\.19\d Dice on the same 8 cases .*comment"):
        promotion.promote(Installation(installation, database), run.id, comment="  ")
    assert not (installation.models / "worse.safetensors").exists()


def test_worse_one_goes_in_with_a_comment_that_stays_on_its_card(installation, database, present):
    run = add_run(installation, database, "worse", changed(-0.2))
    promotion.promote(Installation(installation, database), run.id, comment="finds the small ones")
    record = json.loads((installation.models / "worse.json").read_text())["training"]["promotion"]
    assert record["comment"] == "finds the small ones"
    assert "worse than present" in record["kept_out_because"]


def noisy():
    return [value + (0.1 if number % 2 else -0.12) for number, value in enumerate(PRESENT)]


def test_difference_inside_the_noise_takes_a_comment(installation, database, present):
    run = add_run(installation, database, "noisy", noisy())
    with pytest.raises(PromotionError, match=r"not better than present: -0\.010 Dice .* inside the noise .*comment"):
        promotion.promote(Installation(installation, database), run.id)
    assert not (installation.models / "noisy.safetensors").exists()
    card = promotion.promote(Installation(installation, database), run.id, comment="quicker")
    assert existing(existing(card.training.promotion).compared_with).verdict == "inside the noise"
    assert in_use.name_in_use(installation) == "noisy"


def test_checkpoint_in_use_that_knows_other_cases_is_scored_first(installation, database, present):
    run = add_run(installation, database, "elsewhere", [])
    with database.begin() as session:
        keep_scores(session, run.id, [score_of("chest_001", 0.9), score_of("chest_002", 0.8)])
    for comment in ("", "I am sure"):
        with pytest.raises(PromotionError, match=r"No case was scored with both elsewhere and present.*on the 2 cases"):
            promotion.promote(Installation(installation, database), run.id, comment=comment)


def test_cases_that_it_has_learned_from_prove_nothing(installation, database, present):
    """Evaluated on all of a data set, a checkpoint looks better than it is: it knows the answers."""
    run = add_run(installation, database, "better", changed(0.1))
    weights = installation.runs / run.id / "better.safetensors"
    card = read_card(weights)
    replace_card(weights, replace(card, training=replace(card.training, cases=tuple(CASES))))
    with pytest.raises(PromotionError, match="no score on cases that it has not learned from"):
        promotion.promote(Installation(installation, database), run.id, comment="look at those scores")


def test_better_on_a_part_of_its_cases_takes_a_comment(installation, database, present):
    run = add_run(installation, database, "better", changed(0.1))
    with database.begin() as session:
        keep_scores(session, run.id, [score_of("other", 0.1)])
    with pytest.raises(PromotionError, match="better than present on 8 cases, but was scored on 9 cases"):
        promotion.promote(Installation(installation, database), run.id)


def test_replaced_checkpoint_is_archived(installation, database, present):
    before = weights_sha256(installation.models / "present.safetensors")
    run = add_run(installation, database, "better", changed(0.1))
    card = promotion.promote(Installation(installation, database), run.id, name="present")
    assert card.name == "present"
    assert read_card(installation.models / "present.safetensors").sha256 == card.sha256 != before
    archived = installation.models / "archive" / f"present-{before[:8]}.safetensors"
    assert weights_sha256(archived) == before == read_card(archived).sha256


def test_nothing_goes_in_unscored(installation, database, present):
    run = add_run(installation, database, "unscored", [])
    for name in (None, "present"):
        with pytest.raises(PromotionError, match="no score on cases"):
            promotion.promote(Installation(installation, database), run.id, name=name, comment="trust me")
    assert in_use.name_in_use(installation) == "present"


def test_same_checkpoint_twice_is_said(installation, database, present):
    with pytest.raises(PromotionError, match="very checkpoint that is in use"):
        promotion.promote(Installation(installation, database), present.id)


def test_what_is_promoted_segments_from_the_next_run_on(installation, database, present):
    case = new_case()
    with database.begin() as session:
        insert_case(session, case)
    before = runs.queue_segmentation(Installation(installation, database), case.id)
    better = add_run(installation, database, "better", changed(0.1))
    promotion.promote(Installation(installation, database), better.id)
    after = runs.queue_segmentation(Installation(installation, database), case.id)
    assert (before.checkpoint, after.checkpoint) == ("present", "better")
    assert after.checkpoint_sha256 == better.checkpoint_sha256


def test_installation_without_promotions_keeps_the_shipped_checkpoint(settings):
    assert in_use.name_in_use(settings) == SHIPPED_CHECKPOINT
    assert in_use.history(settings) == ()


def test_setting_wins_over_promotions(installation, database, present):
    fixed = replace(installation, checkpoint="other")
    assert in_use.name_in_use(fixed) == "other"
    assert in_use.name_in_use(installation) == "present"


def test_history_tells_who_when_why_and_after_what(installation, database, present):
    run = add_run(installation, database, "better", changed(0.1))
    promotion.promote(Installation(installation, database), run.id, comment="finds more", by="R. Kay")
    first, second = in_use.promotions(installation)
    assert (first.name, first.before) == ("present", "")
    assert (second.name, second.before, second.by, second.comment) == ("better", "present", "R. Kay", "finds more")
    assert second.run == run.id
    assert second.verdict == "+0.109 Dice against present on 8 cases."
    assert datetime.fromisoformat(second.at).tzinfo == UTC


def test_earlier_checkpoint_is_used_again_even_from_the_archive(installation, database, present):
    run = add_run(installation, database, "better", changed(0.1))
    promotion.promote(Installation(installation, database), run.id, name="present")
    assert in_use.card_in_use(installation).sha256 == run.checkpoint_sha256
    again = in_use.use_again(installation, 1, comment="misses the small ones", by="R. Kay")
    assert (again.before_sha256, again.sha256) == (run.checkpoint_sha256, present.checkpoint_sha256)
    assert in_use.weights_in_use(installation).parent.name == "archive"
    assert in_use.card_in_use(installation).sha256 == present.checkpoint_sha256
    assert [station.number for station in in_use.history(installation)] == [1, 2, 3]
    with pytest.raises(PromotionError, match="in use already"):
        in_use.use_again(installation, 1)
    with pytest.raises(PromotionError, match=r"no number 9. Give one of 1, 2, 3\."):
        in_use.use_again(installation, 9)


def test_promotion_whose_files_are_gone_is_no_silent_return_to_another(installation, database, present):
    (installation.models / "present.safetensors").unlink()
    with pytest.raises(CheckpointError, match="present, which was promoted last, is not in models/ any more"):
        in_use.name_in_use(installation)
    with pytest.raises(CheckpointError, match="neither in models/ nor in its archive"):
        in_use.use_again(installation, 1)


def test_damaged_history_is_said(installation, database, present):
    (installation.home / keys.PROMOTIONS).write_text("[{}]")
    with pytest.raises(StorageError, match="nobody can tell which checkpoint segments"):
        in_use.name_in_use(installation)


def test_run_that_goes_on_is_waited_for(installation, database):
    run = add_run(installation, database, "early", PRESENT, state=RunState.RUNNING)
    with pytest.raises(PromotionError, match="still goes on"):
        promotion.candidate_of(Installation(installation, database), run.id)


def test_run_without_a_checkpoint(installation, database):
    with database.begin() as session:
        run = keep_run(session, training_run())
    with pytest.raises(PromotionError, match="kept no checkpoint"):
        promotion.candidate_of(Installation(installation, database), run.id)
    with pytest.raises(CheckpointError, match="kept no checkpoint"):
        training.queue_incumbent(Installation(installation, database), run.id)


@pytest.mark.parametrize("name", ["../escape", "a/b", ".hidden", "x" * 65, "with space"])
def test_name_that_is_no_file_name(installation, database, name):
    run = add_run(installation, database, "fine", PRESENT)
    with pytest.raises(PromotionError, match="can't be the name"):
        promotion.promote(Installation(installation, database), run.id, name=name)


def test_damaged_weights_stay_out(installation, database):
    run = add_run(installation, database, "damaged", PRESENT)
    weights = installation.runs / run.id / "damaged.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="its card says"):
        promotion.promote(Installation(installation, database), run.id)
    assert list(installation.models.glob("*")) == []


def test_command_promotes_lists_and_goes_back(lungseg, installation, database, present, monkeypatch):
    monkeypatch.setenv("LUNGSEG_MODELS", str(installation.models))
    run = add_run(installation, database, "noisy", noisy())
    code, _, said = lungseg("promote", run.id)
    assert (code, "promotion.refused" in said, "inside the noise" in said) == (2, True, True)
    code, out, said = lungseg("promote", run.id, "--comment", "quicker")
    assert (code, out.strip()) == (0, "noisy is in models/ and segments from the next scan on."), said
    code, out, _ = lungseg("promote")
    assert code == 0
    assert "quicker" in out
    assert "noisy segments" in out
    code, out, said = lungseg("promote", "--again", 1)
    assert (code, out.strip()) == (0, "present is used again."), said
    assert in_use.name_in_use(installation) == "present"
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", "noisy")
    code, out, said = lungseg("promote")
    assert (code, "noisy segments as LUNGSEG_CHECKPOINT says" in out) == (0, True), said


def test_command_queues_what_a_promotion_has_to_know(lungseg, installation, database, present, monkeypatch, tmp_path):
    monkeypatch.setenv("LUNGSEG_MODELS", str(installation.models))
    write_data_set(tmp_path / "set", cases=1)
    run = add_run(installation, database, "unscored", [])
    code, _, said = lungseg("promote", run.id, "--score", "--data", tmp_path / "set")
    assert code == 0, said
    queued = {each.run.checkpoint for each in list_runs(installation_of(database)) if each.run.kind is RunKind.EVALUATE}
    assert queued == {"unscored", "present"}
