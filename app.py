"""The web application: pages and file routes on one port. `streamlit run app.py` and `lungseg serve` start it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
import streamlit as st

from lungseg.config import CHECKOUT, Settings
from lungseg.services.exposure import check_host
from lungseg.services.worker_process import ensure_worker
from lungseg.web.routes import routes

logging.getLogger("lungseg").setLevel(logging.INFO)
settings = Settings.from_environment()
check_host(st.get_option("server.address"), settings)


@asynccontextmanager
async def with_worker(_: st.App) -> AsyncIterator[None]:
    """Start a worker where none is alive; it goes on when the server ends."""
    await anyio.to_thread.run_sync(ensure_worker, settings)
    yield


app = st.App(CHECKOUT / "lungseg" / "ui" / "entry.py", routes=routes(settings), lifespan=with_worker)
