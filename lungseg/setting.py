"""How a setting is declared: a field of a dataclass that one environment variable sets, which `config` alone reads."""

from __future__ import annotations

from dataclasses import field
from typing import Any

HIGHEST_PORT = 65535
VARIABLE = "variable"
"""Key of a field's metadata: the environment variable that sets it."""


def setting(variable: str, text: str, remedy: str = "", **default: Any) -> Any:
    """Declare a field that a variable sets; the README has its `text`, the error for an unusable value its `remedy`."""
    return field(**default, metadata={VARIABLE: variable, "text": text, "remedy": remedy})
