"""Rows: never wider than asked, nothing lost, times that never flatter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.presenters import glyphs, lines, theme
from agentvault_tui.text import cell_width, visible

PEN = lines.Pen(theme.palette("agentvault"), glyphs.UNICODE)


@given(st.text(max_size=200), st.integers(2, 40))
def test_wrapping_keeps_the_width_and_every_word(text: str, width: int) -> None:
    """No row is wider than asked, and only blanks are lost."""
    shown = visible(text, 10_000)
    rows = lines.wrap(shown, width)
    assert all(cell_width(row) <= width for row in rows)
    assert "".join(rows).replace(" ", "") == shown.replace(" ", "")


@given(st.text(max_size=80), st.text(max_size=20), st.integers(30, 80))
def test_spreading_keeps_the_right_hand_side(left: str, right: str, width: int) -> None:
    """However long the left is, the right stands whole at the edge."""
    style = PEN.palette.text
    end = visible(right, 20)
    row = PEN.spread(((visible(left, 500), style),), ((end, style),), width)
    assert lines.cells(row) == width
    assert row[-1][0] == end


def test_countdowns_round_down() -> None:
    """What is left is never said to be more than it is."""
    assert lines.countdown(59.99) == "0:59"
    assert lines.countdown(0.4) == "0:00"
    assert lines.countdown(-5) == "0:00"
    assert lines.countdown(3661) == "1:01:01"


def test_a_cut_is_told() -> None:
    """A text over its rows ends in an ellipsis and says that it was cut."""
    rows, cut = PEN.facts("On", "word " * 100, 40, 2)
    assert cut
    assert len(rows) == 2
    assert rows[1][-1][0].endswith("…")
    assert PEN.facts("On", "word", 40, 2)[1] is False


def test_an_end_is_a_word_before_it_is_a_colour() -> None:
    """Under a minute SOON, at zero ended, and unconfirmed when the link is gone."""

    def said(row: lines.Row) -> str:
        return "".join(text for text, _ in row)

    assert said(PEN.ends("code", 61)) == "code ends 1:01"
    assert said(PEN.ends("code", 59)) == "code ends 0:59 SOON"
    assert said(PEN.ends("code", 0)) == "code ended"
    assert said(PEN.ends("code", 90, sure=False)) == "code ends 1:30 unconfirmed"
