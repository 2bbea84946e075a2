"""Model cards as pages and reports show them: whole ones, old ones, damaged ones."""

import json
import math
from dataclasses import replace

import pytest

from lungseg.errors import CheckpointError, NotFoundError
from lungseg.services.checkpoints import Count, name_of, names, read_checkpoint
from tests.cards import HELD_OUT, TESTED, save_scenes, save_slices


@pytest.fixture
def installed(settings, tmp_path):
    """Settings of an installation with checkpoints of both kinds."""
    models = tmp_path / "models"
    save_slices(models)
    save_scenes(models)
    return replace(settings, models=models, checkpoint="whole")


def change(settings, name, **fields):
    """Replace parts of a card on disk, with whatever it may be."""
    path = settings.models / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


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
    assert (found.is_in_use, found.is_intact, found.picture) == (True, True, None)
    assert found.file_bytes == (installed.models / "whole.safetensors").stat().st_size
    assert found.split == {"held out": HELD_OUT, "tested": TESTED}
    assert found.sources[1].counts["tested"] == Count(170, 68)
    assert found.scores.summary.mean == pytest.approx((0.874 + 0.412 + 0.713) / 3)
    assert math.isnan(found.scores.cases[0].seconds)
    assert found.scores.nodules["tested"].dice_mean == 0.6934
    assert sum(each.count for each in found.scores.reliability.bins) == found.scores.reliability.lesions
    assert len(found.known_failures) == 2


def test_preset_of_slices_names_cases_and_has_no_nodules(installed):
    found = read_checkpoint(installed, "baseline")
    assert found.split == {"held out": ("lung_101", "lung_102", "lung_103")}
    assert found.sources[0].counts == {"learned from": Count(2, 2, 480), "held out": Count(3, 3, 700)}
    assert found.scores.nodules == {}
    assert found.scores.reliability is None
    assert found.scores.summary.cases == 3


def test_picture_of_failures_lies_beside_the_card(installed):
    (installed.models / "whole.png").write_bytes(b"png")
    assert read_checkpoint(installed, "whole").picture == installed.models / "whole.png"


def test_file_that_was_changed_is_noticed(installed):
    with (installed.models / "whole.safetensors").open("ab") as stream:
        stream.write(b"\0")
    assert not read_checkpoint(installed, "whole").is_intact


def test_name_is_found_by_the_hash(installed):
    card = save_scenes(installed.models, "other")
    change(installed, "other", sha256="f" * 64)
    assert name_of(installed, "f" * 64) == "other"
    assert name_of(installed, card.sha256) == "whole"
    assert name_of(installed, "e" * 64) is None
    (installed.models / "whole.json").write_text("{")
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
    change(installed, "whole", **fields)
    with pytest.raises(CheckpointError, match=r"whole\.json is damaged .* Put the card that came with the weights"):
        read_checkpoint(installed, "whole")


def test_weights_without_a_card_are_refused(installed):
    (installed.models / "whole.json").unlink()
    with pytest.raises(CheckpointError, match="has no model card"):
        read_checkpoint(installed, "whole")
