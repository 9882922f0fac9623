"""``agentvault status``, ``calls``, ``limits``: how a running broker is right now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Cell, Output, short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, parse_iso, span
from agentvault_tui.operator_api import calls as api
from agentvault_tui.operator_api.displayer import Displayer
from agentvault_tui.operator_api.gateway import CallInfo, broker_names
from agentvault_tui.operator_api.limits import CallOutInfo
from agentvault_tui.operator_api.shapes import StatusInfo, TeamInfo
from agentvault_tui.presenters.limits import LimitRows, windows
from agentvault_tui.presenters.moments import countdown, size

_HEADERS = ("CALL", "AGENT", "STATE", "SERVICE", "REQUEST", "AGE", "IN", "OUT")


@command("status", example="agentvault status --json")
@pass_session
def status(session: CliSession) -> None:
    """Show the broker's ledger, tenant and team, and the requests that wait.

    Exits 3 if no broker runs; `agentvault doctor` also checks the machine.
    """
    info, out = session.client.call(api.STATUS), session.out
    if out.print_json(info):
        return
    at = f", agents reach it at {info.agents_url}" if info.agents_url else ""
    out.line("broker    ", out.cell(f"version {info.version}{at}"))
    answers = "does not answer" if info.tenant.reachable is False else "answers"
    tenant = out.cell(f"{info.tenant.issuer} ({info.tenant.kind})")
    out.line("tenant    ", tenant, " ", _word(out, answers, good="answers"))
    out.line(f"ledger    {info.ledger.head} events, ", _ledger(out, info))
    waiting = f"{info.stepups_pending} waiting" if info.stepups_pending else "none wait"
    out.line(f"agents    {info.agents}")
    out.line("step-ups  ", _word(out, waiting, good="none wait"))
    out.line("panic     ", _panic(out, info))
    if info.team:
        _print_team(out, info.team, away=info.stale is True)
    for sentence in info.warnings:
        out.note(str(out.shown(sentence, 1_000)))


def _word(out: Output, text: str, *, good: str) -> Cell:
    return out.cell(text, "good" if text == good else "wait")


def _ledger(out: Output, info: StatusInfo) -> Cell:
    if info.ledger.fault:
        return out.cell(f"fault: {info.ledger.fault}", "bad", 500)
    if info.ledger.writable is False:
        return out.cell("nothing is granted, revoking works", "bad")
    return out.cell("recording", "good")


def _panic(out: Output, info: StatusInfo) -> Cell:
    on = info.panic
    if not on.on:
        return out.cell("off", "good")
    return out.cell(f"on since {on.since}{on.cause}", "bad", 500)


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
            short_time(one.last_seen_at),
            _word(
                out, "not known" if away else one.reason or "in step", good="in step"
            ),
        ]
        for one in team.brokers
    ]
    out.table(("ID", "HOST", "VERSION", "SEEN", "STATE"), rows)


@command("calls", example="agentvault calls --follow")
@click.option("-f", "--follow", is_flag=True, help="Keep printing changes.")
@click.option("--cut", "call_id", metavar="ID", help="Cancel this call at once.")
@pass_session
def calls(session: CliSession, *, follow: bool, call_id: str | None) -> None:
    """List calls in flight and held; with --follow, each change until Ctrl-C."""
    client, out = session.client, session.out
    status = client.call(api.STATUS)
    names = broker_names(status.team.brokers if status.team else ())
    if call_id is not None:
        _print_call(out, client.call(api.CUT_CALL, id=call_id), names)
        return
    answer = client.call(api.IN_FLIGHT)
    if not follow:
        if out.print_json(answer):
            return
        if not answer.calls:
            out.line("no call is in flight")
            return
        now = SystemClock().now()
        rows = [
            [out.cell(text) for text in _call_texts(one, now, names)]
            for one in answer.calls
        ]
        headers = (*_HEADERS, "BROKER") if names else _HEADERS
        out.table(headers, rows, keep=("REQUEST",))
        return
    for one in answer.calls:
        _print_call(out, one, names)
    for event in client.events(status.ledger.head):
        if isinstance(event, CallInfo):
            _print_call(out, event, names)


def _print_call(out: Output, one: CallInfo, names: Mapping[str, str]) -> None:
    """Print a call's present state on a separate line."""
    if out.json_mode:
        out.json(one)
        return
    widths = (22, 20, 10, 14, 44, 7, 9, 9, 20)
    texts = _call_texts(one, SystemClock().now(), names)
    out.row(
        *((w, out.cell(t)) for w, t in zip(widths, texts, strict=False)),
        (0, out.word(one.ended or " ")),
    )


def _call_texts(
    one: CallInfo, now: datetime, names: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the columns of a call: one more where several brokers have *names*."""
    age = max((now - parse_iso(one.started_at)).total_seconds(), 0.0)
    return (
        one.id,
        one.agent_name,
        one.state if one.status is None else f"{one.state} {one.status}",
        one.service,
        one.request,
        countdown(age),
        size(one.bytes_in),
        size(one.bytes_out),
        *((names.get(one.broker or "", one.broker or "-"),) if names else ()),
    )


@command("limits", example="agentvault limits")
@pass_session
def limits(session: CliSession) -> None:
    """Show how much of each limit is used and left, and when some becomes free.

    `agentvault policy check limits.toml` checks a file before you activate it.
    """
    out, listing = session.out, session.client.call(api.LIMITS)
    if out.print_json(listing):
        return
    if listing.problem:
        out.line(out.word("fault"), " ", out.cell(listing.problem, limit=400))
    if not listing.limits:
        out.line("no limits: limits.toml in the home would have them")
    now = SystemClock().now()
    shown = Displayer(ascii_only=out.ascii_only).read(listing, LimitRows)
    rows = [
        (
            *(one.limit.id, one.subject, one.used, one.rest, one.allows),
            span(max(1, round((one.frees_at - now).total_seconds())))
            if one.frees_at
            else "-",
            one.beyond,
        )
        for one in windows(shown)
    ]
    if rows:
        headers = ("LIMIT", "FOR", "USED", "LEFT", "OF", "FREES IN", "BEYOND")
        cells = [[out.cell(text) for text in row] for row in rows]
        out.table(headers, cells, keep=("LIMIT", "FOR", "USED", "LEFT"))
    if listing.hooks:
        out.line()
        hooks = [
            [out.cell(text) for text in (one.id, one.url, f"{one.budget_ms} ms")]
            + [out.cell(_answers(one), limit=200)]
            for one in listing.hooks
        ]
        columns = ("CALL-OUT", "URL", "BUDGET", "ASKED LAST")
        out.table(columns, hooks, keep=("CALL-OUT", "ASKED LAST"))


def _answers(hook: CallOutInfo) -> str:
    """Say whether a call-out answered when it was asked last."""
    if hook.asked_at is None:
        return "not asked yet"
    outcome = hook.problem or f"answered in {hook.ms} ms"
    return f"{hook.asked_at[:19]}Z: {outcome}"
