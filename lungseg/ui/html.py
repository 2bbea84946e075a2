"""HTML of the pages. Only this module makes and draws it: text that is no `Markup` is escaped, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import streamlit as st
from markupsafe import Markup

VOID = frozenset({"img"})
"""Elements that have no content and no end tag."""


def tag(name: str, *content: str, css: str = "", **attributes: str) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        content: texts and elements, in their order.
        css: its classes.
        attributes: the others; those that are empty are left out.
    """
    pairs = {"class": css, **attributes}
    said = joined(Markup(' {}="{}"').format(key, value) for key, value in pairs.items() if value)
    start = Markup("<{}{}>").format(name, said)
    return start if name in VOID else Markup("{}{}</{}>").format(start, joined(content), name)


def div(css: str, *content: str, **attributes: str) -> Markup:
    """Return a block of classes, made as `tag` makes it."""
    return tag("div", *content, css=css, **attributes)


def bold(*content: str) -> Markup:
    """Return an emphasised text."""
    return tag("b", *content)


def joined(parts: Iterable[str], separator: str = "") -> Markup:
    """Return texts and elements one after the other; those that are empty are left out."""
    return Markup.escape(separator).join(part for part in parts if part)


def draw(content: Markup, *, width: Literal["stretch", "content"] = "stretch") -> None:
    """Draw HTML in the page."""
    st.html(str(content), width=width)


def draw_quiet(*content: str) -> None:
    """Draw a remark in small grey letters."""
    draw(div("lungseg-quiet", *content))


def draw_warning(title: str, *remedy: str, role: str = "") -> None:
    """Draw a box that says what is wrong, and what to do."""
    draw(div("lungseg-failure", bold(title), " ", *remedy, role=role))


def draw_style(sheet: str) -> None:
    """Put a style sheet of the product into the page."""
    st.html(f"<style>{sheet}</style>")
