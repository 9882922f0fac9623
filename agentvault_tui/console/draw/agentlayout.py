"""Where things stand on an agent's screen, as plain rectangles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.console.draw.layout import TWO_COLUMNS, Box

WIDE: Final = 190
"""From here on events stand beside everything else, at full height."""
_LEFT: Final = 119
"""As wide as a day of 96 quarters needs."""
_WHO: Final = 3
_DAY: Final = 5
_LOW: Final = 20
"""Below this many rows one pane is shown at a time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the layout depends on beside the size."""

    masthead: int = 1
    waiting: bool = False
    big: str = "facts"
    """The pane that has, or last had, the focus."""


def plan(width: int, height: int, wanted: Wanted) -> dict[str, Box]:
    """Return a box for everything that is shown."""
    head = min(wanted.masthead, max(height // 3, 1))
    bar = (2 if height >= _LOW else 1) if wanted.waiting else 0
    boxes = {
        "masthead": Box(0, 0, width, head),
        "keys": Box(0, height - 1, width, 1),
    }
    if bar:
        boxes["waiting"] = Box(0, head, width, bar)
    top = head + bar + (height >= _LOW)
    body = Box(0, top, width, max(height - 1 - top, 1))
    if height < _LOW:
        return boxes | _small(body, wanted.big)
    if width < TWO_COLUMNS:
        return boxes | _one(body, wanted.big)
    return boxes | (_two(body) if width < WIDE else _three(body))


def _small(body: Box, big: str) -> dict[str, Box]:
    """Who it is in a line, and one pane."""
    x, y, width, height = body
    if height < 3:
        return {big: body}
    return {"who": Box(x, y, width, 1), big: Box(x, y + 1, width, height - 1)}


def _one(body: Box, big: str) -> dict[str, Box]:
    """Who it is and its day, over the pane that has the focus."""
    x, y, width, height = body
    boxes = _top(Box(x, y, width, height), _WHO - 1)
    used = _WHO - 1 + 1 + _DAY + 1
    low = "facts" if big == "day" else big
    return boxes | {low: Box(x, y + used, width, height - used)}


def _two(body: Box) -> dict[str, Box]:
    """Who it is and its day at full width; facts and events beside each other."""
    x, y, width, height = body
    used = _WHO + 1 + _DAY + 1
    left = width // 2 - 1
    under = height - used
    return _top(body, _WHO) | {
        "facts": Box(x, y + used, left, under),
        "rule": Box(x + left, y + used, 1, under),
        "events": Box(x + left + 1, y + used, width - left - 1, under),
    }


def _three(body: Box) -> dict[str, Box]:
    """Events at the right, at full height."""
    x, y, width, height = body
    used = _WHO + 1 + _DAY + 1
    return _top(Box(x, y, _LEFT, height), _WHO) | {
        "facts": Box(x, y + used, _LEFT, height - used),
        "rule": Box(x + _LEFT, y, 1, height),
        "events": Box(x + _LEFT + 1, y, width - _LEFT - 1, height),
    }


def _top(body: Box, who: int) -> dict[str, Box]:
    x, y, width, _ = body
    return {
        "who": Box(x, y, width, who),
        "day": Box(x, y + who + 1, width, _DAY),
    }
