"""The lines that a change replaces, as rows of its dialog's full view."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from agentvault_tui.presenters.lines import EMPTY, Pen, Row
from agentvault_tui.text import Shown, visible_lines

_MANY: Final = 100_000


class ShownLines(NamedTuple):
    """The differing lines of each text, as far as they were read."""

    texts: tuple[tuple[Shown, tuple[Shown, ...]], ...] | None = ()
    """Names and lines; None until the broker has answered."""
    problem: Shown = Shown("")
    """Why it has not."""


NO_LINES: Final = ShownLines()


@lru_cache(maxsize=2)
def line_rows(shown: ShownLines, pen: Pen, width: int) -> tuple[Row, ...]:
    """Write each line in full, over as many rows as it takes.

    Args:
        shown: the lines.
        pen: writes rows.
        width: cells of a row.

    Returns:
        the rows; only the first one of a line begins with its sign.
    """
    palette, rows = pen.palette, list[Row]()
    if shown.texts is None:
        why = f": {shown.problem}" if shown.problem else ""
        unread = f"The lines that change are not read yet{why}."
        rows += pen.paragraph(unread, width, palette.waiting)
    styles = {"+": palette.strong, "@": palette.muted}
    for name, lines in shown.texts or ():
        rows += [EMPTY, *pen.paragraph(f"Changes in {name}", width, palette.muted)]
        for line in lines:
            style = styles.get(line[:1], palette.text)
            for number, row in enumerate(visible_lines(line, max(width - 2, 8), _MANY)):
                rows.append(((f"{'  ' if number else ''}{row}", style),))
    return tuple(rows)
