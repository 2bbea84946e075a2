"""Promotion: in with the card, out with the reason, and never a broken checkpoint in `models/`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lungseg.card import read_card, sha256_of
from lungseg.config import Settings
from lungseg.db import open_database
from lungseg.errors import CheckpointError, PromotionError
from lungseg.records import RunState
from lungseg.services import promotion
from tests.run_rows import keep_run, keep_scores, score_of, training_run

CASES = [f"lung_{number:03d}" for number in range(8)]
PRESENT = [0.50, 0.62, 0.41, 0.70, 0.55, 0.66, 0.38, 0.59]


@pytest.fixture
def installation(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, models=tmp_path / "models", checkpoint="present")


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
    promotion.promote(installation, database, run.id)
    return run


def changed(by):
    return [value + by + 0.01 * (number % 3) for number, value in enumerate(PRESENT)]


def test_first_checkpoint_goes_in_with_its_card(installation, database):
    run = add_run(installation, database, "present", PRESENT)
    card = promotion.promote(installation, database, run.id, comment="the first")
    weights = installation.models / "present.safetensors"
    assert read_card(weights).to_json() == card.to_json()
    assert sha256_of(weights) == card.sha256
    assert card.training["promotion"]["run"] == run.id
    assert card.training["promotion"]["comment"] == "the first"
    assert promotion.promoted_names(installation) == {card.sha256: "present"}
    assert sorted(path.name for path in installation.models.iterdir()) == ["present.json", "present.safetensors"]


def test_better_one_goes_in_and_its_card_says_so(installation, database, present):
    run = add_run(installation, database, "better", changed(0.1))
    card = promotion.promote(installation, database, run.id)
    compared = card.training["promotion"]["compared_with"]
    assert compared["name"] == "present"
    assert compared["verdict"] == "better"
    assert compared["dice_difference"]["pairs"] == len(CASES)
    assert "kept_out_because" not in card.training["promotion"]


def test_worse_one_is_kept_out_with_the_reason(installation, database, present):
    run = add_run(installation, database, "worse", changed(-0.2))
    with pytest.raises(PromotionError, match=r"worse than present by 0\.19\d Dice on the same 8 cases .*comment"):
        promotion.promote(installation, database, run.id, comment="  ")
    assert not (installation.models / "worse.safetensors").exists()


def test_worse_one_goes_in_with_a_comment_that_stays_on_its_card(installation, database, present):
    run = add_run(installation, database, "worse", changed(-0.2))
    promotion.promote(installation, database, run.id, comment="finds the small ones")
    record = json.loads((installation.models / "worse.json").read_text())["training"]["promotion"]
    assert record["comment"] == "finds the small ones"
    assert "worse than present" in record["kept_out_because"]


def test_difference_inside_the_noise_keeps_nothing_out(installation, database, present):
    noisy = [value + (0.1 if number % 2 else -0.12) for number, value in enumerate(PRESENT)]
    run = add_run(installation, database, "noisy", noisy)
    assert promotion.offer(installation, database, run.id).refusal is None
    assert promotion.promote(installation, database, run.id).training["promotion"]["compared_with"]["verdict"] == (
        "inside the noise"
    )


def test_replaced_checkpoint_is_archived(installation, database, present):
    before = sha256_of(installation.models / "present.safetensors")
    run = add_run(installation, database, "better", changed(0.1))
    card = promotion.promote(installation, database, run.id, name="present")
    assert card.name == "present"
    assert read_card(installation.models / "present.safetensors").sha256 == card.sha256 != before
    archived = installation.models / "archive" / f"present-{before[:8]}.safetensors"
    assert sha256_of(archived) == before == read_card(archived).sha256


def test_nothing_is_replaced_unseen(installation, database, present):
    run = add_run(installation, database, "unscored", [])
    assert promotion.offer(installation, database, run.id).refusal is None
    with pytest.raises(PromotionError, match="no case was scored with both"):
        promotion.promote(installation, database, run.id, name="present")


def test_same_checkpoint_twice_is_said(installation, database, present):
    with pytest.raises(PromotionError, match="this very checkpoint"):
        promotion.promote(installation, database, present.id)


def test_run_that_goes_on_is_waited_for(installation, database):
    run = add_run(installation, database, "early", PRESENT, state=RunState.RUNNING)
    with pytest.raises(PromotionError, match="still goes on"):
        promotion.offer(installation, database, run.id)


def test_run_without_a_checkpoint(installation, database):
    with database.begin() as session:
        run = keep_run(session, training_run())
    with pytest.raises(PromotionError, match="kept no checkpoint"):
        promotion.offer(installation, database, run.id)


@pytest.mark.parametrize("name", ["../escape", "a/b", ".hidden", "x" * 65, "with space"])
def test_name_that_is_no_file_name(installation, database, name):
    run = add_run(installation, database, "fine", PRESENT)
    with pytest.raises(PromotionError, match="can't be the name"):
        promotion.promote(installation, database, run.id, name=name)


def test_damaged_weights_stay_out(installation, database):
    run = add_run(installation, database, "damaged", PRESENT)
    weights = installation.runs / run.id / "damaged.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="not what its card describes"):
        promotion.promote(installation, database, run.id)
    assert list(installation.models.iterdir()) == []
