"""The characters the console draws with, as the terminal's alphabet has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct, structs

from agentvault_tui.presenters.records import QUARTERS

FOLDS: Final = (1, 2, 3, 4, 6, 8, 12)
"""Quarters a cell may stand for; each divides the day."""


def fold_for(cells: int) -> int:
    """Return how many quarters a cell represents, so that a day fits in *cells*."""
    return next((fold for fold in FOLDS if QUARTERS // fold <= cells), FOLDS[-1])


def folded(numbers: Sequence[int], fold: int) -> list[int]:
    """Add up each *fold* numbers."""
    return [sum(numbers[n : n + fold]) for n in range(0, len(numbers), fold)]


def bars(numbers: Sequence[int], levels: str) -> str:
    """Draw numbers by height, the largest full; a small one is still visible."""
    peak, top = max(numbers, default=0), len(levels) - 1
    return "".join(
        levels[max(round(number / peak * top), 1)] if number > 0 else levels[0]
        for number in numbers
    )


class FrameGlyphs(Struct, frozen=True):
    """The six characters of a frame."""

    top_left: str = "┌"
    top_right: str = "┐"
    bottom_left: str = "└"
    bottom_right: str = "┘"
    horizontal: str = "─"
    vertical: str = "│"


class Glyphs(Struct, frozen=True):
    """One set of characters; `UNICODE` and `ASCII` are the two there are."""

    ascii_only: bool = False
    """Passed to `text.visible`, so that data follows the same rule."""
    risk_high: str = "▲▲"
    risk_medium: str = "▲ "
    risk_low: str = "· "
    done: str = "✓"
    current: str = "●"
    ahead: str = "○"
    failed: str = "✗"
    """Stages: done, under way, not yet, and gone wrong."""
    live: str = "●"
    lost: str = "○"
    pointer: str = "◀"
    """Next to the thing that needs a look."""
    cursor: str = "▌"
    """At the left edge of the row under the cursor."""
    bar_full: str = "▰"
    bar_empty: str = "▱"
    levels: str = "·▁▂▃▄▅▆▇█"
    """Bars by height, nothing first."""
    separator: str = "·"
    """Between facts on one line."""
    dash: str = "—"
    arrow: str = "→"
    mask: str = "▒"
    up: str = "↑"
    down: str = "↓"
    box: FrameGlyphs = FrameGlyphs()

    def risk(self, risk: str) -> str:
        """Return the mark of a risk, two cells wide; an unknown risk counts as high."""
        mark = {"low": self.risk_low, "medium": self.risk_medium}
        return mark.get(risk, self.risk_high)

    def bar(self, fraction: float, width: int) -> str:
        """Draw *fraction* of *width* cells full; anything left keeps one cell full."""
        fraction = min(max(fraction, 0.0), 1.0)
        full = round(fraction * width)
        if fraction > 0 and width > 0:
            full = max(full, 1)
        return self.bar_full * full + self.bar_empty * (width - full)

    def rule(self, width: int) -> str:
        return self.box.horizontal * width


UNICODE: Final = Glyphs()
ASCII: Final = Glyphs(
    ascii_only=True,
    risk_high="!!",
    risk_medium="! ",
    risk_low=". ",
    done="+",
    current="*",
    ahead="o",
    failed="x",
    live="*",
    lost="o",
    pointer="<",
    cursor=">",
    bar_full="#",
    bar_empty="-",
    levels=".:-=+*%#@",  # by how much ink each has
    separator="-",
    dash="-",
    arrow=">",
    mask="#",
    up="^",
    down="v",
    box=FrameGlyphs("+", "+", "+", "+", "-", "|"),
)
SPOKEN: Final = structs.replace(ASCII, bar_full="", bar_empty="")
"""For ears: no bars."""


_COERCED: Final = frozenset({"C.UTF-8", "C.utf8", "UTF-8"})


def choose(wanted: str, environ: Mapping[str, str]) -> Glyphs:
    """Return the alphabet for `[console] ascii` (``auto``, ``yes``, ``no``).

    ``auto`` goes by the locale as the user set it, in POSIX order: the first of LC_ALL,
    LC_CTYPE and LANG that is not empty decides. Python's own view is no use: it coerces
    the C locale to UTF-8, while the terminal stays as it is; and it puts that into
    LC_CTYPE (PEP 538), so such a word next to a LANG is not the user's. The Linux
    console takes UTF-8, but its fonts of 256 glyphs have no bars or ticks.
    """
    if wanted != "auto":
        return ASCII if wanted == "yes" else UNICODE
    if environ.get("TERM") == "linux":
        return ASCII
    names = ["LC_ALL", "LC_CTYPE", "LANG"]
    if environ.get("LC_CTYPE") in _COERCED and environ.get("LANG"):
        names.remove("LC_CTYPE")
    for name in names:
        if locale := environ.get(name, ""):
            codeset = locale.partition(".")[2].partition("@")[0]
            utf8 = codeset.lower().replace("-", "") == "utf8"
            return UNICODE if utf8 else ASCII
    return ASCII
