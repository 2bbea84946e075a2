"""Pages live on beside a damaged model card."""

import json
from dataclasses import replace

import pytest

from tests.app.test_pages import everything
from tests.cards import save_scenes
from tests.networks import save_network
from tests.run_rows import keep_run, training_run


@pytest.fixture
def models(environment, tmp_path, monkeypatch):
    """A folder with a checkpoint that segments, `good`, and another one, `bad`, whose card is to be damaged."""
    monkeypatch.setenv("LUNGSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", "good")
    for name in ("good", "bad"):
        save_scenes(tmp_path / "models", name)
    return tmp_path / "models"


def not_utf8(raw):
    return raw[:99] + b"\xff" + raw[99:]


def nested(raw):
    return b"[" * 100_000


def other_types(raw):
    fields = json.loads(raw)
    fields["training"] = {"seconds": [], "schedule": 7, "held_out_cases": 7, "known_failures": {"a": 1}}
    return json.dumps(fields | {"scores": {"cases": 7}, "data": [7]}).encode()


IS_DAMAGED = "bad.json is damaged", "Put the card that came with the weights"
IS_ANOTHER = "bad.json holds another card than bad.safetensors", "Copy both files of the checkpoint again"


@pytest.mark.parametrize(("damage", "texts"), [(not_utf8, IS_DAMAGED), (nested, IS_DAMAGED), (other_types, IS_ANOTHER)])
def test_pages_live_on_with_one_damaged_card(open_page, models, environment, database, damage, texts):
    card = models / "bad.json"
    card.write_bytes(damage(card.read_bytes()))
    run = replace(training_run(), checkpoint="own", checkpoint_sha256="0" * 64)
    save_network(environment.runs / run.id, "own")
    with database.begin() as session:
        keep_run(session, run)
    page = open_page()
    page.query_params["run"] = run.id
    page.switch_page("../../pages/runs.py").run()
    assert not page.exception
    assert "first try" in everything(page)
    page = open_page()
    page.switch_page("../../pages/checkpoint.py").run()
    assert not page.exception
    assert "Segments" in everything(page)
    page.selectbox(key="checkpoint_name").set_value("bad").run()
    assert not page.exception
    assert [text for text in texts if text not in everything(page)] == []


def test_damaged_card_of_the_checkpoint_that_segments_is_said_on_its_page_alone(open_page, models, database):
    (models / "good.json").write_bytes(not_utf8((models / "good.json").read_bytes()))
    with database.begin() as session:
        keep_run(session, training_run())
    for name in ("runs", "cases", "training"):
        page = open_page()
        page.switch_page(f"../../pages/{name}.py").run()
        assert not page.exception
        assert "is damaged" not in everything(page)
    page = open_page()
    page.switch_page("../../pages/checkpoint.py").run()
    assert not page.exception
    assert "good.json is damaged" in everything(page)


def test_log_that_is_not_utf8_is_shown(open_page, models, environment, database):
    run = training_run()
    with database.begin() as session:
        keep_run(session, run)
    log = environment.runs / run.id / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"epoch 1\n\xff\xfe\n")
    page = open_page()
    page.query_params["run"] = run.id
    page.switch_page("../../pages/training.py").run()
    assert not page.exception
