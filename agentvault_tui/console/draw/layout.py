"""Where things stand on each screen, as plain rectangles."""

from __future__ import annotations

from typing import Final, NamedTuple

TWO_COLUMNS: Final = 120
"""From this width on the home screen has columns; below it stacks."""
THREE_COLUMNS: Final = 160
_TIGHT: Final = 16
"""Below this many rows one column shows one pane."""
_MOST_WAITING: Final = 3
"""Waiting requests that have a row each where there are columns."""
_MOST_AGENTS: Final = 8
"""Agents of a stacked screen, in one line each."""
_LEAST_AGENTS: Final = 3
_LAST_EVENTS: Final = 6
"""Rows of the last events of an agent, with their title, under its facts."""
_AGENT_COLUMNS: Final = 100
"""From this width on the screen of an agent has columns."""


class Box(NamedTuple):
    """A rectangle in cells."""

    x: int
    y: int
    width: int
    height: int


def frame(
    width: int, height: int, masthead: int, bar: int, line: str = ""
) -> tuple[dict[str, Box], int]:
    """Place the common parts of every screen; also return the top rows.

    Args:
        width: of the screen, in cells.
        height: of the screen, in cells.
        masthead: rows it needs; it gets a third of the screen at most.
        bar: rows for waiting requests.
        line: the line above the keys, if there is one.
    """
    head = min(masthead, max(height // 3, 1))
    boxes = {
        "masthead": Box(0, 0, width, head),
        "keys": Box(0, height - 1, width, 1),
    }
    if bar:
        boxes["waiting"] = Box(0, head, width, bar)
    if line:
        boxes[line] = Box(0, height - 2, width, 1)
    return boxes, head + bar


def plan(
    width: int,
    height: int,
    *,
    masthead: int,
    bar: int,
    filtering: bool,
    big: str,
    agents: int,
) -> dict[str, Box]:
    """Place the panes of the home screen, stacked or in two or three columns.

    *big* is the pane that has, or last had, the focus; *bar* is the rows for waiting
    requests, and there are so many *agents*.
    """
    stacked = width < TWO_COLUMNS
    boxes, top = frame(width, height, masthead, bar, "filter" if filtering else "")
    top += height - top - filtering >= _TIGHT
    body = Box(0, top, width, max(height - 1 - filtering - top, 1))
    if stacked:
        return boxes | _stacked(body, big, agents)
    return boxes | (_two(body, big) if width < THREE_COLUMNS else _three(body))


def bar_rows(width: int, height: int, waiting: int) -> int:
    """Return how many rows so many *waiting* requests have on the home screen."""
    if not waiting or height < _TIGHT:
        return min(waiting, 1)
    return 1 + (min(waiting, _MOST_WAITING) if width >= TWO_COLUMNS else 1)


def _stacked(body: Box, big: str, agents: int) -> dict[str, Box]:
    """Agents in one line each over the feed; on low screens one of the two."""
    x, y, width, height = body
    if height < _TIGHT - 3:
        return {"audit" if big == "audit" else "agents": body}
    listed = min(agents, _MOST_AGENTS, max(height // 3, _LEAST_AGENTS))
    upper = 1 + max(listed, _LEAST_AGENTS)
    return {
        "agents": Box(x, y, width, upper),
        "audit": Box(x, y + upper, width, height - upper),
    }


def _two(body: Box, big: str) -> dict[str, Box]:
    """Agents over details at the left, or one of them; the audit at the right."""
    x, y, width, height = body
    left = min(width * 40 // 100, 60)
    below = min(max(height * 2 // 5, 10), 24)
    if height - below < 8:
        below = 0
    boxes = {
        "agents": Box(x, y, left, height - below - (1 if below else 0)),
        "rule": Box(x + left, y, 1, height),
        "audit": Box(x + left + 1, y, width - left - 1, height),
    }
    if below:
        boxes["details"] = Box(x, y + height - below, left, below)
    elif big == "details":
        boxes["details"] = boxes.pop("agents")
    return boxes


def _three(body: Box) -> dict[str, Box]:
    x, y, width, height = body
    left = min(width * 32 // 100, 60)
    middle = max(min(width * 24 // 100, 56), 44)
    rest = width - left - middle - 2
    return {
        "agents": Box(x, y, left, height),
        "rule": Box(x + left, y, 1, height),
        "details": Box(x + left + 1, y, middle, height),
        "rule2": Box(x + left + 1 + middle, y, 1, height),
        "audit": Box(x + left + middle + 2, y, rest, height),
    }


_BESIDE: Final = 150
"""From here on the event is next to the list."""
_BELOW: Final = 24
"""With so many rows it is below; with fewer, one of the two is shown."""
_LIST: Final = 9


def plan_audit(
    width: int,
    height: int,
    *,
    masthead: int,
    waiting: bool,
    line: str,
    opened: bool,
    inside: bool,
) -> dict[str, Box]:
    """Return a box for everything on the audit screen that is shown.

    Args:
        width: of the screen, in cells.
        height: of the screen, in cells.
        masthead: rows it needs.
        waiting: whether a step-up waits.
        line: the line above the keys: ``prompt``, ``filter`` or nothing.
        opened: whether one event is shown in full.
        inside: whether that has the focus.
    """
    boxes, top = frame(width, height, masthead, waiting, line)
    room = max(height - 1 - bool(line) - top, 1)
    if room > _TIGHT and not waiting:
        top, room = top + 1, room - 1
    if not opened:
        return boxes | {"audit": Box(0, top, width, room)}
    if width >= _BESIDE:
        left = width * 56 // 100
        return boxes | {
            "audit": Box(0, top, left, room),
            "rule": Box(left, top, 1, room),
            "evidence": Box(left + 1, top, width - left - 1, room),
        }
    if room < _BELOW:
        return boxes | {"evidence" if inside else "audit": Box(0, top, width, room)}
    upper = max(room * 2 // 5, _LIST)
    return boxes | {
        "audit": Box(0, top, width, upper),
        "evidence": Box(0, top + upper + 1, width, room - upper - 1),
    }


WIDE: Final = 190
"""From here on events stand next to everything else, at full height."""
_LEFT: Final = 119
"""As wide as a day of 96 quarters needs."""
_WHO: Final = 3
_DAY: Final = 5
_LOW: Final = 20
"""Below this many rows one pane is shown at a time."""


def plan_agent(
    width: int, height: int, *, masthead: int, waiting: bool, day: bool, big: str
) -> dict[str, Box]:
    """Place the panes of an agent by width; on low screens one at a time.

    *big* is the pane that has, or last had, the focus; *day* says whether there is
    anything to show of the last 24 hours.
    """
    bar = (2 if height >= _LOW else 1) if waiting else 0
    boxes, top = frame(width, height, masthead, bar)
    top += height >= _LOW
    body = Box(0, top, width, max(height - 1 - top, 1))
    if height < _LOW:
        return boxes | _small(body, big)
    if width < _AGENT_COLUMNS:
        return boxes | _agent_one(body, big, day=day)
    wide = _agent_two if width < WIDE else _agent_three
    return boxes | wide(body, day=day)


def _small(body: Box, big: str) -> dict[str, Box]:
    x, y, width, height = body
    if height < 3:
        return {big: body}
    return {"who": Box(x, y, width, 1), big: Box(x, y + 1, width, height - 1)}


def _agent_one(body: Box, big: str, *, day: bool) -> dict[str, Box]:
    """Who it is and its day, over the pane that has the focus.

    If that is another pane, the day is one line; under the facts are the last events.
    """
    x, y, width, height = body
    boxes, used = _top(Box(x, y, width, height), _WHO - 1, day=day)
    if day and big != "day":
        boxes["day"] = Box(x, y + _WHO - 1, width, 1)
        used = _WHO + 1
    if big == "events":
        return boxes | {"events": Box(x, y + used, width, height - used)}
    under = height - used
    last = _LAST_EVENTS if under >= 2 * _LAST_EVENTS and big != "day" else 0
    if last:
        boxes["events"] = Box(x, y + height - last, width, last)
    return boxes | {"facts": Box(x, y + used, width, under - last - bool(last))}


def _agent_two(body: Box, *, day: bool) -> dict[str, Box]:
    """Who it is and its day at full width; facts and events next to each other."""
    x, y, width, height = body
    boxes, used = _top(body, _WHO, day=day)
    left = width // 2 - 1
    under = height - used
    return boxes | {
        "facts": Box(x, y + used, left, under),
        "rule": Box(x + left, y + used, 1, under),
        "events": Box(x + left + 1, y + used, width - left - 1, under),
    }


def _agent_three(body: Box, *, day: bool) -> dict[str, Box]:
    x, y, width, height = body
    boxes, used = _top(Box(x, y, _LEFT, height), _WHO, day=day)
    return boxes | {
        "facts": Box(x, y + used, _LEFT, height - used),
        "rule": Box(x + _LEFT, y, 1, height),
        "events": Box(x + _LEFT + 1, y, width - _LEFT - 1, height),
    }


def _top(body: Box, who: int, *, day: bool) -> tuple[dict[str, Box], int]:
    """Return who it is, its day if it has one, and the rows both take."""
    x, y, width, _ = body
    boxes = {"who": Box(x, y, width, who)}
    if not day:
        return boxes, who + 1
    boxes["day"] = Box(x, y + who + 1, width, _DAY)
    return boxes, who + 1 + _DAY + 1
