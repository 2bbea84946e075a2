from tests.app.conftest import *
from tests.conftest import *
from tests.app.test_training_pages import visit
def test_dbg(visit, environment):
    page = visit("training")
    print("UP", page.file_uploader, page.exception)
    page.file_uploader[0].set_value(("worse.toml", b"kind = 7", "application/toml")).run()
    print("STATE", page.session_state["training_preset_round"], "training_preset_refused" in page.session_state)
    print("EXC", page.exception, page.file_uploader)
    from tests.app.test_pages import everything
    print("WORSE", "worse.toml" in everything(page))
    raise AssertionError
