"""How far a revocation is at the tenant: closed here is not yet confirmed there."""

from __future__ import annotations

from datetime import datetime

from agentvault_tui.console.lines import Pen, Row, countdown
from agentvault_tui.console.records import AgentRow, UpstreamStep


def outside(agent: AgentRow, now: datetime) -> float:
    """Return for how many seconds a token that left already can still be used."""
    until = agent.outside_until
    return max((until - now).total_seconds(), 0.0) if until else 0.0


def headline(agent: AgentRow) -> str:
    """Say in few words how far the tenant is; nothing where it holds nothing."""
    steps = [step for step in agent.upstream if step.status != "withdrawn"]
    if not steps:
        return ""
    failed = [step for step in steps if step.status == "failed"]
    if failed:
        return f"tenant: {failed[0].step} given up"
    done = [step for step in steps if step.status == "confirmed"]
    if len(done) < len(steps):
        return f"tenant {len(done)} of {len(steps)}"
    return f"tenant confirmed {took(max(step.ms or 0.0 for step in done))}"


def steps(pen: Pen, agent: AgentRow, now: datetime, width: int) -> list[Row]:
    """Write each step with its time, and how long what is outside still works."""
    p = pen.palette
    rows: list[Row] = []
    for step in agent.upstream:
        if step.status == "withdrawn":
            continue
        mark, style = {
            "confirmed": (pen.glyphs.done, p.accent),
            "failed": (pen.glyphs.failed, p.danger),
        }.get(step.status, (pen.glyphs.current, p.waiting))
        label = "" if rows else "At tenant"
        row = pen.fact(
            label,
            (f"{mark} ", style),
            (f"{pen.clip(step.step, 20).ljust(20)} ", p.text),
            (state(step), p.muted),
        )
        rows.append(pen.cut(row, width))
        if step.problem and step.status != "confirmed":
            rows += pen.facts("", step.problem, width, 2, p.muted)[0]
    if left := outside(agent, now):
        text = "until the last token already handed out ends"
        row = pen.fact("Outside", (f"{countdown(left)} ", p.waiting), (text, p.muted))
        rows.append(pen.cut(row, width))
    return rows


def state(step: UpstreamStep) -> str:
    """Say how one step stands."""
    if step.status == "confirmed":
        return f"confirmed {took(step.ms)}" if step.ms is not None else "confirmed"
    if step.status == "failed":
        return "given up"
    return f"retry {step.attempts}" if step.attempts else "pending"


def took(ms: float) -> str:
    """Write a duration: milliseconds below a second, else seconds."""
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
