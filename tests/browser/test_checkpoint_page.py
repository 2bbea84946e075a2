"""The model card in a browser: reached from the viewer's provenance, drawn whole, on one screen."""

from dataclasses import replace

import numpy as np
import pytest

from lungseg.recipes.scenes.report.panels import SIDE_PX, Panel, write_sheet
from lungseg.segmentation.card import read_card
from lungseg.services.in_use import Promotion, keep_promotion, name_in_use, promotions
from tests.browser.axe import serious_findings
from tests.browser.conftest import SCREENSHOTS, serving, visiting
from tests.browser.looking import HAS_MASKS
from tests.cards import save_scenes, save_slices
from tests.networks import save_network
from tests.phantoms import chest, write_chest
from tests.seeds import add_case, add_prediction

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def own_server(bundle_folder, tmp_path_factory):
    """A server with `models/` of its own, in which `whole` is in use."""
    home = tmp_path_factory.mktemp("home")
    models = home / "models"
    save_scenes(models)
    save_slices(models)
    noise = np.random.default_rng(0).integers(20, 90, (SIDE_PX, SIDE_PX, 1), np.uint8).repeat(3, axis=2)
    tiles = [Panel(f"lung_{number:03d}: false, 0.42 ml", noise) for number in range(6)]
    write_sheet(models / "whole.png", tiles, most_bytes=200_000)
    with serving(home, bundle_folder, LUNGSEG_MODELS=str(models), LUNGSEG_CHECKPOINT="whole") as started:
        yield replace(started, settings=replace(started.settings, models=models, checkpoint="whole"))


@pytest.fixture
def page(chromium, own_server):
    with visiting(chromium, own_server.url) as opened:
        yield opened


def test_card_is_reached_from_a_result_and_drawn_whole(page, own_server, tmp_path):
    write_chest(tmp_path / "chest.nii.gz")
    case = add_case(own_server.settings, own_server.database, tmp_path / "chest.nii.gz", "Seeded")
    add_prediction(own_server.settings, own_server.database, case, chest()[1])
    page.goto(own_server.address(case.id))
    page.wait_for_function(HAS_MASKS)
    page.locator(".provenance a", has_text="whole").click()
    page.wait_for_url("**/checkpoint?checkpoint=whole")
    page.locator(".js-plotly-plot").nth(1).wait_for()
    page.get_by_text("Heart or diaphragm").wait_for()
    page.locator(".st-key-checkpoint_scores img").wait_for()
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / "checkpoint.png")
    page.locator(".st-key-checkpoint_scores img").scroll_into_view_if_needed()
    page.screenshot(path=SCREENSHOTS / "checkpoint-failures.png")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_card_of_a_preset_of_slices(page, own_server):
    page.goto(f"{own_server.url}/checkpoint?checkpoint=baseline")
    page.get_by_text("no calibration was fitted").wait_for()
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / "checkpoint-slices.png")


def test_page_is_accessible_and_fits(page, own_server):
    for size in ({"width": 1440, "height": 900}, {"width": 1024, "height": 768}):
        page.set_viewport_size(size)
        for name in ("whole", "baseline"):
            page.goto(f"{own_server.url}/checkpoint?checkpoint={name}")
            page.get_by_text("History of use").wait_for()
            page.wait_for_timeout(1500)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert serious_findings(page) == []


def test_earlier_checkpoint_is_used_again(page, own_server):
    settings = replace(own_server.settings, checkpoint=None)
    whole, quick = read_card(settings.models / "whole.safetensors"), save_network(settings.models, "quick", logit=2.0)
    first = Promotion.of(whole, None, comment="", by="", verdict="There was none before.")
    second = Promotion.of(quick, whole, comment="quicker", by="R. Kay", verdict="+0.010 Dice against whole on 8 cases.")
    for promotion in (first, second):
        keep_promotion(settings, promotion)
    page.goto(f"{own_server.url}/checkpoint")
    page.get_by_text("by R. Kay after whole").wait_for()
    page.get_by_text("“quicker”").wait_for()
    page.locator(".st-key-checkpoint_again_1 button").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("segments from the next scan on").wait_for()
    assert serious_findings(page) == []
    dialog.locator(".st-key-checkpoint_again_by input").fill("M. Roe")
    dialog.locator(".st-key-checkpoint_again_by input").press("Enter")
    dialog.locator(".st-key-checkpoint_again_now button").click()
    page.locator(".lungseg-said", has_text="whole is in use again, but: LUNGSEG_CHECKPOINT names whole").wait_for()
    assert name_in_use(settings) == "whole"
    assert promotions(settings)[-1].by == "M. Roe"
