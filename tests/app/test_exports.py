"""The menu of exports in the viewer: what can be exported, its progress, its file, why one failed."""

from dataclasses import replace

import numpy as np
import pytest

from lungseg.jobs.carry_out import Host, carry_out
from lungseg.records.operating_points import LesionCalibration
from lungseg.scans.formats import read_volume
from lungseg.services.cases import get_case
from lungseg.services.installation import Installation
from tests.delineations import inside, middle_of_grid, write
from tests.dicom_cases import add_dicom_case, outline
from tests.phantoms import chest, map_of
from tests.queued import begun
from tests.seeds import add_case, add_prediction


@pytest.fixture
def installation(environment, database, small_checkpoint, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", str(small_checkpoint))
    return Installation(replace(environment, checkpoint=str(small_checkpoint)), database)


@pytest.fixture
def case(installation, tmp_path):
    case = add_dicom_case(installation, write(tmp_path / "series"), tmp_path / "taking")
    outline(installation, case)
    return get_case(installation, case.id)


def labels(page):
    return [button.label for button in page.button]


def click(page, label):
    next(button for button in page.button if button.label == label).click()
    return page.run()


def saved(page):
    return [button.proto.label for button in page.get("download_button")]


def test_dicom_is_made_on_request_with_its_progress_and_saved(open_page, bundle, installation, case):
    page = open_page(viewer=True, case=case.id)
    assert [f"Make: {name}" in labels(page) for name in ("DICOM segmentation", "RT structure set", "Structured report")]
    page = click(page, "Make: DICOM segmentation")
    assert "Stop: DICOM segmentation" in labels(page)
    carry_out(installation, begun(installation.database), Host())
    page.run()
    assert "Save: DICOM segmentation (.dcm)" in saved(page)
    assert "Make: RT structure set" in labels(page)
    assert not page.exception


def test_export_that_failed_says_why_and_can_be_tried_again(open_page, bundle, installation, case):
    installation.files.delete(case.original_path)
    page = click(open_page(viewer=True, case=case.id), "Make: Structured report")
    carry_out(installation, begun(installation.database), Host())
    page.run()
    assert "original files of the scan" in "\n".join(html.proto.body for html in page.get("html"))
    page = click(page, "Try again: Structured report")
    assert "Stop: Structured report" in labels(page)


def test_doubtful_lesions_are_exported_where_ticked(open_page, bundle, installation, tmp_path):
    case = add_dicom_case(installation, write(tmp_path / "series"), tmp_path / "taking")
    grid = read_volume(installation.files.local(case.scan_path)).grid
    levels = np.where(inside(middle_of_grid(grid)), 200, 0).astype(np.uint8)
    card = {"calibration": LesionCalibration(-9.0, 0.0, 0.0), "doubtful_below": 0.2, "min_lesion_ml": 0.01}
    outline(installation, case, lambda _: None, probability=map_of(levels, grid), min_flatness=0.0, **card)
    page = open_page(viewer=True, case=case.id)
    assert "Make: DICOM segmentation" not in labels(page)
    page.checkbox(key="viewer_export_doubtful").check().run()
    assert "Make: DICOM segmentation" in labels(page)


def test_scan_that_is_not_segmented_has_no_export(open_page, bundle, installation, tmp_path):
    case = add_dicom_case(installation, write(tmp_path / "series"), tmp_path / "taking")
    page = open_page(viewer=True, case=case.id)
    assert not [label for label in labels(page) if label.startswith("Make")]
    assert not page.exception


def test_scan_that_came_as_nifti_is_offered_no_dicom_and_told_why(open_page, bundle, installation, chest_scan):
    case = add_case(installation.settings, installation.database, chest_scan)
    add_prediction(installation.settings, installation.database, case, chest()[1])
    page = open_page(viewer=True, case=case.id)
    assert not [label for label in labels(page) if "DICOM" in label]
    assert any("has to come as DICOM" in caption.value for caption in page.caption)
