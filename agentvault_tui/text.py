"""Makes untrusted text displayable; nothing else may.

Agents, upstreams and the tenant choose names, reasons, parameters and error texts.
Until `visible` has seen them they are plain `str`; afterwards they are `Shown`, the
only type a screen, a log line or a terminal may receive. An allow-list, because Unicode
grows: letters, marks, numbers, punctuation, symbols and the plain space stay, and every
other code point is spelled out. No two texts look the same: a text that looks like a
spelled out character is spelled out itself. So `visible` is for raw text, once; a
`Shown` text is truncated by `clip`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NewType

Shown = NewType("Shown", str)
"""Text that is safe to draw: no control, format or bidirectional character is left."""

_VISIBLE: Final = frozenset("LMNPS")
_MAX_MARKS: Final = 2
_LONGEST_SPELLED: Final = 10
"""Cells that a code point takes at most, spelled out or escaped."""
UNDRAWN: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\u2800\U0001107f\U00013441\U00013442\U00016fe4\U0001d159]"
)
"""Characters that draw nothing, though some are letters, marks or symbols: those with
the property Default_Ignorable_Code_Point (UAX 44; DerivedCoreProperties.txt of Unicode
17.0), and in the last line the empty Braille cell, Brahmi's number joiner, Egyptian
blanks, Khitan's filler and the null notehead."""
_ELLIPSIS: Final = "…"
_LIKE_SPELLED: Final = re.compile("⟦(?=U\\+[0-9A-F]{4,6}⟧)|⏎")
_LIKE_ESCAPED: Final = re.compile(r"\\(?=n|u[0-9a-f]{4}|U[0-9a-f]{8})", re.IGNORECASE)
"""The characters that `visible` itself writes, in raw text."""
TWINS: Final = str.maketrans(
    {
        **dict(zip("·…→▒—×⟦⟧", "-~>#-x[]", strict=True)),
        "⏎": "\\n",
    }
)
"""Our own characters in ASCII."""
_NARROW: Final = re.compile("[ -~\u00a1-\u00ac\u00ae-\u02ff‐-‧←-⇿─-◼✓✗]*")
"""Ranges without a wide, combining or hidden character: no table is needed."""


def visible(raw: object, limit: int = 200, *, ascii_only: bool = False) -> Shown:
    """Make *raw* displayable in at most *limit* terminal cells, on one line.

    Line breaks become ``⏎`` and other hidden characters ``⟦U+202E⟧``; so do marks
    beyond two on a letter, and those that would draw the same as one character. With
    *ascii_only* all that is not ASCII is escaped, as Python and JSON do it. Cut text
    ends in ``…``.
    """
    text = raw if isinstance(raw, str) else str(raw)
    if ascii_only:
        if "\\" in text:
            text = _LIKE_ESCAPED.sub(r"\\u005c", text)
        if not text.isascii():
            text = "".join([c if c.isascii() else _escaped(c) for c in text])
    elif not text.isascii():
        text = _LIKE_SPELLED.sub(lambda match: _spelled(match[0]), text)
    return clip(text, limit, ascii_only=ascii_only)


def clip(text: str, limit: int, *, ascii_only: bool = False) -> Shown:
    """Cut displayable or our own *text* to at most *limit* cells, on one line.

    Characters still hidden in it are spelled out; applied twice it changes nothing.
    """
    if text.isascii() and text.isprintable():
        # Nearly all there is, at five hundred events a second.
        if len(text) <= limit:
            return Shown(text)
        return Shown(text[: max(limit - 1, 0)] + ("~" if ascii_only else _ELLIPSIS))
    if ascii_only:
        text = text.translate(TWINS)
    pieces: list[str] = []
    cells, before = 0, ""
    for character in text:
        piece = _escaped(character) if ascii_only else _piece(character, before)
        if len(piece) == 1 and _joins(piece):
            before += piece
        else:
            before = piece if len(piece) == 1 else ""  # none is drawn on a spelled one
        pieces.append(piece)
        cells += cell_width(piece)
        if cells > limit:
            return _truncate(pieces, cells, limit, "~" if ascii_only else _ELLIPSIS)
    return Shown("".join(pieces))


def in_full(raw: str) -> Shown:
    """Make *raw* displayable with nothing cut, where a person decides by it."""
    return visible(raw, limit=max(_LONGEST_SPELLED * len(raw), 1))


def visible_lines(
    text: str, limit: int, lines: int, *, ascii_only: bool = False
) -> list[Shown]:
    """Wrap displayable *text* in full into rows of *limit* cells.

    For the one place where a person asked to see everything; at most *lines* rows,
    the last saying how much is missing.
    """
    most = max(_LONGEST_SPELLED * len(text), 1)
    shown = clip(text, most, ascii_only=ascii_only)
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
    """Check whether each character of *text* is known to take one cell."""
    return text.isascii() or _NARROW.fullmatch(text) is not None


def _width(character: str) -> int:
    """Return the cells of one character, negative for one that has no place."""
    # Its tables take longer to load than a console takes to draw its first frame.
    from wcwidth import wcwidth  # noqa: PLC0415

    return wcwidth(character)


def _piece(character: str, before: str) -> str:
    """Return the form of *character* after a letter and its marks."""
    if character.isascii() and character.isprintable():
        return character
    if character == "\n":
        return "⏎"
    visible = unicodedata.category(character)[0] in _VISIBLE
    if not visible or UNDRAWN.match(character) or _width(character) < 0:
        return _spelled(character)
    if _joins(character):
        alone = not before or len(before) > _MAX_MARKS
        # An e and an acute look like the one letter, and are not equal to it.
        if alone or not unicodedata.is_normalized("NFC", before + character):
            return _spelled(character)
    return character


def _joins(character: str) -> bool:
    """Check whether a character is drawn on the one before it."""
    return not character.isascii() and (
        unicodedata.category(character)[0] == "M" or _width(character) == 0
    )


def _spelled(character: str) -> str:
    return f"⟦U+{ord(character):04X}⟧"


def _escaped(character: str) -> str:
    """Write a character that is not printable ASCII as Python and JSON do."""
    if character.isascii() and character.isprintable():
        return character
    if character == "\n":
        return "\\n"
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _truncate(pieces: list[str], cells: int, limit: int, mark: str) -> Shown:
    """Drop whole pieces from the end until *mark* fits within *limit* cells."""
    while pieces and cells > limit - 1:
        cells -= cell_width(pieces.pop())
    return Shown("".join(pieces) + mark)
