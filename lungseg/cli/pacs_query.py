"""`lungseg pacs-query`: asks the PACS for a page, as a process of its own; the server calls it, nobody else."""

from __future__ import annotations

import sys

from lungseg.config import Settings

CPU_S = 60
"""Of the processor; an answer that takes longer to read is none."""


def pacs_query() -> None:
    """Read a query from standard input, ask the DICOMweb server, write the answer to standard output; both are JSON.

    So no argument, log or file holds a name of a patient, and the server loads no DICOM library.
    """
    from lungseg.decoding import decode, encode
    from lungseg.errors import LungSegError, PacsError
    from lungseg.pacs.dicomweb import search
    from lungseg.pacs.queries import PacsAnswer, PacsQuery
    from lungseg.processes import limit_resources
    from lungseg.records.run_states import Failure

    settings = Settings.from_environment()
    limit_resources(settings.limits.memory_bytes, CPU_S)
    try:
        query = decode(
            PacsQuery, sys.stdin.buffer.read(), lambda reason: PacsError(f"No query: {reason}.", "Ask again.")
        )
        answer = search(settings, query)
    except LungSegError as error:
        answer = PacsAnswer(failure=Failure.of(error))
    sys.stdout.buffer.write(encode(answer))
