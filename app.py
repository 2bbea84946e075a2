"""The web application: pages and file routes on one port. `streamlit run app.py` and `lungseg serve` start it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from streamlit.runtime import get_instance

from lungseg.config import PACKAGE, Settings
from lungseg.processes import end_with_server
from lungseg.services.bind_check import check_host
from lungseg.services.home import open_home
from lungseg.services.local_executor import Supervisor
from lungseg.ui import faults
from lungseg.web.guard import Guard
from lungseg.web.page import Page, with_base
from lungseg.web.routes import routes
from lungseg.web.uploads import Uploads

GRACE_S = 2.0
"""Time for the server to end in order; open pages would keep it for longer."""
PAGE = with_base((Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8"))
"""The document that every page starts from."""

logging.getLogger("lungseg").setLevel(logging.INFO)
faults.keep_texts_out_of_log()
settings = Settings.from_environment()
check_host(st.get_option("server.address"), settings)
open_home(settings)


@asynccontextmanager
async def with_worker(_: st.App) -> AsyncIterator[None]:
    """Keep a worker alive as long as the server lives; both end with the `lungseg serve` that started them."""
    end_with_server(GRACE_S)
    with Supervisor(settings):
        yield


app = st.App(
    PACKAGE / "ui" / "entry.py",
    routes=routes(settings),
    lifespan=with_worker,
    on_script_error=faults.answer,
    middleware=[
        Middleware(Guard, settings=settings, address=st.get_option("server.address"), page=PAGE),
        Middleware(Page, html=PAGE),
        Middleware(Uploads, settings=settings, is_open=lambda session: get_instance().is_active_session(session)),
    ],
)
