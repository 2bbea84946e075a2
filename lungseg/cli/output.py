"""Files that commands write: checked before any work, complete or not there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from lungseg.decoding import JsonObject
from lungseg.errors import ScanError, StorageError
from lungseg.files.atomic import is_file, is_folder, resolved, write_bytes
from lungseg.files.spreadsheet import csv_table


def check_outputs(outputs: Iterable[Path | None], *, inputs: Iterable[Path] = ()) -> None:
    """Check before any work that files can be written, none of them over an input or over another one.

    Raises:
        StorageError: one of them can't, or names a file twice.
    """
    taken = [resolved(path) for path in inputs]
    for path in filter(None, outputs):
        _check_output(path)
        if resolved(path) in taken:
            raise StorageError(f"{path} is named twice.", "Give each input and output a file of its own.")
        taken.append(resolved(path))


def check_scan(path: Path) -> None:
    """Check before any work that a scan or a mask is there; raises ScanError where it is not."""
    if not is_file(path):
        raise ScanError(f"There is no file {path}.", "Give the path of a file that is there.")


def write_report(report: JsonObject, path: Path) -> None:
    """Write a report as JSON, as `write_text`."""
    write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", path)


def write_table(columns: Sequence[str], rows: Iterable[JsonObject], path: Path) -> None:
    """Write rows as CSV, as `write_text`; what a row has not, or has as None, is left empty."""
    write_text(csv_table(rows, columns), path)


def write_text(text: str, path: Path) -> None:
    """Write a text file, complete or not at all; raises StorageError where it can't be written."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def _check_output(path: Path) -> None:
    folder = path.parent
    if not is_folder(folder):
        raise StorageError(f"There is no folder {folder}.", "Create it first, or write elsewhere.")
    if is_folder(path):
        raise StorageError(f"{path} is a folder.", "Give the name of a file.")
    if not os.access(folder, os.W_OK):
        raise StorageError(f"The folder {folder} can't be written to.", "Check its rights, or write elsewhere.")
    if len(os.fsencode(path.name)) > os.pathconf(folder, "PC_NAME_MAX"):
        raise StorageError("The name of a file to write is too long.", "Give it a shorter one.")
