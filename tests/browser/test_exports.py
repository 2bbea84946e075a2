"""A DICOM segmentation asked for in the viewer: made while the menu shows it, saved, read again."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread

from lungseg.services.cases import delete_case, get_case, masks_of
from lungseg.services.installation import Installation
from tests.browser.conftest import visiting
from tests.browser.looking import HAS_MASKS
from tests.delineations import write
from tests.dicom_cases import add_dicom_case, outline

pytestmark = pytest.mark.browser


@pytest.fixture
def installation(server, small_checkpoint):
    return Installation(replace(server.settings, checkpoint=str(small_checkpoint)), server.database)


def test_segmentation_is_made_and_saved_in_the_menu_of_exports(chromium, server, installation, tmp_path):
    case = add_dicom_case(installation, write(tmp_path / "series"), tmp_path / "taking")
    outline(installation, case)
    (mask,) = masks_of(installation, case.id)
    with visiting(chromium, server.url) as page:
        page.goto(server.address(case.id))
        page.wait_for_function(HAS_MASKS)
        page.get_by_role("button", name="Export").click()
        page.get_by_role("button", name="Make: DICOM segmentation").click()
        save = page.get_by_role("button", name="Save: DICOM segmentation (.dcm)")
        save.wait_for()
        with page.expect_download() as started:
            save.click()
        assert started.value.suggested_filename == "From_the_PACS_seg_v1.dcm"
        started.value.save_as(tmp_path / "saved.dcm")
        page.screenshot(path="test-results/exports.png")
    seg = dcmread(tmp_path / "saved.dcm")
    assert np.count_nonzero(seg.pixel_array) == sum(mask.slice_voxels)
    examination = get_case(installation, case.id).examination
    assert examination is not None
    assert seg.StudyInstanceUID == examination.study_uid


def test_export_of_a_case_that_was_deleted_elsewhere_says_so(chromium, server, installation, tmp_path):
    case = add_dicom_case(installation, write(tmp_path / "series"), tmp_path / "taking")
    outline(installation, case)
    with visiting(chromium, server.url) as page:
        page.goto(server.address(case.id))
        page.wait_for_function(HAS_MASKS)
        page.get_by_role("button", name="Export").click()
        button = page.get_by_role("button", name="Make: Structured report")
        button.wait_for()
        delete_case(installation, case.id)
        button.click()
        page.get_by_role("alert").filter(has_text="record.not_found").wait_for()
