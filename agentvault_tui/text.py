"""Untrusted text becomes displayable text here, and nowhere else.

Agents, upstreams and the tenant choose names, reasons, parameters and error texts.
Until `visible` has seen them they are plain `str`; afterwards they are `Shown`, the
only type a screen, a log line or a terminal may receive.
An allow-list, because Unicode grows: letters, marks, numbers, punctuation, symbols and
the plain space stay, and every other code point is spelled out.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NewType

Shown = NewType("Shown", str)
"""Text that is safe to draw: no control, format or bidirectional character is left."""

_KEPT: Final = frozenset("LMNPS")
_MAX_MARKS: Final = 2
_BLANK: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters and symbols that draw nothing: Hangul fillers, the empty Braille cell."""
_SELECTORS: Final = re.compile(
    "[\ufe00-\ufe0f\U000e0100-\U000e01ef\u180b-\u180d\u180f]"
)
"""Variation selectors: marks by category, invisible by nature."""
_ELLIPSIS: Final = "…"
_NARROW: Final = re.compile("[ -~\u00a1-\u00ac\u00ae-\u02ff‐-‧←-⇿─-◼✓✗]*")
"""Ranges without a wide, combining or hidden character: no table is needed."""


def visible(raw: object, limit: int = 200, *, ascii_only: bool = False) -> Shown:
    """Make *raw* displayable in at most *limit* terminal cells, on one line.

    Line breaks become ``⏎``, other hidden characters ``⟦U+202E⟧``; at most two
    combining marks stay on a letter. Cut text ends in ``…``.
    """
    text = raw if isinstance(raw, str) else str(raw)
    if text.isascii() and text.isprintable():
        # Nearly all there is, at five hundred events a second.
        if len(text) <= limit:
            return Shown(text)
        return Shown(text[: max(limit - 1, 0)] + ("~" if ascii_only else _ELLIPSIS))
    pieces: list[str] = []
    cells = marks = 0
    for character in text:
        piece, marks = _piece(character, marks, ascii_only=ascii_only)
        pieces.append(piece)
        cells += cell_width(piece)
        if cells > limit:
            return _cut(pieces, cells, limit, "~" if ascii_only else _ELLIPSIS)
    return Shown("".join(pieces))


def in_full(raw: str) -> Shown:
    """Make *raw* displayable with nothing cut, where a person decides by it.

    No code point is spelled out in more than ten cells.
    """
    return visible(raw, limit=max(10 * len(raw), 1))


def visible_lines(raw: str, limit: int, lines: int) -> list[Shown]:
    """Make *raw* displayable in full, wrapped into rows of *limit* cells.

    For the one place where a person asked to see everything; at most *lines* rows,
    the last saying how much is missing.
    """
    shown = visible(raw, limit=max(len(raw) * 10, 1))
    rows: list[Shown] = []
    row, cells = "", 0
    for character in shown:
        width = max(_width(character), 0)
        if cells + width > limit:
            rows.append(Shown(row))
            row, cells = "", 0
        row += character
        cells += width
    rows.append(Shown(row))
    if len(rows) > lines:
        missing = sum(len(rest) for rest in rows[lines - 1 :])
        rows = [*rows[: lines - 1], Shown(f"+ {missing} more characters")]
    return rows


def cell_width(text: str) -> int:
    """Return how many terminal cells *text* takes."""
    if text.isascii() or narrow(text):  # the first is nearly all, and no call
        return len(text)
    return sum(max(_width(character), 0) for character in text)


def narrow(text: str) -> bool:
    """Tell whether each character of *text* is known to take one cell."""
    return text.isascii() or _NARROW.fullmatch(text) is not None


def _width(character: str) -> int:
    """Return the cells of one character, negative for one that has no place."""
    # Its tables take longer to load than a console takes to draw its first frame.
    from wcwidth import wcwidth  # noqa: PLC0415

    return wcwidth(character)


def _piece(character: str, marks: int, *, ascii_only: bool) -> tuple[str, int]:
    """Return what stands for *character*, and how many marks its base now has."""
    if character == " ":
        return " ", 0
    if character in "\n\r":
        return ("\\n" if ascii_only else "⏎"), 0
    if character.isascii() and character.isprintable():
        return character, 0
    kind = unicodedata.category(character)[0]
    hidden = character in _BLANK or _SELECTORS.match(character)
    if kind in _KEPT and not hidden and _width(character) >= 0:
        if ascii_only:
            return "?", 0
        if kind != "M":
            return character, 0
        return ("", marks) if marks >= _MAX_MARKS else (character, marks + 1)
    spelled = f"U+{ord(character):04X}"
    return (f"[{spelled}]" if ascii_only else f"⟦{spelled}⟧"), 0


def _cut(pieces: list[str], cells: int, limit: int, mark: str) -> Shown:
    """Drop whole pieces from the end until *mark* fits within *limit* cells."""
    while pieces and cells > limit - 1:
        cells -= cell_width(pieces.pop())
    return Shown("".join(pieces) + mark)
