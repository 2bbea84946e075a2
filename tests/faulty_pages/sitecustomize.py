"""A server with faults that nobody foresaw, for tests: on its path, this module is run before everything else.

While LUNGSEG_HOME has a file `faulty.NAME`, the function of that name raises an error that quotes a patient's name.
"""

import functools

from lungseg.config import Settings
from lungseg.services import cases, runs

PATIENT = "Muster^Anna"
"""Not in the line that raises: the log quotes lines of code."""


def faulty(module, name):
    real = getattr(module, name)

    @functools.wraps(real)
    def function(*arguments, **options):
        if (Settings.from_environment().home / f"faulty.{name}").exists():
            raise ValueError(f"{PATIENT} is no number")
        return real(*arguments, **options)

    setattr(module, name, function)


for module, name in (
    (cases, "list_cases"),
    (cases, "rename_case"),
    (cases, "delete_case"),
    (runs, "latest_run"),
    (runs, "queue_segmentation"),
):
    faulty(module, name)
