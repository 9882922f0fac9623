"""The lines that a change replaces are drawn whole, each with its sign."""

from __future__ import annotations

from agentvault_tui.presenters import glyphs, theme
from agentvault_tui.presenters.change_lines import NO_LINES, ShownLines, line_rows
from agentvault_tui.presenters.lines import Pen, Row
from agentvault_tui.text import Shown

PEN = Pen(theme.palette("agentvault"), glyphs.UNICODE)


def texts(rows: tuple[Row, ...]) -> list[str]:
    return ["".join(text for text, _ in row).rstrip() for row in rows]


def test_a_long_line_goes_on_indented() -> None:
    """What follows cannot pass for a line of its own."""
    line = Shown("+" + "a" * 20 + "-bbbb")
    shown = ShownLines(((Shown("policy.cedar"), (Shown("@@ -1 +1 @@"), line)),))
    assert texts(line_rows(shown, PEN, 23)) == [
        "",
        "Changes in policy.cedar",
        "@@ -1 +1 @@",
        "+" + "a" * 20,
        "  -bbbb",
    ]


def test_it_says_that_lines_are_not_read() -> None:
    """A request without texts has none."""
    assert line_rows(NO_LINES, PEN, 60) == ()
    (row,) = texts(line_rows(ShownLines(None, Shown("no answer")), PEN, 60))
    assert row == "The lines that change are not read yet: no answer."
