"""Tables as CSV, in which no text of a user is a formula of the spreadsheet that opens them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With what a cell begins that a spreadsheet calculates; the last four are the full-width forms of the first four."""


def csv_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as CSV with a header line; a text that a spreadsheet would calculate begins with an apostrophe.

    Line breaks within a text are all written as a line feed: `csv` quotes no lone carriage return, which ends a row.

    Args:
        rows: values by column; what a row has not, or has as None, is left empty.
        columns: in their order; None for those of the rows, in the order in which they are met.
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
