"""Untrusted text comes out displayable, bounded and visible, whatever went in."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.text import cell_width, visible, visible_lines

ANY_TEXT = st.text(st.characters(codec=None), max_size=300)


@given(ANY_TEXT, st.integers(1, 120))
def test_whatever_goes_in_is_bounded(raw: str, limit: int) -> None:
    """The result never takes more cells than asked for."""
    assert cell_width(visible(raw, limit)) <= limit


@given(ANY_TEXT)
def test_no_hidden_character_comes_out(raw: str) -> None:
    """Only letters, marks, numbers, punctuation, symbols and the space are left."""
    shown = visible(raw, 10_000)
    assert all(c == " " or unicodedata.category(c)[0] in "LMNPS" for c in shown)


@given(ANY_TEXT)
def test_ascii_mode_is_printable_ascii(raw: str) -> None:
    """In ASCII mode only printable ASCII comes out."""
    shown = visible(raw, 10_000, ascii_only=True)
    assert shown.isascii()
    assert shown.isprintable()


@given(ANY_TEXT)
def test_showing_twice_changes_nothing(raw: str) -> None:
    """What is displayable stays as it is, so no text is made stranger by a detour."""
    once = visible(raw, 100_000)
    assert visible(once, 100_000) == once


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J", "⟦U+001B⟧[2J"),
        ("\x9b31m", "⟦U+009B⟧31m"),
        ("a\u202eb", "a⟦U+202E⟧b"),
        ("a\u200bb", "a⟦U+200B⟧b"),
        ("a\u3164b", "a⟦U+3164⟧b"),
        ("a\ufe0fb", "a⟦U+FE0F⟧b"),
        ("a\nb", "a⏎b"),
        ("a\u00a0b", "a⟦U+00A0⟧b"),
        ("[bold]x[/]", "[bold]x[/]"),
        ("\ud800", "⟦U+D800⟧"),
    ],
)
def test_hostile_characters_are_spelled_out(raw: str, shown: str) -> None:
    """Escapes, bidirectional and invisible characters become visible; markup stays."""
    assert visible(raw) == shown


def test_a_cut_text_says_so() -> None:
    """Text that does not fit ends in an ellipsis, and text that fits does not."""
    assert visible("x" * 11, 10) == "x" * 9 + "…"
    assert visible("x" * 10, 10) == "x" * 10


def test_stacked_marks_are_thinned() -> None:
    """A tower of combining marks keeps two storeys."""
    assert visible("e" + "\u0301" * 50) == "e\u0301\u0301"


@given(ANY_TEXT, st.integers(2, 80), st.integers(2, 20))
def test_viewing_in_full_stays_within_its_frame(
    raw: str, width: int, rows: int
) -> None:
    """Wrapped text keeps to the asked width and number of rows."""
    lines = visible_lines(raw, width, rows)
    assert len(lines) <= rows
    assert all(cell_width(line) <= max(width, 30) for line in lines)
