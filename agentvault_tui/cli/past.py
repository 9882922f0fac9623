"""``agentvault audit past``: what the broker knew at a moment, rebuilt from events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.cli.times import Moment
from agentvault_tui.clock import parse_iso
from agentvault_tui.errors import UsageError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.history import PastInfo
from agentvault_tui.operator_api.requests import PastQuery
from agentvault_tui.operator_api.shapes import OPEN, OUTCOMES, PanicInfo, PastAgentInfo


@command("past", example="agentvault audit past --at 2h", prints_data=True)
@click.option("--at", "at", type=Moment(), help="A time, or 10m, 2h, 3d ago.")
@click.option("--seq", type=click.IntRange(1), help="Right after this event, instead.")
@pass_session
def past(session: CliSession, at: str | None, seq: int | None) -> None:
    """Show agents, live tokens, waiting step-ups and panic as they were.

    All of it is rebuilt from the ledger's events; what they do not say is told.
    """
    if (at is None) == (seq is None):
        raise UsageError("give one moment", "--at TIME or --seq NUMBER")
    query = PastQuery(at=at) if seq is None else PastQuery(seq=seq)
    found = session.client.call(calls.PAST, query)
    if session.json:
        session.out.json(found)
    else:
        _print(session.out, found)


def _print(out: Output, found: PastInfo) -> None:
    last, panic = found.around.last, found.status.panic
    recorded = f"{found.seq} of {last.seq if last else 0}, recorded {found.time}"
    out.fields(
        [
            ("as of", out.cell(found.at, "strong")),
            ("after event", recorded),
            *([("panic", out.cell(_panic(panic), "bad", 400))] if panic.on else []),
        ]
    )
    out.line("")
    _print_agents(out, found.agents or ())
    _print_waiting(out, found)
    for doubt in found.status.warnings:
        out.note(f"unsure: {doubt}")


def _panic(panic: PanicInfo) -> str:
    why = f": {panic.reason}" if panic.reason else ""
    return f"everything stopped since {panic.since} by {panic.by}{why}"


def _print_agents(out: Output, agents: Iterable[PastAgentInfo]) -> None:
    if not agents:
        out.line("no agents then")
        return
    rows = [
        [
            out.cell(agent.name, "strong", 60),
            out.cell(agent.id),
            out.word(agent.status),
            out.cell(agent.tokens_live),
            *(out.cell(getattr(agent.counts, word)) for word in OUTCOMES),
            out.cell(" ".join(agent.scopes)),
        ]
        for agent in agents
    ]
    heads = ("NAME", "ID", "STATUS", "TOKENS", "ALLOWED", "DENIED", "ESCALATED")
    out.table((*heads, "SCOPES"), rows)


def _print_waiting(out: Output, found: PastInfo) -> None:
    waiting = [each for each in found.stepups or () if each.status in OPEN]
    if not waiting:
        return
    now = parse_iso(found.at)
    out.line("")
    rows = [
        [
            out.cell(each.id),
            out.word(each.status),
            out.cell(each.agent_name, "strong", 60),
            out.cell(each.action),
            out.cell(each.resource),
            out.cell(f"{_left(each.expires_at, now)} s left"),
        ]
        for each in waiting
    ]
    out.table(("STEP-UP", "STATUS", "AGENT", "ACTION", "ON", "ENDS"), rows)


def _left(ends: str, now: datetime) -> int:
    return max(int((parse_iso(ends) - now).total_seconds()), 0)
