"""Model cards as pages and reports show them: whole ones, old ones, damaged ones."""

import hashlib
import json
import math
from dataclasses import replace

import pytest

from lungseg.errors import CheckpointError, NotFoundError
from lungseg.segmentation.card import read_card
from lungseg.segmentation.card_contents import Count
from lungseg.services.checkpoints import name_of, names, read_checkpoint, summary_of
from tests.cards import HELD_OUT, TESTED, as_older, damage_card, save_scenes, save_slices
from tests.narrowing import existing


@pytest.fixture
def installed(settings, tmp_path):
    """Settings of an installation with checkpoints of both kinds."""
    models = tmp_path / "models"
    save_slices(models)
    save_scenes(models)
    return replace(settings, models=models, checkpoint="whole")


def test_checkpoint_that_segments_comes_first(installed):
    assert names(installed) == ("whole", "baseline")
    assert names(replace(installed, checkpoint="gone")) == ("baseline", "whole")


def test_checkpoint_in_use_may_lie_elsewhere(installed, tmp_path):
    card = save_scenes(tmp_path / "elsewhere", "mine")
    settings = replace(installed, checkpoint=str(tmp_path / "elsewhere" / "mine.safetensors"))
    assert names(settings) == ("mine", "baseline", "whole")
    assert read_checkpoint(settings, "mine").card.to_json() == card.to_json()
    assert read_checkpoint(settings, "mine").is_in_use


def test_all_parts_are_read(installed):
    found = read_checkpoint(installed, "whole")
    assert (found.is_in_use, found.fault, found.picture) == (True, None, None)
    assert found.file_bytes == (installed.models / "whole.safetensors").stat().st_size
    all_parts_are_there(found.card)


def all_parts_are_there(card):
    assert card.training.sides == {"held out": HELD_OUT, "tested": TESTED}
    assert card.data[1].counts["tested"] == Count(170, 68)
    assert existing(summary_of(card)).mean == card.scores.summary.mean == pytest.approx((0.874 + 0.412 + 0.713) / 3)
    assert math.isnan(card.scores.cases[0].seconds)
    assert card.scores.nodules["tested"].dice_mean == 0.6934
    assert sum(each.count for each in card.scores.reliability.bins) == card.scores.reliability.lesions
    assert len(card.training.known_failures) == 2


def test_card_of_the_release_before_is_read_with_all_parts(installed):
    weights = installed.models / "whole.safetensors"
    before = read_card(weights)
    as_older(weights)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == before.sha256
    assert read_checkpoint(installed, "whole").fault is None
    found = read_card(weights)
    all_parts_are_there(found)
    assert found.to_json() == before.to_json()


def test_scores_of_old_cards_do_not_tell_doubtful_lesions_apart(installed):
    weights = installed.models / "whole.safetensors"
    as_older(weights)
    assert read_card(weights).scores.counts_doubtful
    card = json.loads(weights.with_suffix(".json").read_text())
    del card["scores"]["cases"][0]["doubtful_false"]
    weights.with_suffix(".json").write_text(json.dumps(card))
    assert not read_card(weights).scores.counts_doubtful


def test_preset_of_slices_names_cases_and_has_no_nodules(installed):
    found = read_checkpoint(installed, "baseline")
    assert found.card.training.sides == {"held out": ("lung_101", "lung_102", "lung_103")}
    assert found.card.data[0].counts == {"learned from": Count(2, 2, 480), "held out": Count(3, 3, 700)}
    assert found.card.scores.nodules == {}
    assert found.card.scores.reliability is None
    assert existing(summary_of(found.card)).cases == 3


def test_picture_of_failures_lies_beside_the_card(installed):
    (installed.models / "whole.png").write_bytes(b"png")
    assert read_checkpoint(installed, "whole").picture == installed.models / "whole.png"


def test_card_that_was_changed_beside_its_weights_is_noticed(installed):
    path = installed.models / "whole.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 0.9}))
    found = read_checkpoint(installed, "whole")
    assert found.card.threshold == 0.6
    assert found.fault


def test_file_that_was_changed_is_noticed(installed):
    with (installed.models / "whole.safetensors").open("ab") as stream:
        stream.write(b"\0")
    assert read_checkpoint(installed, "whole").fault


def test_name_is_found_by_the_hash(installed):
    card = save_scenes(installed.models, "other")
    damage_card(installed.models / "other.safetensors", sha256="f" * 64)
    assert name_of(installed, "f" * 64) == "other"
    assert name_of(installed, card.sha256) == "whole"
    assert name_of(installed, "e" * 64) is None
    damage_card(installed.models / "whole.safetensors", threshold="high")
    assert name_of(installed, "f" * 64) == "other"


@pytest.mark.parametrize("name", ["none", "../models/whole", ""])
def test_unknown_name_is_refused(installed, name):
    with pytest.raises(NotFoundError, match="there: whole, baseline"):
        read_checkpoint(installed, name)


@pytest.mark.parametrize(
    "fields",
    [
        {"scores": {"cases": [{"case": "lung_101"}]}},
        {"scores": {"tested_nodules": {"nodules": 3}}},
        {"scores": {"reliability": {"bins": [], "note": "", "lesions": 0}}},
        {"scores": []},
        {"training": ["seed"]},
        {"training": {"schedule": "quick"}},
        {"training": {"seconds": "an hour"}},
        {"data": [{"folder": "nameless"}]},
        {"data": [{"folder": "x", "attribution": "", "licence": "", "tested": 3}]},
    ],
)
def test_damaged_card_is_refused(installed, fields):
    damage_card(installed.models / "whole.safetensors", **fields)
    with pytest.raises(CheckpointError, match=r"whole\.safetensors is damaged .* Put the card that came"):
        read_checkpoint(installed, "whole")


def test_weights_without_a_card_are_refused(installed):
    as_older(installed.models / "whole.safetensors")
    (installed.models / "whole.json").unlink()
    with pytest.raises(CheckpointError, match="has no model card"):
        read_checkpoint(installed, "whole")
