"""Asking the PACS for a page: by a child process, since the server itself loads no DICOM library."""

from __future__ import annotations

import subprocess
import sys

from lungseg.config import CHECKOUT
from lungseg.decoding import decode, encode
from lungseg.errors import LungSegError, PacsError, PacsUnreachableError, SetupError
from lungseg.pacs.queries import PacsAnswer, PacsQuery
from lungseg.records.run_states import Failure
from lungseg.services.installation import Installation

STARTS_IN_S = 30.0
"""How long the child may take besides the time in which the PACS has to answer each of a few requests."""
REQUESTS = 3


def ask(installation: Installation, query: PacsQuery) -> PacsAnswer:
    """Return what the PACS answers; what it says is nowhere kept and not logged.

    Raises:
        PacsError: the PACS does not answer as it should, or not in time; the code says what it is.
    """
    settings = installation.settings
    longest_s = STARTS_IN_S + REQUESTS * settings.pacs.timeout_s
    command = [sys.executable, "-m", "lungseg", "pacs-query"]
    try:
        child = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=settings.to_environment(),
            input=encode(query),
            capture_output=True,
            timeout=longest_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PacsUnreachableError(
            f"The PACS does not answer in {longest_s:.0f} s.", "Narrow the search down, or look into the PACS's log."
        ) from error
    if child.returncode != 0:
        raise PacsError(
            f"The search ended with code {child.returncode}.",
            "Narrow it down; if that does not help, run lungseg doctor.",
        )
    answer = decode(PacsAnswer, child.stdout, _unreadable)
    if answer.failure:
        raise _error_of(answer.failure)
    return answer


def _error_of(failure: Failure) -> LungSegError:
    """Return the error that the child process met."""
    classes: list[type[LungSegError]] = [SetupError, *PacsError.__subclasses__()]
    kinds = {kind.code: kind for kind in classes}
    return kinds.get(failure.code, PacsError)(failure.found, failure.remedy)


def _unreadable(reason: str) -> LungSegError:
    return PacsError(f"The answer of the PACS can't be read ({reason}).", "Search again.")
