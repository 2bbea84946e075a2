"""`lungseg demo`: the demo case, from the package index to the queue."""

from __future__ import annotations

from lungseg.cli.console import busy, out
from lungseg.config import Settings


def demo() -> None:
    """Fetch the demo scan with its reference mask, make a case of it and queue its segmentation; safe to repeat."""
    from lungseg.db import open_database
    from lungseg.services import demo as service
    from lungseg.services.home import open_home
    from lungseg.services.installation import Installation

    settings = Settings.from_environment()
    open_home(settings)
    with busy("preparing the demo scan") as tell:
        service.prepare_demo(settings, on_step=tell)
        database = open_database(settings.database_url)
        tell("making the demo case")
        case = service.add_case(Installation(settings, database))
        database.close()
    out.print(f"{case.name} is case {case.id}; `lungseg serve` shows it, the worker segments it.", soft_wrap=True)
