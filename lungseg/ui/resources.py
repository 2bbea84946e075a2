"""What all sessions of the server share: the settings and the opened database."""

from __future__ import annotations

import streamlit as st

from lungseg.config import Settings
from lungseg.db import Database, open_database
from lungseg.services.home import open_installation
from lungseg.services.installation import Installation
from lungseg.services.local_executor import LocalExecutor


@st.cache_resource
def settings() -> Settings:
    """Read the settings once."""
    return Settings.from_environment()


@st.cache_resource
def database() -> Database:
    """Open the database once; created or migrated as needed, and paired with the files where that is sure."""
    opened = open_database(settings().database_url)
    open_installation(Installation(settings(), opened))
    return opened


@st.cache_resource
def installation() -> Installation:
    """Return the handle that services take."""
    return Installation(settings(), database(), starter=LocalExecutor(settings(), database()))
