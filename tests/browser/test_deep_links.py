"""Every page by its address: all that it asks for is there, and nothing is asked for in vain."""

import pytest

from tests.browser.conftest import visiting

pytestmark = pytest.mark.browser
PAGES = ["", "viewer", "dataset", "training", "runs", "checkpoint"]


@pytest.mark.parametrize("path", PAGES)
def test_no_request_fails(chromium, server, phantom_case, path):
    answers, complaints = {}, []
    with visiting(chromium, server.url) as page:
        page.on("response", lambda response: answers.update({response.url: response.status}))
        page.on("console", lambda message: complaints.extend([message.text] if message.type == "error" else []))
        address = f"{server.url}/{path}?case={phantom_case.id}" if path == "viewer" else f"{server.url}/{path}"
        for visit in (lambda: page.goto(address), page.reload):
            visit()
            page.get_by_role("link", name="Cases", exact=True).first.wait_for()
            page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
            page.wait_for_timeout(500)
        assert any("_stcore/health" in each for each in answers)
        assert {each: status for each, status in answers.items() if status >= 400} == {}
        assert complaints == []
        page.get_by_role("link", name="Runs", exact=True).click()
        page.wait_for_function("() => location.pathname === '/runs'")
