"""Values narrowed to the type that a test expects: a test that meets None, or another type, fails there."""

from typing import TypeVar

T = TypeVar("T")


def existing(value: T | None) -> T:
    """Return a value that has to be there."""
    assert value is not None, "it is missing"
    return value


def of_type(kind: type[T], value: object) -> T:
    """Return a value that has to be of a type."""
    assert isinstance(value, kind), f"it is a {type(value).__name__}, not a {kind.__name__}"
    return value
