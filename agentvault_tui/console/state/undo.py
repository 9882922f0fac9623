"""Taking a restore back: for ten seconds, one key, for the agent that was restored.

Revoking is free, so nothing more is asked; what is undone is captured when the agent
was restored, whatever the cursor is on by then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentvault_tui.console.draw.lines import Pen, Row
from agentvault_tui.text import Shown

if TYPE_CHECKING:
    from datetime import datetime

    from agentvault_tui.console.desk import Desk
    from agentvault_tui.console.state.actions import Revoked
    from agentvault_tui.console.state.records import AgentRow

SECONDS: Final = 10.0
KEY: Final = "z"
REASON: Final = "the restore was undone"
_BAR: Final = 10


@dataclass(frozen=True, slots=True)
class Undo:
    """A restore that can still be taken back."""

    agent_id: str
    name: Shown
    until: float
    """In boot seconds: a clock that is set changes nothing."""
    since: int
    """The last event seen before the restore was asked for."""
    revoked_at: datetime | None
    """When the agent was revoked that was restored."""


def offer(desk: Desk, agent: AgentRow, since: int) -> None:
    """Let the restore of *agent*, made just now, be taken back for a while.

    *since* is the last event that had been seen when it was asked for.
    """
    until = desk.mirror.clock.boot() + SECONDS
    desk.undo = Undo(agent.id, agent.name, until, since, agent.revoked_at)


def offered(desk: Desk) -> Undo | None:
    """Return what can be taken back now.

    Nothing any more once the agent was revoked anyway: who serves it again after
    that has decided anew, and it is not ours to take back. Nothing yet while the
    agent's state is the one before the restore: the reply may come before the stream
    tells of it.
    """
    undo, mirror = desk.undo, desk.mirror
    if undo is None:
        return None
    agent = mirror.agents.get(undo.agent_id)
    if (
        mirror.clock.boot() >= undo.until
        or agent is None
        or (agent.revoked and agent.revoked_at != undo.revoked_at)
        or mirror.revoked_by.get(undo.agent_id, 0) > undo.since
        or mirror.read_from > undo.since  # what happened between was not seen
    ):
        desk.undo = None
        return None
    return None if agent.revoked else undo


async def take_back(desk: Desk, undo: Undo) -> Revoked:
    """Revoke the agent that was restored.

    Offered again if that was refused, unless a newer restore is offered by then.
    """
    desk.undo = None
    try:
        return await desk.actions.revoke(undo.agent_id, REASON)
    except BaseException:
        if offered(desk) is None:
            desk.undo = undo
        raise


def bar(pen: Pen, undo: Undo, now: float, key: str = KEY) -> Row:
    """Draw the time left, the key, and whom it cuts off."""
    p, left = pen.palette, max(undo.until - now, 0.0)
    return (
        (f"{pen.glyphs.bar(left / SECONDS, _BAR)} ", p.waiting),
        (f"undo {math.ceil(left)} s  ", p.waiting),
        (key, p.key),
        (f" revokes {pen.clip(undo.name, 40)} again", p.text),
    )
