"""Rows of styled text, as dialogs draw them: pure functions, no Textual.

A row is a tuple of pieces; whatever is in it came from us or through
`text.visible`, and no markup parser ever sees it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from rich.style import Style

from agentvault_tui.presenters.glyphs import Glyphs
from agentvault_tui.presenters.moments import SOON, countdown
from agentvault_tui.presenters.theme import Palette
from agentvault_tui.text import TWINS, Shown, cell_width, clip, visible_lines

if TYPE_CHECKING:
    from agentvault_tui.lures import Masked

Piece = tuple[str, Style]
Row = tuple[Piece, ...]

EMPTY: Final[Row] = ()
LABEL: Final = 12
"""Cells of the column of labels."""
_TAIL: Final = 3
"""Cells of a name's end that it retains."""
_MANY: Final = 100_000


def cells(row: Row) -> int:
    """Return how wide *row* is."""
    return sum([cell_width(text) for text, _ in row])


def wrap(text: str, width: int) -> list[str]:
    """Break *text* at spaces into rows of *width* cells, and anywhere if it must."""
    rows: list[str] = []
    row, used = "", 0
    for word in text.split(" "):
        size = cell_width(word)
        if used and used + 1 + size <= width:
            row, used = f"{row} {word}", used + 1 + size
            continue
        if used:
            rows.append(row)
        if size <= width and word.isascii() and word.isprintable():
            row, used = word, size
            continue
        *full, row = visible_lines(word, max(width, 2), _MANY)
        rows += full
        used = cell_width(row)
    return [*rows, row]


@lru_cache(maxsize=64)
def masked(reason: Shown) -> Masked:
    """Mask lures in an agent's words."""
    # What it looks for takes time to load, and the first frame has no such words.
    from agentvault_tui.lures import mask_lures  # noqa: PLC0415

    return mask_lures(reason)


class Pen(Struct, frozen=True):
    """The means of writing rows: the theme's styles and the terminal's alphabet."""

    palette: Palette
    glyphs: Glyphs

    def clip(self, text: str, width: int) -> Shown:
        """Cut *text* to *width* cells, saying so by an ellipsis."""
        return clip(text, max(width, 1), ascii_only=self.glyphs.ascii_only)

    def middle(self, name: str, width: int) -> str:
        """Cut a name to *width* cells in its middle: a number often ends it."""
        if cell_width(name) <= width or width <= 2 * _TAIL:
            return self.clip(name, width)
        tail = name[-_TAIL:]
        return self.clip(name, width - cell_width(tail)) + tail

    def column(self, text: str, width: int) -> str:
        """Cut and pad *text* to a column of *width* cells, the last one blank."""
        shown = self.clip(text, width - 1)
        return shown + " " * (width - cell_width(shown))

    def own(self, text: str) -> str:
        return text.translate(TWINS) if self.glyphs.ascii_only else text

    def masked(self, reason: Shown) -> tuple[str, str]:
        """Mask lures in an agent's words; also name the masked kinds, if any."""
        text_masked = masked(reason)
        return self.own(text_masked.text), text_masked.warning

    def label(self, text: str) -> Piece:
        """Write a label, padded to its column."""
        return text.ljust(LABEL), self.palette.muted

    def fact(self, label: str, *pieces: Piece) -> Row:
        return (self.label(label), *pieces)

    def facts(
        self, label: str, text: str, width: int, most: int, style: Style | None = None
    ) -> tuple[list[Row], bool]:
        """Write a labelled text over at most *most* rows; return if truncated."""
        style = style or self.palette.text
        room = max(width - LABEL, 8)
        # Never more of it than can be drawn: this is done at every tick of a clock.
        shown = self.clip(text, room * (most + 1))
        lines = wrap(shown, room)
        truncated = len(lines) > most or shown != text
        if truncated:
            rest = " ".join(lines[most - 1 :])
            lines = [*lines[: most - 1], self.clip(rest, room)]
        rows = [
            self.fact(label if number == 0 else "", (line, style))
            for number, line in enumerate(lines)
        ]
        return rows, truncated

    def spread(self, left: Row, right: Row, width: int) -> Row:
        """Set *left* and *right* to the two edges; the right one wins."""
        gap = width - cells(left) - cells(right)
        if gap < 1:
            left = self.cut(left, width - cells(right) - 1)
            gap = width - cells(left) - cells(right)
        return (*left, (" " * max(gap, 0), self.palette.text), *right)

    def listed(self, row: Row, *, here: bool) -> Row:
        """Write a row of a list; with the cursor *here* its mark and its ground."""
        if not here:
            return (("  ", self.palette.text), *row)
        under = self.palette.under_cursor
        mark = (f"{self.glyphs.cursor} ", under(self.palette.accent))
        return (mark, *((text, under(style)) for text, style in row))

    def cut(self, row: Row, width: int) -> Row:
        """Cut *row* to *width* cells."""
        pieces: list[Piece] = []
        for text, style in row:
            room = width - cells(tuple(pieces))
            if room <= 0:
                break
            fits = cell_width(text) <= room
            pieces.append((text if fits else self.clip(text, room), style))
        return tuple(pieces)

    def paragraph(self, text: str, width: int, style: Style | None = None) -> list[Row]:
        """Write our own words, wrapped."""
        style = style or self.palette.text
        return [((line, style),) for line in wrap(self.own(text), width)]

    def keys(
        self, keys: Iterable[tuple[str, str]], *, armed: bool = True, gap: int = 3
    ) -> Row:
        """Write the keys that work, dim while they do not count yet."""
        key_style = self.palette.key if armed else self.palette.muted
        row: list[Piece] = []
        for key, words in keys:
            row += [
                (" " * gap if row else "", self.palette.muted),
                (key, key_style),
                (f" {words}", self.palette.text if armed else self.palette.muted),
            ]
        return tuple(row)

    def key_rows(
        self, keys: Iterable[tuple[str, str]], width: int, *, armed: bool = True
    ) -> list[Row]:
        """Write the keys over as many rows as they need, none cut."""
        rows: list[list[tuple[str, str]]] = [[]]
        for key in keys:
            if rows[-1] and cells(self.keys([*rows[-1], key])) > width:
                rows.append([])
            rows[-1].append(key)
        return [self.keys(row, armed=armed) for row in rows]

    def ends(self, word: str, seconds: float, *, sure: bool = True) -> Row:
        """Write when something ends; under a minute SOON, and whether that is sure."""
        if seconds <= 0:
            return ((f"{word} ended", self.palette.danger),)
        soon = seconds < SOON
        style = self.palette.waiting if soon else self.palette.text
        row: Row = (
            (f"{word} ends ", self.palette.muted),
            (countdown(seconds) + (" SOON" if soon else ""), style),
        )
        return row if sure else (*row, (" unconfirmed", self.palette.stale))

    def stage(self, state: str, words: str, when: str, column: int = 21) -> Row:
        """Write one stage: its mark, its words in a *column* of cells, its time."""
        glyphs, palette = self.glyphs, self.palette
        mark, style = {
            "done": (glyphs.done, palette.accent),
            "current": (glyphs.current, palette.waiting),
            "ahead": (glyphs.ahead, palette.muted),
            "ended": (glyphs.failed, palette.strong),
            "failed": (glyphs.failed, palette.waiting),
        }[state]
        words_style = palette.muted if state == "ahead" else palette.text
        return (
            (f"{mark} ", style),
            (f"{words.ljust(column)} ", words_style),
            (when, palette.muted),
        )
