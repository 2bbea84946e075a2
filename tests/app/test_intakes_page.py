"""Intakes on the page Cases: at work, waiting for a choice, failed; the runs themselves are in tests/integration."""

from dataclasses import replace
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from lungseg.db import queue
from lungseg.records.intakes import IntakeLedger, IntakeSurvey, SeriesKind, SeriesOffer
from lungseg.records.run_configs import IntakeConfig
from lungseg.records.run_states import Failure, Progress, RunState
from lungseg.services import intake
from lungseg.services.installation import Installation
from lungseg.services.intake import folder_of
from tests.app.test_pages import everything
from tests.narrowing import existing
from tests.seeds import add_case

HOSTILE = "<img src=x onerror=alert(1)> **5mm**"
SOFT = SeriesOffer(
    key="a", kind=SeriesKind.CHEST_CT, description=HOSTILE, kernel="B30f", slice_mm=1.5, slices=200, size=(512, 512),
    is_preferred=True, reason="thinnest soft kernel", thumbnail="a.png",
)  # fmt: skip
HARD = SeriesOffer(key="b", kind=SeriesKind.CHEST_CT, description="hard <b>", kernel="<i>B70f", note="same as <u>")
SCOUT = SeriesOffer(key="c", kind=SeriesKind.LOCALISER, refusal="It shows <s>one picture.")
SURVEY = IntakeSurvey(offers=(SOFT, HARD, SCOUT), ignored={"a PDF <document>": 2})


@pytest.fixture
def installation(environment, database, models):
    return Installation(environment, database)


@pytest.fixture
def begin(installation, tmp_path):
    def run(name="export.zip"):
        path = tmp_path / "dropped"
        path.touch()
        return folder_of(installation.files, intake.begin(installation, [(name, path)]))

    return run


def end_run(installation, state=RunState.DONE, **outcome):
    with installation.database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC), lane=queue.Lane.INTAKES)
        queue.finish(session, existing(run), state, datetime.now(UTC), **outcome)


@pytest.fixture
def waiting(installation, begin):
    """An intake that waits for a choice."""
    folder = begin()
    folder.keep_survey(SURVEY)
    folder.thumbnails.mkdir()
    cv2.imwrite(str(folder.thumbnails / "a.png"), np.zeros((48, 64), dtype=np.uint8))
    end_run(installation)
    return folder


def button(page, name, folder):
    return page.button(f"intakes_{name}_{folder.path.name[:8]}")


def queued(installation):
    with installation.database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC), lane=queue.Lane.INTAKES)
    return run.config if run else None


def test_one_click_takes_the_preferred_series(installation, waiting, open_page):
    page = open_page()
    assert not page.exception
    assert [box.value for box in page.checkbox] == [True, False]
    take = button(page, "choose", waiting)
    assert take.label == "Take in 1 series, discard 1"
    page = take.click().run()
    assert queued(installation) == IntakeConfig(intake=waiting.path.name, series=("a",))


def test_table_says_what_each_series_is(waiting, open_page):
    text = everything(open_page())
    for part in ("B30f", "1.50 mm", "200", "512 × 512", "chest CT", "Preferred: thinnest soft kernel", "localiser",
                 "data:image/png;base64,", "holds 3 series, 2 to choose from."):  # fmt: skip
        assert part in text, part


def test_what_files_say_is_never_markup(waiting, open_page):
    page = open_page()
    text = everything(page)
    for tag in ("<i>", "<u>", "<s>", "<document>", "<img src=x"):
        assert tag not in text
    for escaped in ("&lt;i&gt;B70f", "same as &lt;u&gt;", "&lt;s&gt;one picture", "a PDF &lt;document&gt;: 2"):
        assert escaped in text
    assert page.checkbox[0].label == r"\<img src=x onerror=alert\(1\)\> \*\*5mm\*\*"


def test_several_series_can_be_ticked_and_none_is_nothing(installation, waiting, open_page):
    page = open_page()
    page = page.checkbox[1].check().run()
    assert button(page, "choose", waiting).label == "Take in 2 series"
    page = page.checkbox[0].uncheck().run()
    page = page.checkbox[1].uncheck().run()
    assert button(page, "choose", waiting).disabled
    page = page.checkbox[1].check().run()
    button(page, "choose", waiting).click().run()
    assert queued(installation) == IntakeConfig(intake=waiting.path.name, series=("b",))


def test_choice_in_another_tab_came_first(installation, waiting, open_page):
    page = open_page()
    intake.choose(installation, waiting.path.name, ["b"])
    page = button(page, "choose", waiting).click().run()
    assert not page.exception
    assert "taken in already" in everything(page)
    assert queued(installation) == IntakeConfig(intake=waiting.path.name, series=("b",))
    assert queued(installation) is None


def test_discarded_in_another_tab(installation, waiting, open_page):
    page = open_page()
    intake.discard(installation, waiting.path.name)
    page = button(page, "choose", waiting).click().run()
    assert not page.exception
    assert "deleted meanwhile" in everything(page)
    assert not page.checkbox


def test_discard_removes_the_intake(waiting, open_page):
    page = open_page()
    page = button(page, "discard", waiting).click().run()
    assert not waiting.path.exists()
    assert not page.checkbox


def test_progress_and_place_in_the_queue(installation, begin, open_page):
    begin("first.zip")
    begin("second.zip")
    with installation.database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC), lane=queue.Lane.INTAKES)
        queue.record_heartbeat(session, existing(run), Progress("unpacking", 50, 200, 12.0), datetime.now(UTC))
    text = everything(open_page())
    assert "Unpacking, about 12 s left" in text
    assert "width:25%" in text
    assert "1 other before it" in text


def test_intake_at_work_can_be_stopped_and_tried_again(installation, begin, open_page):
    folder = begin()
    page = button(open_page(), "stop", folder).click().run()
    assert "was stopped before it was taken in" in everything(page)
    page = button(page, "try_again", folder).click().run()
    assert "Waiting for the worker" in everything(page)
    assert queued(installation) == IntakeConfig(intake=folder.path.name)


def test_failed_intake_says_why(installation, begin, open_page):
    folder = begin()
    failure = {"code": "archive.damaged", "found": "The zip is <damaged>.", "remedy": "Copy it again."}
    end_run(installation, RunState.FAILED, failure=failure)
    page = open_page()
    text = everything(page)
    for part in ("export.zip", "The zip is &lt;damaged&gt;.", "Copy it again.", "archive.damaged"):
        assert part in text
    page = button(page, "discard", folder).click().run()
    assert "export.zip" not in everything(page)


def test_rest_can_be_chosen_where_one_series_failed(installation, waiting, open_page):
    waiting.keep_ledger(IntakeLedger(failures={"a": Failure("scan.truncated", "A slice is cut off.", "Copy it.")}))
    page = open_page()
    assert len(page.checkbox) == 1
    text = everything(page)
    assert "A slice is cut off. Copy it." in text
    assert "Preferred" not in text


def test_case_that_was_made_already_is_said(environment, database, installation, waiting, open_page, chest_scan):
    case = add_case(environment, database, chest_scan)
    waiting.keep_ledger(IntakeLedger(cases={"a": case.id}))
    page = open_page()
    text = everything(page)
    assert "1 taken in, 1 to choose from" in text
    assert "It is a case now." in text
    assert button(page, "choose", waiting).disabled


def test_nothing_usable(installation, begin, open_page):
    folder = begin()
    folder.keep_survey(IntakeSurvey(offers=(SCOUT,), ignored={}))
    end_run(installation)
    page = open_page()
    assert "none can be taken in" in everything(page)
    assert not [item for item in page.button if "choose" in (item.key or "")]
    assert button(page, "discard", folder).label == "Discard"


def test_twin_is_asked_about(environment, database, installation, waiting, open_page, chest_scan):
    case = add_case(environment, database, chest_scan, name="Known <case>")
    waiting.keep_ledger(IntakeLedger(twins={"a": case.id, "b": "gone"}))
    page = open_page()
    text = everything(page)
    assert "is the same scan as <b>Known &lt;case&gt;</b>" in text
    assert "was the same scan as a case that has been deleted since" in text
    assert text.count("It may be a case already: see above.") == 2
    assert not page.checkbox  # each has a question of its own, and a tick would only ask it again
    page.button(f"intakes_again_{waiting.path.name[:8]}_a").click().run()
    assert queued(installation) == IntakeConfig(intake=waiting.path.name, series=("a",), may_be_twin=True)


def test_why_nothing_was_taken_in_is_said_once(installation, begin, open_page):
    folder, failure = begin(), {"code": "scan.truncated", "found": "A slice is cut off.", "remedy": "Copy it."}
    folder.keep_survey(IntakeSurvey(offers=(SOFT,), ignored={}))
    folder.keep_ledger(IntakeLedger(failures={"a": Failure(**failure)}))
    end_run(installation, RunState.FAILED, failure=failure)
    text = everything(open_page())
    assert text.count("A slice is cut off.") == 1
    assert "It can&#39;t be taken in: see above." in text


def several(installation, begin, count):
    folders = [begin(f"{number}.zip") for number in range(count)]
    for folder in folders:
        folder.keep_survey(SURVEY)
        end_run(installation)
    return folders


def test_preferred_series_of_all_uploads_are_taken_by_one_click(installation, begin, open_page):
    folders = several(installation, begin, 6)
    page = open_page()
    assert [fold.label for fold in page.expander] == ["2 more uploads to decide on"]
    page = page.button("intakes_choose_all").click().run()
    assert not page.exception
    configs = [queued(installation) for _ in folders]
    assert {config.intake for config in configs if config} == {folder.path.name for folder in folders}
    assert all(config and config.series == ("a",) for config in configs)


def test_upload_that_was_decided_elsewhere_ends_taking_all(installation, begin, open_page):
    first, second = several(installation, begin, 2)
    page = open_page()
    intake.choose(installation, first.path.name, ["b"])
    page = page.button("intakes_choose_all").click().run()
    assert "taken in already" in everything(page)
    assert queued(installation) == IntakeConfig(intake=first.path.name, series=("b",))
    assert queued(installation) is None
    assert button(page, "choose", second)


def test_series_are_named_by_number_and_description(installation, begin, open_page):
    named = replace(SOFT, number=3, description="Thorax")
    folder = begin()
    folder.keep_survey(IntakeSurvey(offers=(named, replace(HARD, number=4, description="")), ignored={}))
    end_run(installation)
    assert [box.label for box in open_page().checkbox] == ["3 · Thorax", "Series 4"]


def test_series_of_two_patients_stand_apart(installation, begin, open_page):
    offers = (
        SeriesOffer(key="a", kind=SeriesKind.CHEST_CT, patient="P1", study="2024-02-29", is_preferred=True),
        SeriesOffer(key="b", kind=SeriesKind.CHEST_CT, patient="P2", study="2024-03-01", is_preferred=True),
    )
    folder = begin()
    folder.keep_survey(IntakeSurvey(offers=offers, ignored={}))
    end_run(installation)
    page = open_page()
    text = everything(page)
    assert "P1 · 2024-02-29" in text
    assert "P2 · 2024-03-01" in text
    assert button(page, "choose", folder).label == "Take in 2 series"


def test_intake_whose_survey_is_damaged_can_be_tried_again(installation, waiting, open_page):
    (waiting.path / "survey.json").write_text("{")
    page = button(open_page(), "try_again", waiting).click().run()
    assert not page.exception
    assert queued(installation) == IntakeConfig(intake=waiting.path.name)


def test_intake_whose_record_is_damaged_says_so_and_can_be_discarded(installation, begin, open_page):
    folder = begin("Anna <b>.zip")
    end_run(installation, RunState.CANCELLED)
    (folder.path / "intake.json").write_text("{")
    page = open_page()
    assert "Something handed in, whose record is damaged" in everything(page)
    assert button(page, "try_again", folder)
    button(page, "discard", folder).click().run()
    assert not folder.path.exists()
