"""PACS: search, import, and what was sent back; nothing that a search shows is kept."""

from __future__ import annotations

from lungseg.ui.notice import notice
from lungseg.ui.pacs import search_and_import
from lungseg.ui.pacs_outbox import outbox

notice()
search_and_import()
outbox()
