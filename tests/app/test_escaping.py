"""What people type or name their files is text on every page, never HTML."""

import gzip
import time
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from lungseg.jobs import worker
from lungseg.records.run_states import Failure, Progress, RunState
from lungseg.services import datasets, promotion
from lungseg.services.installation import Installation
from lungseg.ui.notice import NOTICE
from tests.cards import CASES, SCENE_SCORES, SCENE_TRAINING, SOURCES, save_scenes
from tests.data_sets import write_json, write_pair
from tests.networks import save_network
from tests.rows import new_run
from tests.run_rows import NOW, keep_epochs, keep_run, keep_scores, score_of, training_run
from tests.seeds import add_case

WICKED = "<script>alert(1)<img src=x onerror=alert(2)>\"'&lt;"
FAILURE = Failure(f"code {WICKED}", f"found {WICKED}", f"remedy {WICKED}")


class Reader(HTMLParser):
    """Reads HTML as a browser does: its elements with their attributes, and its text."""

    def __init__(self):
        super().__init__()
        self.elements, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.text += [value for _, value in attrs if value]

    def handle_data(self, data):
        self.text.append(data)


def assert_wicked_text_is_only_text(page, *texts):
    """Assert that the HTML of a page shows texts, and that none of them has become an element or an attribute."""
    assert not page.exception
    reader = Reader()
    for part in page.get("html"):
        if not part.proto.body.startswith("<style>"):
            reader.feed(part.proto.body)
    reader.close()
    shown = "\n".join(reader.text)
    for text in texts or (WICKED,):
        assert text in shown, text
    for name, attributes in reader.elements:
        assert name != "script"
        assert not [key for key in attributes if key.startswith("on")]
        assert name != "img" or attributes["src"].startswith("data:image/png;base64,")


@pytest.fixture
def visit(open_page):
    """Open a page, with parts of its address."""

    def open_at(name, **address):
        page = open_page()
        for key, value in address.items():
            page.query_params[key] = value
        return page.switch_page(f"../../pages/{name}.py").run()

    return open_at


def keep(database, run, *, dice=()):
    with database.begin() as session:
        keep_run(session, run)
        keep_epochs(session, [run.id], 3)
        if dice:
            keep_scores(session, run.id, [score_of(f"{n} {WICKED}", value) for n, value in enumerate(dice)])
    return run


def test_names_of_files_that_are_dropped(open_page, zone, environment, database, chest_scan):
    add_case(environment, database, chest_scan, f"case {WICKED}")
    scan = chest_scan.read_bytes()
    other = gzip.compress(gzip.decompress(scan), 1, mtime=1)
    page = open_page()
    files = [(f"{name} {WICKED}.nii.gz", content) for name, content in
             (("good", other), ("bad", scan[:64]), ("twin", scan))]  # fmt: skip
    page = zone.drop(page, *files)
    assert_wicked_text_is_only_text(page, *(f"{name} {WICKED}" for name in ("good", "bad", "twin", "case")))


def test_failure_of_a_case(visit, environment, database, chest_scan):
    case = add_case(environment, database, chest_scan, WICKED)
    with database.begin() as session:
        keep_run(session, new_run(case.id, state=RunState.FAILED, failure=FAILURE, finished_at=NOW))
    page = visit("viewer", case=case.id)
    assert_wicked_text_is_only_text(page, FAILURE.found, FAILURE.remedy, FAILURE.code)


def test_run_in_training(visit, environment, database):
    run = training_run(
        f"name {WICKED}", dataset=f"data {WICKED}", state=RunState.RUNNING, warnings=(f"warning {WICKED}",),
        progress=Progress(f"stage {WICKED}", 1, 3, 60.0), started_at=NOW, heartbeat_at=NOW, failure=FAILURE,
    )  # fmt: skip
    keep(database, run)
    (environment.runs / run.id).mkdir(parents=True)
    (environment.runs / run.id / "log.txt").write_text(f"log {WICKED}")
    page = visit("training", run=run.id)
    assert_wicked_text_is_only_text(
        page, run.name, run.dataset, *run.warnings, FAILURE.found, f"log {WICKED}", "tage <"
    )


def test_runs_alone_and_compared(visit, environment, database):
    first, second = (
        keep(
            database,
            training_run(
                f"{name} {WICKED}", dataset=f"data {name} {WICKED}", device=f"device {WICKED}", notes=WICKED,
                tags=(WICKED,), config=replace(training_run().config, preset=f"preset {name} {WICKED}"),
                state=RunState.FAILED, failure=FAILURE, code_version=f"code {WICKED}",
            ),
            dice=(0.2, 0.4, 0.5),
        )
        for name in ("first", "second")
    )  # fmt: skip
    page = visit("runs", run=first.id)
    assert_wicked_text_is_only_text(
        page, first.name, first.dataset, first.device, first.code_version, f"preset first {WICKED}", FAILURE.found
    )
    page = visit("runs", run=[first.id, second.id])
    assert_wicked_text_is_only_text(page, first.name, f"{second.name} less {first.name}", f"preset second {WICKED}")


@pytest.mark.parametrize("name", ["cases", "viewer", "dataset", "training", "runs", "checkpoint"])
def test_what_an_action_has_come_to(visit, environment, database, chest_scan, models, name):
    """Each page says it, once there is something on it."""
    case = add_case(environment, database, chest_scan, "case")
    run = keep(database, training_run())
    save_scenes(models)
    page = visit(name, case=case.id) if name == "viewer" else visit(name, run=run.id)
    page.session_state[NOTICE] = (f"{WICKED} was deleted", time.monotonic())
    assert_wicked_text_is_only_text(page.run(), f"{WICKED} was deleted")


def test_who_promoted_and_why(visit, environment, database, models, monkeypatch):
    monkeypatch.delenv("LUNGSEG_CHECKPOINT")
    run = training_run(checkpoint="new")
    card = save_network(environment.runs / run.id, "new", logit=1.0)
    keep(database, replace(run, checkpoint_sha256=card.sha256), dice=(0.2, 0.4, 0.5))
    installation = Installation(replace(environment, models=models), database)
    promotion.promote(installation, run.id, comment=f"why {WICKED}", by=f"who {WICKED}")
    assert_wicked_text_is_only_text(visit("checkpoint"), f"why {WICKED}", f"who {WICKED}")


def test_data_set_of_wicked_names(visit, environment, database, tmp_path):
    folder = tmp_path / f"set {WICKED}"
    for case in ("whole", "broken"):
        write_pair(folder, f"{case} {WICKED}")
    write_json(folder, name=f"name {WICKED}", labels={"0": "background", "1": "alpha", "2": f"class {WICKED}"})
    (folder / "labelsTr" / f"broken {WICKED}.nii.gz").write_bytes(b"no mask")
    (folder / "imagesTr" / f"._{WICKED}.nii.gz").write_bytes(b"litter")
    known = datasets.register(Installation(environment, database), folder, f"class {WICKED}")
    worker.work(environment, once=True)
    page = visit("dataset", dataset=known.id)
    assert_wicked_text_is_only_text(page, str(folder), f"class {WICKED}", f"error · broken {WICKED}", f"._{WICKED}")
    assert_wicked_text_is_only_text(visit("training"), str(folder))
    page.text_input(key="dataset_folder").input(f"/elsewhere {WICKED}")
    page.button(key="dataset_register").click().run()
    assert_wicked_text_is_only_text(page)


def test_card_of_wicked_texts(visit, models):
    names: dict[str, Any] = {
        key: (f"{key} {WICKED}",) for key in ("known_failures", "held_out_patients", "tested_patients")
    }
    save_scenes(
        models,
        training=replace(SCENE_TRAINING, **names, device=f"device {WICKED}", code_version=f"code {WICKED}"),
        data=tuple(replace(source, attribution=f"by {WICKED}", licence=f"under {WICKED}") for source in SOURCES),
        scores=replace(
            SCENE_SCORES,
            note=f"note {WICKED}",
            cases=tuple(replace(case, case=f"{case.case} {WICKED}") for case in CASES),
        ),
    )
    page = visit("checkpoint")
    shown = [text for texts in names.values() for text in texts]
    assert_wicked_text_is_only_text(
        page, *shown, *(f"{word} {WICKED}" for word in ("device", "code", "by", "under", "note"))
    )
