"""The page Checkpoint: whole cards, old ones, those of presets of slices, damaged ones; links that lead there."""

from dataclasses import replace

import numpy as np
import pytest

from lungseg.db import Database
from lungseg.scans.overlay import write_png
from tests.app.test_pages import everything
from tests.cards import save_scenes, save_slices
from tests.run_rows import keep_run, training_run


@pytest.fixture
def visit(open_page):
    """Open the page, with a checkpoint in its address."""

    def open_at(name=None):
        page = open_page()
        if name is not None:
            page.query_params["checkpoint"] = name
        page.switch_page("../../pages/checkpoint.py").run()
        assert not page.exception
        return page

    return open_at


def test_empty_folder_says_what_to_do_first(visit, models):
    assert "There is no checkpoint in models/ yet. Train one" in everything(visit())


def test_checkpoint_that_segments_is_shown_with_all_parts(visit, models):
    card = save_scenes(models)
    save_slices(models)
    page = visit()
    text = everything(page)
    assert page.selectbox(key="checkpoint_name").value == "whole"
    for part in (
        "Segments", card.sha256, "Research use only, not a medical device", "CC BY 4.0 / CC BY 3.0", "Armato et al.",
        "170 from 68 patients", "<td>none</td>", "16 epochs of 350 steps, batch 16", "2 h 14 min on cpu", "f101, f102",
        "each by the fold that did not learn from it", "0.666", "170 <em>from 68 patients</em>", "<b>0.693</b>",
        "mean error of the probabilities <b>0.041</b>", "412 lesions", '<tr class="chosen"',
        "&lt;b&gt;with high probability&lt;/b&gt;", "outlined in part",
    ):  # fmt: skip
        assert part in text, part
    assert "Not measured" not in text
    assert len(page.get("plotly_chart")) == 2
    assert [each.label for each in page.expander] == ["Held out: 79", "Tested: 68", "All settings"]
    assert list(page.dataframe[0].value["Case"]) == ["lung_102", "lung_103", "lung_101"]
    assert "data:image" not in everything(page)


def test_picture_of_failures_is_shown(visit, models):
    save_scenes(models)
    write_png(models / "whole.png", np.zeros((9, 9, 3), np.uint8))
    assert everything(visit()).count("data:image/png") == 1


def test_preset_of_slices_says_what_was_not_measured(visit, models):
    save_scenes(models)
    save_slices(models)
    page = visit("baseline")
    text = everything(page)
    assert "Not in use" in text
    assert "2 from 2 patients, 480 slices" in text
    assert "No patients were set aside for a test" in text
    assert "Not measured: no calibration was fitted" in text
    assert "Not measured: other thresholds were not scored" in text
    assert "The card names none" in text
    assert not page.get("plotly_chart")
    assert list(page.dataframe[0].value["False"]) == [0, 2, 1]


def test_card_without_anything_is_shown(visit, models):
    save_scenes(models, training={}, data=(), scores={}, operating_points=(), calibration=None)
    text = everything(visit())
    assert "The card does not name the training data." in text
    assert "The card does not say who was held out." in text
    assert text.count('<div class="lungseg-quiet">Not measured') == 4


def test_another_one_is_chosen_and_stands_in_the_address(visit, models):
    save_scenes(models)
    save_slices(models)
    page = visit()
    page.selectbox(key="checkpoint_name").set_value("baseline").run()
    assert not page.exception
    assert page.query_params["checkpoint"] == "baseline"
    assert "Not in use" in everything(page)


def test_unknown_checkpoint(visit, models):
    save_scenes(models)
    page = visit("gone")
    assert "There is no such checkpoint." in everything(page)
    page.selectbox(key="checkpoint_name").set_value("whole").run()
    assert "Segments" in everything(page)


def test_damaged_card_says_what_to_do(visit, models):
    save_scenes(models, scores={"cases": [{"case": "lung_101"}]})
    text = everything(visit())
    assert "whole.safetensors is damaged" in text
    assert "Put the card that came with the weights beside them" in text


def test_damaged_copy_of_the_card_is_said_beside_what_the_weights_hold(visit, models):
    save_scenes(models)
    (models / "whole.json").write_text("no card")
    text = everything(visit())
    assert "whole.json is damaged" in text
    assert "Segments" in text


def test_weights_that_are_not_those_of_the_card(visit, models):
    save_scenes(models, sha256="f" * 64)
    text = everything(visit())
    assert "its card says ffffffffffff" in text
    assert "Copy both files of the checkpoint again" in text


def test_run_whose_checkpoint_was_promoted_leads_to_its_card(open_page, models, database: Database):
    card = save_scenes(models)
    run = replace(training_run(), checkpoint_sha256=card.sha256)
    other = replace(training_run(), checkpoint_sha256="0" * 64)
    with database.begin() as session:
        keep_run(session, run)
        keep_run(session, other)
    for each, count in ((run, 1), (other, 0)):
        page = open_page()
        page.query_params["run"] = each.id
        page.switch_page("../../pages/runs.py").run()
        assert not page.exception
        assert [link.proto.label for link in page.get("page_link")].count("Model card") == count
