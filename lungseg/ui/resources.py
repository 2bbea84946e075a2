"""What all sessions of the server share: settings and installation."""

from __future__ import annotations

import streamlit as st

from lungseg.config import Settings
from lungseg.db import open_database
from lungseg.services.home import open_installation
from lungseg.services.installation import Installation
from lungseg.services.local_executor import LocalExecutor


@st.cache_resource
def settings() -> Settings:
    """Read the settings once."""
    return Settings.from_environment()


@st.cache_resource
def installation() -> Installation:
    """Open the installation once: its database is created or migrated as needed, and paired with the files."""
    database = open_database(settings().database_url)
    opened = Installation(settings(), database, starter=LocalExecutor(settings(), database))
    open_installation(opened)
    return opened
