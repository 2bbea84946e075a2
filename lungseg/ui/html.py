"""HTML of the pages. Only this module makes and draws it: text that is no `Markup` is escaped, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import streamlit as st
from markupsafe import Markup

VOID = frozenset({"img"})
"""Elements that have no content and no end tag."""


def tag(name: str, *content: str, css: str = "", **attributes: str) -> Markup:
    """Return an element of texts and elements, with its classes and its other attributes; empty ones are left out."""
    pairs = {"class": css, **attributes}
    written = joined(Markup(' {}="{}"').format(key, value) for key, value in pairs.items() if value)
    start = Markup("<{}{}>").format(name, written)
    return start if name in VOID else Markup("{}{}</{}>").format(start, joined(content), name)


def div(css: str, *content: str, **attributes: str) -> Markup:
    """Return a block with these classes."""
    return tag("div", *content, css=css, **attributes)


def bold(*content: str) -> Markup:
    """Return an emphasised text."""
    return tag("b", *content)


def joined(parts: Iterable[str], separator: str = "") -> Markup:
    """Return texts and elements one after the other, without the empty ones."""
    return Markup.escape(separator).join(part for part in parts if part)


def draw(content: Markup, *, width: Literal["stretch", "content"] = "stretch") -> None:
    """Draw HTML in the page."""
    st.html(str(content), width=width)


def draw_quiet(*content: str) -> None:
    """Draw a remark in small grey type."""
    draw(div("lungseg-quiet", *content))


def draw_warning(title: str, *remedy: str, role: str = "") -> None:
    """Draw what is wrong, and what to do."""
    draw(div("lungseg-failure", bold(title), " ", *remedy, role=role))


def draw_style(sheet: str) -> None:
    """Put a style sheet of the product into the page."""
    st.html(f"<style>{sheet}</style>")
