"""Tables as CSV in which a spreadsheet takes no text of a user for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters of a formula; the last four are the full-width forms of the first four."""


def csv_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as CSV with a header line; an apostrophe stands before a text that is a formula.

    All line breaks within a text become line feeds: `csv` does not quote a lone carriage return, which ends a row.

    Args:
        rows: values by column; a missing one, or None, becomes an empty cell.
        columns: in their order; None for the columns of the rows, in their order of appearance.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
