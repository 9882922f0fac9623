"""Glyphs: an ASCII twin of the same width for each, chosen as the locale says."""

from __future__ import annotations

import pytest
from msgspec.structs import fields

from agentvault_tui.presenters import glyphs
from agentvault_tui.text import cell_width


def test_every_glyph_has_a_twin_of_the_same_width() -> None:
    """Swapping alphabets moves nothing on the screen."""
    for kind in (glyphs.Glyphs, glyphs.FrameGlyphs):
        for field in fields(kind):
            source = glyphs.UNICODE if kind is glyphs.Glyphs else glyphs.UNICODE.box
            target = glyphs.ASCII if kind is glyphs.Glyphs else glyphs.ASCII.box
            one, twin = getattr(source, field.name), getattr(target, field.name)
            if isinstance(one, str):
                assert twin.isascii()
                assert cell_width(one) == cell_width(twin), field.name


@pytest.mark.parametrize(
    ("environ", "ascii_only"),
    [
        ({"LANG": "en_GB.UTF-8"}, False),
        ({"LANG": "en_GB.utf8"}, False),
        ({"LANG": "C"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, True),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "C"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),  # as Python coerces it
        ({"LANG": "C", "LC_CTYPE": "de_DE.UTF-8"}, False),
        ({"LC_CTYPE": "C.UTF-8"}, False),
        ({"LANG": "en_GB.UTF-8", "TERM": "linux"}, True),
        ({"LANG": "en_GB.UTF-8", "TERM": "tmux-256color"}, False),
        ({"LANG": "en_GB.UTF-8", "LC_CTYPE": "POSIX"}, True),
        ({"LANG": "sr_RS.UTF-8@latin"}, False),
        ({"LC_ALL": "", "LANG": "en_GB.UTF-8"}, False),
        ({}, True),
    ],
)
def test_auto_goes_by_the_locale(environ: dict[str, str], ascii_only: bool) -> None:
    """LC_ALL beats LC_CTYPE beats LANG; only UTF-8 gets the drawn glyphs."""
    assert glyphs.choose("auto", environ).ascii_only is ascii_only


def test_the_setting_beats_the_locale() -> None:
    """`ascii = "yes"` and `"no"` are obeyed."""
    assert glyphs.choose("yes", {"LANG": "C.UTF-8"}) is glyphs.ASCII
    assert glyphs.choose("no", {"LANG": "C"}) is glyphs.UNICODE


def test_a_bar_is_full_only_when_full_and_empty_only_when_empty() -> None:
    """A sliver left still shows, and the width never changes."""
    pen = glyphs.ASCII
    assert pen.bar(1.0, 8) == "########"
    assert pen.bar(0.001, 8) == "#-------"
    assert pen.bar(0.0, 8) == "--------"
    assert pen.bar(-1, 4) == "----"
    assert pen.bar(7, 4) == "####"


def test_risk_marks_are_shapes() -> None:
    """High, medium and low differ without colour; an unknown risk is high."""
    for alphabet in (glyphs.UNICODE, glyphs.ASCII):
        marks = [alphabet.risk(risk) for risk in ("high", "medium", "low")]
        assert len(set(marks)) == 3
        assert {cell_width(mark) for mark in marks} == {2}
        assert alphabet.risk("?") == alphabet.risk_high
