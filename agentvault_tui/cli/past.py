"""``agentvault audit past``: what the broker knew at a moment, rebuilt from events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import Session
from agentvault_tui.cli.times import Moment
from agentvault_tui.clock import parse_iso
from agentvault_tui.errors import UsageError

_OPEN = frozenset({"pending", "authorizing"})


@command("past", example="agentvault audit past --at 2h", prints_data=True)
@click.option("--at", "at", type=Moment(), help="A time, or 10m, 2h, 3d ago.")
@click.option("--seq", type=click.IntRange(1), help="Right after this event, instead.")
@pass_session
def past(session: Session, at: str | None, seq: int | None) -> None:
    """Show agents, live tokens, waiting step-ups and panic as they were.

    All of it is rebuilt from the ledger's events; what they do not say is told.
    """
    if (at is None) == (seq is None):
        raise UsageError("give one moment", "--at TIME or --seq NUMBER")
    query = {"at": at} if seq is None else {"seq": seq}
    found = session.client.get("/api/past", **query)
    if session.json:
        session.out.json(found)
    else:
        _print(session.out, found)


def _print(out: Output, found: dict[str, Any]) -> None:
    last, panic = found["around"]["last"]["seq"], found["status"]["panic"]
    out.fields(
        [
            ("as of", out.cell(found["at"], "strong")),
            ("after event", f"{found['seq']} of {last}, recorded {found['time']}"),
            *([("panic", out.cell(_panic(panic), "bad", 400))] if panic["on"] else []),
        ]
    )
    out.line("")
    _print_agents(out, found["agents"])
    _print_waiting(out, found)
    for doubt in found["status"]["warnings"]:
        out.note(f"unsure: {doubt}")


def _panic(panic: dict[str, Any]) -> str:
    why = f": {panic['reason']}" if panic["reason"] else ""
    return f"everything stopped since {panic['since']} by {panic['by']}{why}"


def _print_agents(out: Output, agents: list[dict[str, Any]]) -> None:
    if not agents:
        out.line("no agents then")
        return
    rows = [
        [
            out.cell(agent["name"], "strong", 60),
            out.cell(agent["id"]),
            out.word(agent["status"]),
            out.cell(agent["tokens_live"]),
            *(out.cell(agent["counts"][w]) for w in ("allowed", "denied", "escalated")),
            out.cell(" ".join(agent["scopes"])),
        ]
        for agent in agents
    ]
    heads = ("NAME", "ID", "STATUS", "TOKENS", "ALLOWED", "DENIED", "ESCALATED")
    out.table((*heads, "SCOPES"), rows)


def _print_waiting(out: Output, found: dict[str, Any]) -> None:
    waiting = [each for each in found["stepups"] if each["status"] in _OPEN]
    if not waiting:
        return
    now = parse_iso(found["at"])
    out.line("")
    rows = [
        [
            out.cell(each["id"]),
            out.word(each["status"]),
            out.cell(each["agent_name"], "strong", 60),
            out.cell(each["action"]),
            out.cell(each["resource"]),
            out.cell(f"{_left(each['expires_at'], now)} s left"),
        ]
        for each in waiting
    ]
    out.table(("STEP-UP", "STATUS", "AGENT", "ACTION", "ON", "ENDS"), rows)


def _left(ends: str, now: datetime) -> int:
    return max(int((parse_iso(ends) - now).total_seconds()), 0)
