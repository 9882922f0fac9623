"""Untrusted text comes out displayable, bounded and visible, whatever went in."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.text import cell_width, clip, visible, visible_lines

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


@given(ANY_TEXT, st.booleans())
def test_clipping_what_is_displayable_changes_nothing(
    raw: str, ascii_only: bool
) -> None:
    """So no text is made stranger by a detour."""
    once = visible(raw, 100_000, ascii_only=ascii_only)
    assert clip(once, 100_000, ascii_only=ascii_only) == once


LOOKS_SPELLED = st.lists(
    st.sampled_from([*"\\uUn⟦⟧ée\u0301⏎\n\r\u202e\u1100\u1161가"])
    | st.sampled_from(["00e9", "000000e9", "U+00E9", "U+0301"]),
    max_size=8,
).map("".join)


@given(LOOKS_SPELLED, LOOKS_SPELLED, st.booleans())
def test_different_texts_never_look_the_same(
    one: str, other: str, ascii_only: bool
) -> None:
    """Also not as one character and a letter with a mark, or as an escape typed out."""
    shown = [visible(raw, 1000, ascii_only=ascii_only) for raw in (one, other)]
    same = len({unicodedata.normalize("NFC", text) for text in shown}) == 1
    assert same == (one == other)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("größe", r"gr\u00f6\u00dfe"),
        (r"gr\u00f6\u00dfe", r"gr\u005cu00f6\u005cu00dfe"),
        ("😀", r"\U0001f600"),
        ("a\nb", r"a\nb"),
        (r"a\nb", r"a\u005cnb"),
        (r"C:\temp", r"C:\temp"),
    ],
)
def test_without_unicode_letters_are_escaped(raw: str, shown: str) -> None:
    """In a locale that is not UTF-8, as Python and JSON write them."""
    assert visible(raw, ascii_only=True) == shown


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


def test_marks_that_stack_are_spelled_out() -> None:
    """A letter keeps two combining marks."""
    assert visible("q" + "\u0301" * 3) == "q\u0301\u0301⟦U+0301⟧"


@given(ANY_TEXT, st.integers(2, 80), st.integers(2, 20))
def test_viewing_in_full_stays_within_its_frame(
    raw: str, width: int, rows: int
) -> None:
    """Wrapped text keeps to the asked width and number of rows."""
    lines = visible_lines(raw, width, rows)
    assert len(lines) <= rows
    assert all(cell_width(line) <= max(width, 30) for line in lines)
