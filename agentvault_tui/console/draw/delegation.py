"""Delegation trees as rows: token holders, and the tokens that end with each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from agentvault_tui.presenters.lines import Pen, Row, cells
from agentvault_tui.presenters.moments import countdown, plural
from agentvault_tui.presenters.records import TreeRow

_DEEPEST = 8
"""Levels that are indented; a setting allows no more."""


def tree_row(pen: Pen, row: TreeRow, now: datetime, width: int) -> Row:
    """Write one token: its holder, indented below its parent, and its scopes.

    Of several that are alike how many, and when the last of them ends.

    The count of tokens that end with it is at the end, and is never truncated.
    """
    p = pen.palette
    left = countdown((row.expires_at - now).total_seconds())
    below = f"{plural(row.below, 'token')} below" if row.below else "none below"
    end: Row = ((f"  {below}  ", p.waiting if row.below else p.muted), (left, p.muted))
    indent = "  " * min(row.depth, _DEEPEST)
    times = f" {pen.own('×')}{row.tokens:,}" if row.tokens > 1 else ""
    start: Row = (
        *((indent, p.text), (pen.clip(row.agent.name, 24), p.strong)),
        (times, p.text),
    )
    room = width - cells(start) - cells(end) - 2
    what = " ".join(part for part in (row.scope, row.resource) if part)
    text = f"  {pen.clip(what, room)}" if room > 3 else ""
    return pen.spread((*start, (text, p.text)), end, width)


def tree_rows(
    pen: Pen, rows: Sequence[TreeRow], now: datetime, width: int, most: int
) -> list[Row]:
    """Write *rows* over at most *most* lines, and count the others."""
    shown = rows if len(rows) <= most else rows[: max(most - 1, 0)]
    written = [tree_row(pen, row, now, width) for row in shown]
    if more := len(rows) - len(shown):
        written.append(((f"and {more} more", pen.palette.muted),))
    return written
