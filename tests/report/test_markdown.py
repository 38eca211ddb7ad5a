"""Names from files of others stay text in Markdown."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from perikarya.report.markdown import escape, table_lines
from perikarya.report.words import Cell, Table

HOSTILE = (
    "<script>alert(1)</script>", "[click](javascript:alert(1))", "![x](http://a.b/c.png)", "**bold**", "_soft_",
    "`code`", "a|b", "# heading", "&lt;b&gt;", "<http://a.b>", "line\nbreak | <b>", "[a]: http://x", "\\<b>",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_escaped_renders_as_itself(text: str) -> None:
    renderer = MarkdownIt("commonmark")
    tokens = renderer.parse(escape(text))
    inline = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inline} <= {"text", "text_special"}
    assert "".join(child.content for child in inline) == " ".join(text.split())


@pytest.mark.parametrize("text", ["efficientnet_lite0", "scores [1, 2] rest", "a_b_c 3.5 %"])
def test_harmless_text_is_left_readable(text: str) -> None:
    assert escape(text) == text


def test_a_hostile_name_cannot_add_a_column() -> None:
    table = Table("T", ["a|b", "c"], [[Cell("x|y"), Cell("1", "0–2")]])
    lines = table_lines(table)
    html = MarkdownIt("commonmark").enable("table").render("\n".join(lines))
    assert html.count("<td") == 2
    assert html.count("<th>") == 2
    assert "x|y" in html
    assert "1 (0–2)" in html
