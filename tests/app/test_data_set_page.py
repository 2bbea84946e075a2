"""The page Data set: from an empty installation to figures, faults and a folder that is gone."""

import shutil
from collections.abc import Callable, Iterator

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from lungseg.jobs import worker
from lungseg.services import datasets, runs
from lungseg.services.installation import Installation
from lungseg.ui.data_set_choice import finding_html
from tests.app.conftest import ENTRY
from tests.data_sets import write_data_set, write_json
from tests.installations import installation_of
from tests.narrowing import existing
from tests.web import start_no_worker

PAGE = "../../pages/dataset.py"
REFUSED = (
    "<b>The folder is not in a place that data may come from.</b> Give a folder below one of those that LUNGSEG_DATA "
    "names; whoever runs the server can add to them."
)


@pytest.fixture
def open_data_sets(environment, monkeypatch) -> Iterator[Callable[..., AppTest]]:
    """Open the page, of a data set or of none; no worker is started."""
    start_no_worker(monkeypatch)
    st.cache_resource.clear()

    def run(data_set=None) -> AppTest:
        page = AppTest.from_file(str(ENTRY), default_timeout=30).run()
        if data_set is not None:
            page.query_params["dataset"] = data_set
        return page.switch_page(PAGE).run()

    yield run
    st.cache_resource.clear()


@pytest.fixture
def folder(tmp_path):
    return write_data_set(tmp_path / "set", cases=2, unlabelled=1)


def text_of(page):
    return " ".join(str(element.proto) for element in [*page.main.get("html"), *page.info, *page.error])


def test_empty_installation_says_what_to_do_first(open_data_sets):
    page = open_data_sets()
    assert not page.exception
    assert "There is no data set yet" in page.info[0].value
    assert page.text_input(key="dataset_folder").value == ""


def test_wrong_folder_is_refused_with_what_was_found(open_data_sets, database, tmp_path, folder):
    page = open_data_sets()
    page.text_input(key="dataset_folder").input(str(tmp_path))
    page.button[0].click().run()
    assert not page.exception
    assert "one folder further down: set" in text_of(page)
    assert datasets.list_data_sets(installation_of(database)) == ()


@pytest.mark.parametrize("name", ["", "nowhere", "set", "set/imagesTr", "home/.."])
def test_folder_elsewhere_is_refused_in_the_same_words(
    open_data_sets, environment, database, folder, tmp_path, monkeypatch, name
):
    monkeypatch.setenv("LUNGSEG_DATA", str(environment.home))
    page = open_data_sets()
    page.text_input(key="dataset_folder").input(str(tmp_path / name))
    page.button[0].click().run()
    assert not page.exception
    assert REFUSED in text_of(page)
    assert datasets.list_data_sets(Installation(environment, database)) == ()


def test_folder_is_registered_read_and_shown(open_data_sets, environment, database, folder):
    page = open_data_sets()
    page.text_input(key="dataset_folder").input(str(folder))
    page.button[0].click().run()
    (known,) = datasets.list_data_sets(Installation(environment, database))
    assert known.id in page.query_params["dataset"]
    assert "Waiting for the worker" in text_of(page)
    worker.work(environment, once=True)
    page = open_data_sets(known.id)
    assert not page.exception
    text = text_of(page)
    assert "no errors or warnings" in text
    assert "half of its slices hold tumour" in text
    table = page.dataframe[0].value
    assert list(table["Case"]) == ["lung_001", "lung_002", "lung_101"]
    assert all(address.startswith("/lungseg/files/") for address in table[""])
    assert len(page.main.get("plotly_chart")) == 5


def test_findings_stand_beside_the_figures(open_data_sets, environment, database, folder):
    (folder / "labelsTr" / "lung_002.nii.gz").write_bytes(b"no mask")
    (folder / "imagesTr" / "._lung_001.nii.gz").write_bytes(b"litter")
    known = datasets.register(Installation(environment, database), folder)
    worker.work(environment, once=True)
    page = open_data_sets(known.id)
    assert not page.exception
    text = text_of(page)
    assert "1 error; errors stop training" in text
    assert "Its mask lung_002.nii.gz" in text
    assert "._lung_001.nii.gz" in text
    assert list(page.dataframe[0].value["Findings"]) == ["", "1 error", ""]
    assert "1 left out" in text


def test_failed_preparation_says_why_and_can_be_tried_again(open_data_sets, environment, database, folder):
    known = datasets.register(Installation(environment, database), folder)
    shutil.move(folder, folder.with_name("elsewhere"))
    worker.work(environment, once=True)
    page = open_data_sets(known.id)
    assert not page.exception
    assert "There is no folder" in text_of(page)
    shutil.move(folder.with_name("elsewhere"), folder)
    page.button(key="dataset_refresh").click().run()
    worker.work(environment, once=True)
    assert "no errors or warnings" in text_of(open_data_sets(known.id))


def test_figures_stay_while_the_folder_is_read_again(open_data_sets, environment, database, folder):
    known = datasets.register(Installation(environment, database), folder)
    worker.work(environment, once=True)
    page = open_data_sets(known.id)
    page.button(key="dataset_refresh").click().run()
    assert "Waiting for the worker" in text_of(page)
    assert len(page.main.get("plotly_chart")) == 5


def test_stop_and_remove(open_data_sets, environment, database, folder):
    known = datasets.register(Installation(environment, database), folder)
    page = open_data_sets(known.id)
    page.button(key="dataset_stop").click().run()
    assert "Stopped" in text_of(page)
    datasets.forget(Installation(environment, database), known.id)
    page.button(key="dataset_remove").click().run()
    assert not page.exception
    assert "may have been removed" in text_of(page)


def test_what_was_removed_in_another_window_is_said_and_the_page_goes_on(open_data_sets, environment, database, folder):
    for key in ("dataset_stop", "dataset_refresh"):
        known = datasets.register(Installation(environment, database), folder)
        if key == "dataset_refresh":
            runs.request_stop(Installation(environment, database), existing(known.run).id)
        page = open_data_sets(known.id)
        datasets.forget(Installation(environment, database), known.id)
        page.button(key=key).click().run()
        assert not page.exception
        assert "deleted meanwhile" in text_of(page)
        assert "There is no data set yet" in page.info[0].value


def test_data_sets_of_one_name_are_told_apart(open_data_sets, environment, database, tmp_path):
    for name in ("a", "b"):
        write_data_set(tmp_path / name, cases=1)
        datasets.register(Installation(environment, database), tmp_path / name)
    page = open_data_sets()
    assert page.selectbox(key="dataset_chosen").options == [f"Lung — {tmp_path / name}" for name in ("a", "b")]


def test_address_of_a_data_set_that_is_gone(open_data_sets):
    page = open_data_sets("0123")
    assert not page.exception
    assert "There is no such data set" in text_of(page)


def test_what_files_are_called_is_not_read_as_html(folder):
    from lungseg.dataset.findings import DataSetFinding, Severity

    shown = finding_html(DataSetFinding(Severity.ERROR, "x", "<img src=x>", "a <b>", "c & d"))
    assert "<img" not in shown
    assert "&lt;img src=x&gt;" in shown


def test_class_that_is_tumour_is_asked_for_where_no_name_tells(open_data_sets, database, tmp_path):
    folder = write_data_set(tmp_path / "odd", cases=1)
    write_json(folder, labels={"0": "background", "1": "alpha", "2": "beta"})
    page = open_data_sets()
    page.text_input(key="dataset_folder").input(str(folder))
    page.button[0].click().run()
    assert not page.exception
    box = page.selectbox(key="dataset_class")
    assert len(box.options) >= 2
    assert datasets.list_data_sets(installation_of(database)) == ()
    box.set_value(box.options[0])
    page.button[0].click().run()
    (known,) = datasets.list_data_sets(installation_of(database))
    assert known.tumour_class == box.options[0]
    assert f"tumour: {known.tumour_class}" in text_of(page)
