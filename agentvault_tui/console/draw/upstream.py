"""How far a revocation is at the tenant and at providers.

Elsewhere is the tenant, and the providers whose tokens an agent was given.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from agentvault_tui.console.draw.lines import LABEL, Pen, Row
from agentvault_tui.console.state.moments import clock_time, countdown
from agentvault_tui.console.state.records import AgentRow, AtProvider, UpstreamStep

_PROVIDERS: Final = 3
"""Of an agent, named one by one."""

_OVER: Final = {
    "confirmed": ("confirmed", " "),
    "failed": ("given up", " after "),
    "left": ("left", " after "),
}
"""How a step ended, and what stands before the time it took."""
_STEP: Final = 20
"""Cells of a step's name, at most."""


def outside(agent: AgentRow, now: datetime) -> float:
    """Return for how many seconds a token that left already can still be used."""
    until = agent.outside_until
    return max((until - now).total_seconds(), 0.0) if until else 0.0


def headline(agent: AgentRow) -> str:
    """Say in few words how far they are; nothing where nothing is held."""
    steps = [s for s in agent.upstream if s.status not in {"withdrawn", "left"}]
    for step in steps:
        if step.status == "failed" and step.reason != "no_credential":
            return f"{'' if step.connection else 'tenant: '}{step.ends} given up"
    at_tenant = [step for step in steps if not step.connection]
    done = [step for step in at_tenant if step.status == "confirmed"]
    if len(done) < len(at_tenant):
        lacking = any(step.reason == "no_credential" for step in at_tenant)
        why = ", no credential" if lacking else ""
        return f"tenant {len(done)} of {len(at_tenant)}{why}"
    for step in steps:
        if step.status == "pending":
            return f"{step.ends} pending"
    if not done:
        return ""
    return f"tenant confirmed {took(max(step.ms or 0.0 for step in done))}"


def at_providers(pen: Pen, agent: AgentRow, width: int) -> list[Row]:
    """Say what a revocation would do at each provider; nothing where none is used."""
    rows: list[Row] = []
    for one in agent.at_providers[:_PROVIDERS]:
        label = "" if rows else "At provider"
        text = f"{one.connection}: {ahead(one)}"
        rows += pen.facts(label, text, width, 1)[0]
    if (more := len(agent.at_providers) - _PROVIDERS) > 0:
        rows.append(pen.fact("", (f"and {more} more", pen.palette.muted)))
    return rows


def ahead(one: AtProvider) -> str:
    """Say what a revocation would do to an account at its provider."""
    if not one.known:
        return "nothing revokes there, tokens work until they end"
    if one.kept_for:
        return f"left, {', '.join(one.kept_for)} would lose it too"
    if one.may_cut:
        return f"revoked, perhaps for {', '.join(one.may_cut)} too"
    return "the token is revoked"


def accounts(pen: Pen, agent: AgentRow, width: int) -> list[Row]:
    """Write which accounts it uses at providers, and which agents use them too."""
    if not agent.connections:
        return []
    rows = pen.facts("Accounts", ", ".join(agent.connections), width, 2)[0]
    if agent.shared_with:
        names = f"shared with {', '.join(agent.shared_with)}"
        rows += pen.facts("", names, width, 2, pen.palette.waiting)[0]
    return rows


def steps(pen: Pen, agent: AgentRow, now: datetime, width: int) -> list[Row]:
    """Write each step with its time, and how long what is outside still works."""
    p = pen.palette
    rows: list[Row] = []
    last = ""
    told: set[str] = set()
    known = [step for step in agent.upstream if step.status != "withdrawn"]
    room = min(max((len(step.ends) for step in known), default=0), _STEP)
    said = max((len(state(step)) for step in known), default=0)
    brief = LABEL + room + said + 4 > width
    for step in sorted(known, key=lambda step: bool(step.connection)):
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
        if step.problem and step.problem not in told and step.status != "confirmed":
            told.add(step.problem)
            rows += pen.facts("", step.problem, width, 3, p.muted)[0]
    return [*rows, *counting(pen, agent, now, width)]


def left(pen: Pen, agent: AgentRow, width: int) -> list[Row]:
    """Write which accounts a revocation left, and for whom."""
    rows: list[Row] = []
    for text in stays(agent):
        rows += pen.facts("" if rows else "Left", text, width, 2)[0]
    return rows


def stays(agent: AgentRow) -> list[str]:
    """Say which accounts others use as well, who are served; of many, some."""
    told = [
        f"{one.connection}, which {', '.join(one.agents)} "
        f"{'uses' if len(one.agents) == 1 else 'use'} too"
        for one in agent.shared[:_PROVIDERS]
    ]
    more = len(agent.shared) - _PROVIDERS
    return [*told, f"and {more} more"] if more > 0 else told


def counting(pen: Pen, agent: AgentRow, now: datetime, width: int) -> list[Row]:
    """Write how long what was handed out still works; nothing once it does not."""
    seconds, until = outside(agent, now), agent.outside_until
    if until is None or not seconds:
        return []
    p = pen.palette
    count, end = f"{countdown(seconds)} ", f"until {clock_time(until)}"
    whole = f"{end}, the last token's end"
    text = whole if LABEL + len(count) + len(whole) <= width else end
    return [pen.cut(pen.fact("Outside", (count, p.waiting), (text, p.muted)), width)]


def state(step: UpstreamStep, *, brief: bool = False) -> str:
    """Say how one step stands; *brief*, where there is room for no more."""
    if step.reason == "no_credential":
        return "no credential"
    if step.status in _OVER:
        word, between = _OVER[step.status]
        if step.ms is None or (brief and step.status == "failed"):
            return word
        return took(step.ms) if brief else f"{word}{between}{took(step.ms)}"
    if not step.attempts:
        return "pending"
    again = f" at {clock_time(step.next_at)}" if step.next_at and not brief else ""
    return f"retry {step.attempts}{again}"


def took(ms: float) -> str:
    """Write a duration: milliseconds below a second, then seconds, then a clock's."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 60_000 else countdown(ms / 1000)
