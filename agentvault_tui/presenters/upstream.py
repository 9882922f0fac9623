"""How far a revocation is at the tenant and at providers.

Elsewhere is the tenant, and the providers of the tokens that an agent has.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from agentvault_tui.presenters.lines import LABEL, Pen, Row
from agentvault_tui.presenters.moments import clock_time, countdown
from agentvault_tui.presenters.records import AgentRow
from agentvault_tui.presenters.revocations import outside, state, stays

_STEP: Final = 20
"""Cells of a step's name, at most."""


def accounts(pen: Pen, agent: AgentRow, width: int) -> list[Row]:
    """Write which accounts it uses at providers, and which agents use them too."""
    if not agent.connections:
        return []
    names = ", ".join(one.connection for one in agent.connections)
    rows = pen.facts("Accounts", names, width, 2)[0]
    if agent.shared_with:
        names = f"shared with {', '.join(one.name for one in agent.shared_with)}"
        rows += pen.facts("", names, width, 2, pen.palette.waiting)[0]
    return rows


def steps(pen: Pen, agent: AgentRow, now: datetime, width: int) -> list[Row]:
    """Write each step with its time, and how long the tokens outside still work."""
    p = pen.palette
    rows: list[Row] = []
    last = ""
    seen_notes: set[str] = set()
    steps_shown = [step for step in agent.upstream if step.status != "withdrawn"]
    room = min(max((len(step.ends) for step in steps_shown), default=0), _STEP)
    width_of_state = max((len(state(step)) for step in steps_shown), default=0)
    brief = LABEL + room + width_of_state + 4 > width
    for step in sorted(steps_shown, key=lambda step: bool(step.connection)):
        mark, style = {
            "confirmed": (pen.glyphs.done, p.accent),
            "failed": (pen.glyphs.failed, p.danger),
            "left": (pen.glyphs.ahead, p.muted),
        }.get(step.status, (pen.glyphs.current, p.waiting))
        place = "At provider" if step.connection else "At tenant"
        row = pen.fact(
            "" if place == last else place,
            (f"{mark} ", style),
            (f"{pen.clip(step.ends, room).ljust(room)}  ", p.text),
            (state(step, brief=brief), p.muted),
        )
        last = place
        rows.append(pen.cut(row, width))
        if (
            step.problem
            and step.problem not in seen_notes
            and step.status != "confirmed"
        ):
            seen_notes.add(step.problem)
            rows += pen.facts("", step.problem, width, 3, p.muted)[0]
    return [*rows, *counting(pen, agent, now, width)]


def left(pen: Pen, agent: AgentRow, width: int) -> list[Row]:
    """Write which accounts a revocation left, and for whom."""
    rows: list[Row] = []
    for text in stays(agent):
        rows += pen.facts("" if rows else "Stays", text, width, 2)[0]
    return rows


def counting(pen: Pen, agent: AgentRow, now: datetime, width: int) -> list[Row]:
    """Write how long issued tokens still work; nothing once they do not."""
    seconds, until = outside(agent, now), agent.outside_until
    if until is None or not seconds:
        return []
    p = pen.palette
    count, end = f"{clock_time(until)} ", f"in {countdown(seconds)}"
    whole = f"{end}, the last token's end"
    text = whole if LABEL + len(count) + len(whole) <= width else end
    row = pen.fact("Works until", (count, p.waiting), (text, p.muted))
    return [pen.cut(row, width)]
