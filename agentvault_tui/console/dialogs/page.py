"""One state of a dialog, as plain rows: what is drawn, and where its inputs stand."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentvault_tui.console.draw.lines import Row


@dataclass(frozen=True, slots=True)
class Page:
    """Compared with the one before: what is equal is not drawn again."""

    title: Row
    remark: Row = ()
    """At the right end of the title's line: countdowns."""
    body: tuple[Row, ...] = ()
    footer: tuple[Row, ...] = ()
    """Stays at the bottom, below a body that may scroll."""
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By a child widget's id: its column and its row in the body."""
    foot: str = ""
    """In the lower edge of the frame: what others do; it moves no row."""
    danger: bool = False
    """Draws the frame in the colour of what destroys."""
