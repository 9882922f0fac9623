"""``agentvault stepup``: list step-ups, show, approve and deny them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import click
from msgspec import to_builtins

from agentvault_tui.cli.device import followed, print_device
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import find_agent
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.console.state.records import STEPUP_WORDS, stepup_state
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.requests import DecisionRequest, StepUpQuery
from agentvault_tui.operator_api.shapes import StepUpInfo
from agentvault_tui.text import Shown, clip

_GRANTED: Final = frozenset({"approved", "redeemed"})


@group("stepup", example="agentvault stepup list")
def stepup() -> None:
    """Decide the requests that policy puts before a person."""


@stepup.command("list", example="agentvault stepup list --status waiting")
@click.option(
    "--status", help="Only those: waiting, verifying, approved, denied and so on."
)
@click.option("--agent", help="Only this agent's: id or unique name.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50)
@pass_session
def list_stepups(
    session: CliSession, status: str | None, agent: str | None, limit: int
) -> None:
    """List what waits, then what was decided last."""
    client, out = session.client, session.out
    agent_id = find_agent(client, agent).id if agent else None
    wire = {word: name for name, word in STEPUP_WORDS.items()}
    status = wire.get(status, status) if status else None
    query = StepUpQuery(status=status, agent=agent_id, limit=limit)
    answer = client.call(calls.STEPUPS, query)
    if out.print_json(answer):
        return
    if not answer.stepups:
        out.line("nothing waits for a person")
        return
    out.table(
        (
            "ID",
            "STATUS",
            "AGENT",
            "ACTION",
            "RESOURCE",
            "RISK",
            "FINGERPRINT",
            "EXPIRES",
        ),
        [
            [
                item.id,
                out.word(stepup_state(item.status)),
                out.cell(item.agent_name, "strong", 40),
                out.cell(item.action, limit=40),
                out.cell("NOTHING LIMITS IT", "bad")
                if item.unlimited
                else out.cell(item.resource, limit=40),
                out.word(item.risk),
                *(item.fingerprint, item.expires_at[11:19] + "Z"),
            ]
            for item in answer.stepups
        ],
    )


@stepup.command("show", example="agentvault stepup show sup_8m1c4tq9x2w7k3zn")
@click.argument("stepup_id", metavar="ID")
@pass_session
def show_stepup(session: CliSession, stepup_id: str) -> None:
    """Show exactly what would be approved, its fingerprint, and what was before."""
    client, out = session.client, session.out
    found = client.call(calls.STEPUP, id=stepup_id)
    before = client.call(calls.BEFORE, id=stepup_id).stepups
    if not out.print_json({**to_builtins(found), "before": before}):
        print_stepup(out, found, before)


@stepup.command("approve", example="agentvault stepup approve sup_8m1c4tq9x2w7k3zn")
@click.argument("stepup_id", metavar="ID")
@pass_session
def approve_stepup(session: CliSession, stepup_id: str) -> int:
    """Approve with a second factor: prints the code and waits for the tenant.

    Exits 0 when approved, else 1. Leaving with Ctrl-C stops the waiting, not the
    sign-in.
    """
    client, out = session.client, session.out
    asked = client.call(calls.STEPUP, id=stepup_id)
    if not session.json:
        before = client.call(calls.BEFORE, id=stepup_id).stepups
        print_stepup(out, asked, before)
    # The digest of what was printed above, not of whatever stands there by now.
    approval = DecisionRequest(id=asked.id, decision="approve", digest=asked.digest)
    started = client.call(calls.DECIDE, approval)
    if session.json:
        out.json(started)
    elif started.device:
        print_device(session, started.device)
    ended = followed(
        session,
        lambda: client.call(calls.STEPUP, id=stepup_id),
        lambda item: item.status == "authorizing",
    )
    if not out.print_json(ended):
        _print_end(out, ended)
    return 0 if ended.status in _GRANTED else 1


@stepup.command(
    "deny", example="agentvault stepup deny sup_8m1c4tq9x2w7k3zn --reason 'no invoice'"
)
@click.argument("stepup_id", metavar="ID")
@click.option("--reason", default="", help="Why; the agent reads it.")
@pass_session
def deny_stepup(session: CliSession, stepup_id: str, reason: str) -> None:
    """Say no; needs no second factor, and works while someone is approving."""
    denial = DecisionRequest(id=stepup_id, decision="deny", reason=reason)
    denied = session.client.call(calls.DECIDE, denial)
    if not session.out.print_json(denied):
        _print_end(session.out, denied)


def print_stepup(out: Output, item: StepUpInfo, before: Iterable[StepUpInfo]) -> None:
    """Print what a decision is about; the agent's own words last."""
    from agentvault_tui.console.state import stepups as words
    from agentvault_tui.console.state.intake import Intake

    make = Intake(ascii_only=out.ascii_only).stepup
    row, agent = make(item), out.shown(item.agent_name, 60)
    if row.unlimited:
        out.line(Cell(Shown(words.no_limits(row)), "bad"))
    now = SystemClock().now()
    then = [make(each) for each in before]
    times = "once, at" if item.count == 1 else f"{item.count} times, first at"
    decided = [words.tally(then), *words.sentences(then, row, now)]
    out.fields(
        [
            ("step-up", item.id),
            ("fingerprint", out.cell(item.fingerprint, "strong")),
            ("agent", Cell(Shown(f"{agent} ({out.shown(item.agent_id)})"))),
            ("wants to", out.cell(item.action, "strong")),
            ("on", item.resource),
            *_listed("with", map(" = ".join, row.parameters or (("no parameters",),))),
            *_listed("also", map(" = ".join, row.others)),
            ("scope", item.scope),
            ("risk", out.word(item.risk)),
            ("asked by", f"{item.rule}: {item.why}"),
            ("you grant", f"{words.granted(row)}, recorded under your name"),
            ("asked", f"{times} {item.requested_at}"),
            ("expires", item.expires_at),
            ("status", out.word(stepup_state(item.status))),
            ("problem", item.problem) if item.problem else None,
            *_decider(out, item),
            *_listed("before", decided),
            ("it says (unverified)", out.own_words(item.reason, 2000, "quiet"))
            if item.reason
            else None,
        ]
    )


def _listed(label: str, lines: Iterable[str]) -> list[tuple[str, Cell]]:
    """Put each on a line of its own, under one label."""
    return [
        (label if number == 0 else "", Cell(clip(line, 1080)))
        for number, line in enumerate(lines)
    ]


def _decider(out: Output, item: StepUpInfo) -> list[tuple[str, Cell]]:
    by = item.decided_by
    if not by:
        return []
    factor = f", {'+'.join(by.amr)}" if by.amr else ""
    rows = [("decided by", out.cell(f"{by.name} ({by.sub}{factor})"))]
    if item.denial:
        rows.append(("reason", out.cell(item.denial, limit=1000)))
    return rows


def _print_end(out: Output, item: StepUpInfo) -> None:
    out.line(out.word(stepup_state(item.status)), " ", out.cell(item.id))
    if item.decided_by:
        out.line("by ", out.cell(item.decided_by.name))
    if item.problem:
        out.line("problem: ", out.cell(item.problem, limit=500))
