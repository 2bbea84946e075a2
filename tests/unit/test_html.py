"""HTML of the pages: what is text stays text, and nothing but one module makes or draws any."""

import ast

import pytest

from lungseg.config import CHECKOUT
from lungseg.ui.html import bold, div, joined, tag

HOME = CHECKOUT / "lungseg" / "ui" / "html.py"


def test_text_is_escaped_and_elements_are_not():
    assert div("a", "1 < 2 & ", bold("<i>"), title='"x" <y>') == (
        '<div class="a" title="&#34;x&#34; &lt;y&gt;">1 &lt; 2 &amp; <b>&lt;i&gt;</b></div>'
    )
    assert joined(["<a>", "", bold("b")], " <> ") == "&lt;a&gt; &lt;&gt; <b>b</b>"


def test_element_put_into_a_text_is_text():
    assert tag("p", f"see {bold('x')}") == "<p>see &lt;b&gt;x&lt;/b&gt;</p>"


def test_what_is_empty_is_left_out():
    assert tag("td", "", css="", title="") == "<td></td>"
    assert tag("img", src="data:,", alt="picture") == '<img src="data:," alt="picture">'


def html_drawn_elsewhere(code):
    """Lines that draw HTML past `lungseg.ui.html`: by a method `html` of Streamlit, or as Markdown that may hold it."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if (isinstance(call.func, ast.Attribute) and call.func.attr == "html")
        or any(argument.arg == "unsafe_allow_html" for argument in call.keywords)
    ]


@pytest.mark.parametrize("code", ["st.html('')", "cell.html(x)", "st.markdown(x, unsafe_allow_html=True)"])
def test_html_drawn_elsewhere_is_noticed(code):
    assert html_drawn_elsewhere(code) == [1]


def test_html_is_drawn_in_one_module():
    sources = [CHECKOUT / "app.py", *(CHECKOUT / "pages").glob("*.py"), *(CHECKOUT / "lungseg").rglob("*.py")]
    found = {path for path in sources if html_drawn_elsewhere(path.read_text(encoding="utf-8"))}
    assert found == {HOME}
