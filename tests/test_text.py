"""Untrusted text comes out displayable, bounded and visible, whatever went in."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.needs import needs

from agentvault_tui.lookalikes import fold_text
from agentvault_tui.policy.resources import canonical
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


UNDRAWN = """
00AD 034F 061C 115F..1160 17B4..17B5 180B..180F 200B..200F 202A..202E 2060..206F 3164
FE00..FE0F FEFF FFA0 FFF0..FFF8 1BCA0..1BCA3 1D173..1D17A E0000..E0FFF
2800 1107F 13441..13442 16FE4 1D159
"""
"""Default_Ignorable_Code_Point of Unicode 17.0, as DerivedCoreProperties.txt writes it,
and in the last line characters whose glyph is empty by definition."""


def undrawn(text: str) -> set[int]:
    """Return the code points of a table."""
    ends = [[int(end, 16) for end in one.split("..")] for one in text.split()]
    return {code for one in ends for code in range(one[0], one[-1] + 1)}


def test_a_character_that_draws_nothing_is_spelled_out() -> None:
    """Also a letter, mark or symbol, in each place of a text."""
    for code in undrawn(UNDRAWN):
        spelled = f"⟦U+{code:04X}⟧"
        assert visible(f"acme{chr(code)}.test") == f"acme{spelled}.test"
        assert visible(chr(code)) == spelled
        assert fold_text(f"a{chr(code)}b") == "ab"
        assert canonical(f"rec:a{chr(code)}b") is None


NODE = shutil.which("node")
_LIST = r"""
for (let code = 0; code < 0x110000; code++) {
  const character = String.fromCodePoint(code)
  if (/\p{Default_Ignorable_Code_Point}/u.test(character)) {
    console.log(code.toString(16))
  }
}
"""


@needs(NODE, "Node.js, which has Unicode's properties")
def test_the_table_has_the_whole_property() -> None:
    """Each Default_Ignorable_Code_Point that Node.js knows is one of the table."""
    listed = subprocess.run(
        [str(NODE), "-e", _LIST], check=True, capture_output=True, text=True, timeout=60
    )
    ignorable = undrawn(listed.stdout)
    assert len(ignorable) > 4_000
    assert ignorable <= undrawn(UNDRAWN)


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
