"""JSON that may be damaged, decoded into frozen dataclasses.

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
MOST_DEPTH = 200
"""Lists in lists, as many as the parser of pydantic allows."""
LONGEST_PLACE = 80
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""JSON for a byte of a file name that is not UTF-8; the strict parser refuses it."""
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
"""Values that are only stored and shown, such as the settings of an old release."""

KIND = "kind"


def _kind_of(value: Any) -> str | None:
    kind = value.get(KIND) if isinstance(value, dict) else None
    return str(kind) if kind else None


BY_KIND = Discriminator(_kind_of)
"""Marks a union of classes, each tagged by `Tag`; the JSON names the tag under `kind`."""
from_older = model_validator(mode="before")
"""Marks the class method of a dataclass that converts JSON of older releases before it is decoded.

The method gets any value, and returns unchanged what it does not know.
"""


def decode(kind: type[Kind], data: bytes | str, refuse: Refusal) -> Kind:
    """Decode JSON text into a value of `kind`: a frozen dataclass, nested ones included, or a plain annotation.

    Lists become tuples where the dataclass says so; unknown keys are passed over, so that an older release reads what a
    newer one wrote; missing keys and wrong types are refused.

    Args:
        kind: type of the value.
        data: the text, in UTF-8.
        refuse: makes the error to raise from the reason, which holds no value of the text.

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
    """Decode values that were parsed from JSON, such as a column of the database; otherwise as `decode`."""
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
    """Parse UTF-8 TOML that people write; raises what `refuse` makes from what is wrong, with line and column."""
    if len(content) > MOST_TOML_BYTES:
        raise refuse(f"it has more than {MOST_TOML_BYTES // 1024} KB")
    try:
        return tomllib.loads(content.decode())
    except RecursionError as error:
        raise refuse("it is nested too deeply") from error
    except ValueError as error:
        raise refuse(f"it is no TOML: {error}") from error


def encode(value: Any) -> bytes:
    """Write a frozen dataclass, nested ones and datetimes included, as JSON that `decode` reads; NaN is null."""
    return json.dumps(to_plain(value), indent=2, allow_nan=False).encode() + b"\n"


def to_plain(value: Any) -> dict[str, Any]:
    """Return a frozen dataclass as JSON-ready values, as `encode` writes it."""
    return cast("dict[str, Any]", to_jsonable_python(value, inf_nan_mode="null"))


def renamed(fields: Any, names: Mapping[str, str]) -> Any:
    """Rename keys of a JSON object, for `from_older`; anything else is returned unchanged."""
    if not isinstance(fields, dict):
        return fields
    return {names.get(key, key): value for key, value in fields.items()}


@cache
def _validator(kind: Hashable) -> SchemaValidator:
    return SchemaValidator(_failing_fast(TypeAdapter(cast("Any", kind)).core_schema))


def _failing_fast(schema: Any) -> Any:
    """Stop validating a list at its first wrong item: the errors of a long list take a minute and gigabytes."""
    if isinstance(schema, list):
        return [_failing_fast(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    fast = {key: _failing_fast(value) for key, value in schema.items()}
    return fast | {"fail_fast": True} if schema.get("type") in {"list", "tuple", "set", "frozenset"} else fast


def _parsed(raw: bytes, refuse: Refusal) -> Any:
    """Parse JSON that the strict parser refuses for its file names."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise refuse("it is no JSON") from error
    containers: list[Any] = [[value]]
    depth = -1
    while containers and depth <= MOST_DEPTH:
        values = [inner for outer in containers for inner in (outer.values() if isinstance(outer, dict) else outer)]
        containers = [inner for inner in values if isinstance(inner, dict | list)]
        depth += 1
    if containers:
        raise refuse("it is nested too deeply")
    return value


def _reason(error: ValidationError) -> str:
    """Return what is wrong first, and where, without the value."""
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, detail["loc"]))[:LONGEST_PLACE]
    return f"{place}: {detail['msg']}" if place else detail["msg"]
