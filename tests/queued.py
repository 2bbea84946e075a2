"""Runs from the queue, begun as a worker begins them."""

from datetime import UTC, datetime

from lungseg.db import queue


def begun(database):
    """Claim the next run of any lane."""
    with database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC))
    assert run is not None, "no run waits"
    return run
