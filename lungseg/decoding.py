"""JSON that others may have damaged, decoded into our frozen values: the one place that knows pydantic.

Whatever the bytes are (not UTF-8, nested without end, of another shape or type), the caller's own error is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from lungseg.errors import LungSegError

MOST_BYTES = 256 * 1024**2
"""No JSON of ours comes near it; a larger file is not read into memory."""

Kind = TypeVar("Kind")
Refusal = Callable[[str], LungSegError]


def decode(kind: type[Kind], data: bytes | str, refuse: Refusal) -> Kind:
    """Decode JSON text into a value of `kind`: a frozen dataclass, nested ones included, or a plain annotation.

    Lists become tuples where the dataclass says so; unknown keys are passed over, so that an older release reads what a
    newer one wrote; missing keys and wrong types are refused.

    Args:
        kind: what the text should hold.
        data: the text.
        refuse: makes the error to raise of the reason, which holds no value of the text.

    Raises:
        LungSegError: what `refuse` makes, or what the dataclass itself raises for values out of range.
    """
    try:
        return cast("Kind", _adapter(cast("Hashable", kind)).validate_json(data))
    except ValidationError as error:
        raise refuse(_reason(error)) from error


def decode_value(kind: type[Kind], value: Any, refuse: Refusal) -> Kind:
    """Decode values that were JSON once, such as a column of the database; otherwise as `decode`."""
    try:
        return cast("Kind", _adapter(cast("Hashable", kind)).validate_python(value))
    except ValidationError as error:
        raise refuse(_reason(error)) from error


def decode_file(kind: type[Kind], path: Path, refuse: Refusal) -> Kind:
    """Decode a JSON file, as `decode`; one that is missing, unreadable or absurdly large is refused too."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise refuse(f"it has more than {MOST_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise refuse(error.strerror or str(error)) from error
    return decode(kind, data, refuse)


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("Any", kind))


def _reason(error: ValidationError) -> str:
    """Say what is wrong, and where, for the first of the errors; without the value that stands there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]
