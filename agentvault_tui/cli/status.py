"""``agentvault status``: how a running broker is, and its team."""

from __future__ import annotations

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.operator_api.calls import STATUS
from agentvault_tui.operator_api.shapes import StatusInfo, TeamInfo


@command("status", example="agentvault status --json")
@pass_session
def status(session: CliSession) -> None:
    """Say how the broker is: its ledger, tenant and team, and what waits.

    Exits 3 when none runs; `agentvault doctor` also looks at the machine.
    """
    told, out = session.client.call(STATUS), session.out
    if out.print_json(told):
        return
    at = f", agents reach it at {told.agents_url}" if told.agents_url else ""
    out.line("broker    ", out.cell(f"version {told.version}{at}"))
    answers = "does not answer" if told.tenant.reachable is False else "answers"
    tenant = out.cell(f"{told.tenant.issuer} ({told.tenant.kind})")
    out.line("tenant    ", tenant, " ", _word(out, answers, good="answers"))
    out.line(f"ledger    {told.ledger.head} events, ", _ledger(out, told))
    waiting = f"{told.stepups_pending} waiting" if told.stepups_pending else "none wait"
    out.line(f"agents    {told.agents}")
    out.line("step-ups  ", _word(out, waiting, good="none wait"))
    out.line("panic     ", _panic(out, told))
    if told.team:
        _print_team(out, told.team, away=told.stale is True)
    for sentence in told.warnings:
        out.note(str(out.shown(sentence, 1_000)))


def _word(out: Output, text: str, *, good: str) -> Cell:
    return out.cell(text, "good" if text == good else "wait")


def _ledger(out: Output, told: StatusInfo) -> Cell:
    if told.ledger.fault:
        return out.cell(f"fault: {told.ledger.fault}", "bad", 500)
    if told.ledger.writable is False:
        return out.cell("nothing is granted, revoking works", "bad")
    return out.cell("recording", "good")


def _panic(out: Output, told: StatusInfo) -> Cell:
    on = told.panic
    if not on.on:
        return out.cell("off", "good")
    return out.cell(f"on since {on.since}, by {on.by}: {on.reason}", "bad", 500)


def _print_team(out: Output, team: TeamInfo, *, away: bool) -> None:
    """Print the team's brokers, and why one is not in step, as far as is known."""
    many = f"{len([one for one in team.brokers if one.alive])} alive"
    alive = out.cell("who is alive is not known", "wait") if away else many
    where = f", in {team.store}{', which is away' if away else ''}"
    out.line("team      ", out.cell(team.name), ", ", alive, where)
    rows = [
        [
            f"{one.id} (asked)" if one.id == team.broker else one.id,
            one.host,
            one.version,
            one.last_seen_at,
            _word(
                out, "not known" if away else one.reason or "in step", good="in step"
            ),
        ]
        for one in team.brokers
    ]
    out.table(("ID", "HOST", "VERSION", "SEEN", "STATE"), rows)
