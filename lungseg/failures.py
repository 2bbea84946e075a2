"""From an exception to the failure that a run or a case records."""

from __future__ import annotations

from traceback import format_tb

from lungseg.errors import DiskFullError, LungSegError
from lungseg.files.atomic import NO_ROOM, no_room
from lungseg.records.run_states import Failure

OUT_OF_MEMORY = Failure(
    code="run.out_of_memory",
    found="There was not enough memory.",
    remedy="Close other programs or use a machine with more memory, then start the run again.",
)


def failure_of(error: BaseException) -> Failure:
    """Return why a run failed: our own errors with their texts, all others by their type alone.

    The text of any other error may hold a path or a value of the scan; only the log gets it.
    """
    if _is_disk_full(error) and not isinstance(error, DiskFullError):
        error = no_room()
    if isinstance(error, LungSegError):
        return Failure.of(error)
    if _is_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, OSError):
        return Failure(
            "storage.failed",
            f"A file of the run could not be read or written ({error.strerror or type(error).__name__}).",
            "Check the data and the folder LUNGSEG_HOME, their rights and their disk, then start the run again.",
        )
    return Failure(
        "run.crashed",
        f"The run ended with an unexpected {type(error).__name__}.",
        "Start the run again; if it fails again, report it with the end of logs/worker.log.",
    )


def failure_of_case(error: Exception) -> Failure:
    """Return why one case of several failed by a fault of ours; the others go on."""
    if _is_out_of_memory(error):
        return Failure(OUT_OF_MEMORY.code, OUT_OF_MEMORY.found, "Close other programs, or crop the scan to the chest.")
    return Failure(
        "case.crashed",
        f"An unexpected {type(error).__name__} ended the work on this case.",
        "Try it again alone; if it fails again, report it with what was logged.",
    )


def whereabouts(error: BaseException) -> str:
    """Format the tracebacks of an error and of its causes without their texts.

    Libraries quote values and paths, and the name of a file or a case may be a patient's: no log may hold one.
    """
    cause = error.__cause__ or error.__context__
    before = f"{whereabouts(cause)}which led to\n" if cause else ""
    return f"{before}{''.join(format_tb(error.__traceback__))}{type(error).__qualname__}\n"


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    """Recognise torch's own kinds too, without importing torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
