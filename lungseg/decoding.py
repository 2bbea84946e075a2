"""JSON that others may have damaged, decoded into our frozen values: the one place that knows pydantic.

Whatever the bytes are (not UTF-8, nested without end, of another shape or type), the caller's own error is raised.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import stat
import tomllib
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic import Tag as Tag  # noqa: PLC0414 - given on to the unions of records
from pydantic_core import SchemaValidator, to_jsonable_python

from lungseg.errors import LungSegError

MOST_BYTES = 24 * 1024**2
"""No JSON of ours comes near it; a larger file is not read, since its values may take eighty times as much memory."""
MOST_TOML_BYTES = 64 * 1024
"""Of a file that people write."""
MOST_DEPTH = 200
"""Lists in lists, as the parser allows them."""
LONGEST_PLACE = 80
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""What a byte of a file name that is not UTF-8 becomes in JSON; the strict parser refuses it."""
HIGHEST_WHOLE = 2**53
HIGHEST_MEASURE = 1e15

Kind = TypeVar("Kind")
Refusal = Callable[[str], LungSegError]


def _checked_measure(value: float) -> float:
    if abs(value) > HIGHEST_MEASURE:
        raise ValueError("it is absurd")
    return value


def _nan_of_null(value: Any) -> Any:
    return math.nan if value is None else value


Finite: TypeAlias = Annotated[float, Field(ge=-HIGHEST_MEASURE, le=HIGHEST_MEASURE, allow_inf_nan=False)]
"""A number that is neither NaN nor infinite nor absurd."""
Unbounded: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
"""A number that is neither NaN nor infinite."""
Measure: TypeAlias = Annotated[float, BeforeValidator(_nan_of_null), AfterValidator(_checked_measure)]
"""As `Finite`, or NaN for what could not be measured; JSON has null for it."""
Whole: TypeAlias = Annotated[int, Field(ge=-HIGHEST_WHOLE, le=HIGHEST_WHOLE)]
"""A whole number that a float can hold."""
Natural: TypeAlias = Annotated[int, Field(ge=0, le=HIGHEST_WHOLE)]
"""A number of things."""
JsonObject: TypeAlias = Mapping[str, object]
"""What is kept and shown as it was written, and steers nothing: such as the settings of a release long gone."""

KIND = "kind"


def _kind_of(value: Any) -> str | None:
    kind = value.get(KIND) if isinstance(value, dict) else None
    return str(kind) if kind else None


BY_KIND = Discriminator(_kind_of)
"""Marks a union of classes, each tagged by `Tag`, of which the JSON says under `kind` which one it is."""
from_older = model_validator(mode="before")
"""Marks the class method of a dataclass that turns what an older release wrote, before it is decoded, into its fields.

It is given whatever stands there, and gives back what it does not know.
"""


def decode(kind: type[Kind], data: bytes | str, refuse: Refusal) -> Kind:
    """Decode JSON text into a value of `kind`: a frozen dataclass, nested ones included, or a plain annotation.

    Lists become tuples where the dataclass says so; unknown keys are passed over, so that an older release reads what a
    newer one wrote; missing keys and wrong types are refused.

    Args:
        kind: what the text should hold.
        data: the text, in UTF-8.
        refuse: makes the error to raise of the reason, which holds no value of the text.

    Raises:
        LungSegError: what `refuse` makes, or what the dataclass itself raises for values out of range.
    """
    raw = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if SURROGATE.search(raw):
        return decode_value(kind, _parsed(raw, refuse), refuse)
    try:
        return cast("Kind", _validator(cast("Hashable", kind)).validate_json(raw))
    except ValidationError as error:
        raise refuse(_reason(error)) from error


def decode_value(kind: type[Kind], value: Any, refuse: Refusal) -> Kind:
    """Decode values that were JSON once, such as a column of the database; otherwise as `decode`."""
    try:
        return cast("Kind", _validator(cast("Hashable", kind)).validate_python(value))
    except ValidationError as error:
        raise refuse(_reason(error)) from error


def decode_file(kind: type[Kind], path: Path, refuse: Refusal) -> Kind:
    """Decode a JSON file, as `decode`; one that is missing, unreadable or absurdly large is refused too."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise refuse("it is no file")
        if state.st_size > MOST_BYTES:
            raise refuse(f"it has more than {MOST_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise refuse(error.strerror or str(error)) from error
    except ValueError as error:
        raise refuse("no file can have its name") from error
    return decode(kind, data, refuse)


def parse_toml(content: bytes, refuse: Refusal) -> dict[str, Any]:
    """Parse TOML, UTF-8, of a file that people write; `refuse` gets what is wrong, with line and column.

    Raises:
        LungSegError: what `refuse` makes.
    """
    if len(content) > MOST_TOML_BYTES:
        raise refuse(f"it has more than {MOST_TOML_BYTES // 1024} KB")
    try:
        return tomllib.loads(content.decode())
    except RecursionError as error:
        raise refuse("it is nested too deeply") from error
    except ValueError as error:
        raise refuse(f"it is no TOML: {error}") from error


def encode(value: Any) -> bytes:
    """Write a frozen dataclass, nested ones, moments and enumerations included, as JSON that `decode` reads back.

    A number that is NaN is null there; a byte of a file name that is not UTF-8 is written as `decode` takes it.
    """
    return json.dumps(to_plain(value), indent=2, allow_nan=False).encode() + b"\n"


def to_plain(value: Any) -> dict[str, Any]:
    """Return a frozen dataclass as `encode` writes it, in JSON-ready values: for a column, a table, a larger report."""
    return cast("dict[str, Any]", to_jsonable_python(value, inf_nan_mode="null"))


def renamed(fields: Any, names: Mapping[str, str]) -> Any:
    """Give keys of a JSON object their names of now, for `from_older`; anything else comes back as it is."""
    if not isinstance(fields, dict):
        return fields
    return {names.get(key, key): value for key, value in fields.items()}


@cache
def _validator(kind: Hashable) -> SchemaValidator:
    return SchemaValidator(_failing_fast(TypeAdapter(cast("Any", kind)).core_schema))


def _failing_fast(schema: Any) -> Any:
    """Let a list end at its first wrong item: to complain of all of a long one takes a minute and gigabytes."""
    if isinstance(schema, list):
        return [_failing_fast(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _failing_fast(each) for key, each in schema.items()}
    return changed | {"fail_fast": True} if schema.get("type") in {"list", "tuple", "set", "frozenset"} else changed


def _parsed(raw: bytes, refuse: Refusal) -> Any:
    """Parse JSON that the strict parser refuses for the names in it."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise refuse("it is no JSON") from error
    level, depth = [value], 0
    while level and depth <= MOST_DEPTH:
        level = [inner for each in level for inner in _inside(each)]
        depth += 1
    if level:
        raise refuse("it is nested too deeply")
    return value


def _inside(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in values if isinstance(each, dict | list)]


def _reason(error: ValidationError) -> str:
    """Say what is wrong, and where, for the first of the errors; without the value that stands there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:LONGEST_PLACE]
    return f"{place}: {first['msg']}" if place else first["msg"]
