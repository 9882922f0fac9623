"""``agentvault audit``: read, search, export and verify the audit log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import islice, takewhile
from typing import Any, Final

import click
from msgspec import to_builtins
from msgspec.structs import replace

from agentvault_tui.cli.event_search import EventFilter, Moment, search_options
from agentvault_tui.cli.evidence import export, verify
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, parse_iso
from agentvault_tui.errors import (
    LedgerDamagedError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.gateway import broker_names
from agentvault_tui.operator_api.history import (
    EventInfo,
    EventProofInfo,
    PastInfo,
    StoryInfo,
)
from agentvault_tui.operator_api.proof import Proof
from agentvault_tui.operator_api.requests import PastQuery
from agentvault_tui.operator_api.shapes import OUTCOMES, HeadInfo, StatusInfo
from agentvault_tui.operator_api.stepups import OPEN
from agentvault_tui.presenters import event_words
from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.outcomes import event_phrase
from agentvault_tui.presenters.records import stepup_state
from agentvault_tui.text import Shown

_RETRY: Final = 1.0


@group("audit", example="agentvault audit tail --follow")
def audit() -> None:
    """Read, search, export and verify the audit log (the ledger)."""


@cache
def _empty_directory(*, ascii_only: bool) -> Directory:
    """Return a directory without agents, to word events."""
    return Directory(SystemClock(), ascii_only=ascii_only)


def print_event(
    out: Output,
    event: EventInfo,
    name_of: Callable[[str], str] = str,
    brokers: Mapping[str, str] | None = None,
) -> None:
    """Print *event*; columns have fixed widths, because the next one is not known.

    Args:
        out: where to.
        event: the event.
        name_of: returns the name of an agent's id, or the id.
        brokers: the distinct names of a team's brokers, by id.
    """
    if out.json_mode:
        out.json(event)
        return
    directory = _empty_directory(ascii_only=out.ascii_only)
    row = directory.intake.event(event)
    deed, why = event_words.deed(row), event_words.why(directory, row)
    if event.type == "tenant.log":  # a sentence, which the last column has room for
        deed, why = event_phrase(event.type), row.reason
    about = [event_words.place(row), event_words.note(row)]
    if event.actor.kind != "agent" and event.agent_id:
        # Whose it is stands nowhere else in what others did about an agent.
        about.append(out.shown(event.detail.get("agent") or name_of(event.agent_id)))
    if event.outcome == "denied":
        detail = event.detail
        called = detail.get("tool") or f"{detail.get('method')} {detail.get('path')}"
        if row.action and (detail.get("path") or detail.get("tool")):
            about.append(out.shown(called))
    # What came of a call is in the broker's words: its numbers are no code.
    came = event.type == "gateway.result" and not event.reason
    theirs = event.actor.kind == "agent" and not came
    broker = str(event.detail.get("broker", "-"))
    by = (
        ()
        if brokers is None
        else ((20, out.cell(brokers.get(broker, broker), "quiet")),)
    )
    out.row(
        (7, out.cell(event.seq, "quiet")),
        (20, out.cell(event.time[:19] + "Z", "quiet")),
        (8, out.word(row.word)),
        *by,
        (18, Cell(row.actor.name, "strong")),
        (20, Cell(Shown(deed))),
        (30, Cell(Shown(" ".join(filter(None, about))))),
        (0, out.own_words(why) if theirs else Cell(Shown(why))),
    )


def _brokers(status: StatusInfo) -> dict[str, str] | None:
    """Return distinct names of the team's brokers, by id; None without a team."""
    return broker_names(status.team.brokers) if status.team else None


def _names(client: OperatorClient) -> Callable[[str], str]:
    """Return the function from agent to name, asked for once; its id if unknown."""

    @cache
    def name_of(agent_id: str) -> str:
        try:
            return str(client.call(calls.AGENT, id=agent_id).name)
        except NotFoundError:
            return agent_id

    return name_of


@audit.command("show", example="agentvault audit show 1842")
@click.argument("seq", type=click.IntRange(1))
@pass_session
def show(session: CliSession, seq: int) -> int:
    """Print event SEQ in full: related events, exact body, and check of its hash.

    The link of the chain is computed here, from the body. Exits 1 if it is wrong.
    """
    proof_info = session.client.call(calls.EVENT, seq=seq)
    story = session.client.call(calls.STORY, seq=seq)
    proof = Proof.read(replace(proof_info, seq=seq), proof_info.ledger)
    problem = proof.problem()
    if not problem and proof.event() != proof_info.event:
        problem = "the body tells another event than the broker shows"
    if session.json:
        session.out.json(
            {
                **to_builtins(proof_info),
                "verified": not problem,
                "problem": problem,
                "story": story.events,
                "story_complete": story.complete,
            }
        )
    else:
        _print_proof(session.out, proof_info, story, proof, problem)
    return 1 if problem else 0


def _print_proof(
    out: Output,
    proof_info: EventProofInfo,
    story: StoryInfo,
    proof: Proof,
    problem: str,
) -> None:
    from agentvault_tui.presenters.evidence import EventEvidence, evidence

    directory = _empty_directory(ascii_only=out.ascii_only)
    row, *rows = map(directory.intake.event, (proof_info.event, *story.events))
    proof_of_event = EventEvidence(proof, tuple(rows), story.complete, row.seq)
    out.rows(
        evidence(
            *(out.pen, directory, row, proof_of_event, problem),
            width=out.width or 100,
            raw=False,
            raw_key="the last line",
        )
    )
    out.line(Cell(out.shown(proof_info.body, 100_000)))


@audit.command("past", example="agentvault audit past --at 2h")
@click.option("--at", "at", type=Moment(), help="A time, or 10m, 2h, 3d ago.")
@click.option("--seq", type=click.IntRange(1), help="Right after this event, instead.")
@pass_session
def past(session: CliSession, at: str | None, seq: int | None) -> None:
    """Show agents, live tokens, waiting step-ups and panic as they were.

    Everything is rebuilt from the ledger's events; uncertain parts are marked.
    """
    if (at is None) == (seq is None):
        raise UsageError("give one moment", "--at TIME or --seq NUMBER")
    query = PastQuery(at=at) if seq is None else PastQuery(seq=seq)
    past_info = session.client.call(calls.PAST, query)
    if not session.out.print_json(past_info):
        _print_past(session.out, past_info)


def _print_past(out: Output, past_info: PastInfo) -> None:
    last, panic = past_info.around.last, past_info.status.panic
    recorded = (
        f"{past_info.seq} of {last.seq if last else 0}, recorded {past_info.time}"
    )
    stopped = f"everything stopped since {panic.since}{panic.cause}"
    out.fields(
        [
            ("as of", out.cell(past_info.at, "strong")),
            ("after event", recorded),
            ("panic", out.cell(stopped, "bad", 400)) if panic.on else None,
        ]
    )
    out.line("")
    agents = [
        [
            out.cell(agent.name, "strong", 60),
            agent.id,
            out.word(agent.status),
            agent.tokens_live,
            *(getattr(agent.counts, word) for word in OUTCOMES),
            " ".join(agent.scopes),
        ]
        for agent in past_info.agents or ()
    ]
    if agents:
        counts = map(str.upper, OUTCOMES)
        out.table(("NAME", "ID", "STATUS", "TOKENS", *counts, "SCOPES"), agents)
    else:
        out.line("no agents then")

    def left(ends: str) -> int:
        return max(int((parse_iso(ends) - parse_iso(past_info.at)).total_seconds()), 0)

    waiting = [
        [
            each.id,
            out.word(stepup_state(each.status)),
            out.cell(each.agent_name, "strong", 60),
            *(each.action, each.resource, f"{left(each.expires_at)} s left"),
        ]
        for each in past_info.stepups or ()
        if each.status in OPEN
    ]
    if waiting:
        out.line("")
        out.table(("STEP-UP", "STATUS", "AGENT", "ACTION", "ON", "ENDS"), waiting)
    for doubt in past_info.status.warnings:
        out.note(f"unsure: {doubt}")


@audit.command(
    "accept",
    on_home=True,
    example="agentvault audit accept --reason 'restored the backup of Monday'",
)
@click.option("--reason", required=True, help="Why; it is recorded.")
@pass_session
def accept(session: CliSession, reason: str) -> None:
    """Continue from an older copy of the ledger that was put back on purpose.

    Lost events stay lost; the ledger records who accepted this, and why. Columns that
    differ from the hashed bodies of events are corrected by them.
    """
    if not reason.strip():
        raise UsageError("accepting is recorded with a reason", "give --reason R")
    from agentvault_tui.ledger import accept_rollback, accept_store

    home, clock, settings = session.home, SystemClock(), session.settings
    if settings.store.url:
        work = accept_store(
            home, settings, clock=clock, actor=session.operator, reason=reason
        )
    else:
        work = accept_rollback(home, clock=clock, actor=session.operator, reason=reason)
    event = asyncio.run(work)
    if not session.out.print_json({"head": event.seq, "hash": event.hash}):
        session.out.line(f"accepted, and recorded as event {event.seq}")


@audit.command("tail", example="agentvault audit tail -n 20 --follow")
@click.option(
    *("-n", "number"),
    type=click.IntRange(0, 100_000),
    help="At most N: the latest, by default 20; with --after, the first.",
)
@click.option(
    "--after",
    metavar="SEQ",
    type=click.IntRange(0),
    help="All events after this number: continue where a reader stopped.",
)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new events.")
@pass_session
def tail(
    session: CliSession, number: int | None, after: int | None, follow: bool
) -> None:
    """Print the latest events, oldest first; --follow misses and repeats none."""
    client, out = session.client, session.out
    status = client.call(calls.STATUS)
    head, brokers = status.ledger.head, _brokers(status)
    events: Iterable[EventInfo]
    if after is None:
        latest = 20 if number is None else number
        events = EventFilter().newest(client, head + 1, latest)
    elif after > head:
        raise NotFoundError(
            f"the ledger ends at event {head}, before {after}",
            "it is another one than was read, or an older copy: "
            "`agentvault audit verify`",
        )
    elif follow and number is not None:
        raise UsageError("-n would leave a gap", "follow --after SEQ without it")
    else:
        behind = EventFilter().oldest_first(client, after)
        until_head = takewhile(lambda event: event.seq <= head, behind)
        events = islice(until_head, number)
    name_of = _names(client)
    for event in events:
        print_event(out, event, name_of, brokers)
    if follow:
        _follow(session, head, brokers)


@audit.command(
    "search",
    example="agentvault audit search --agent payments-agent --outcome denied "
    "--since 2h invoice",
)
@search_options
@click.option(
    "-n",
    "number",
    type=click.IntRange(1),
    help="Only the latest N; default: all.",
)
@pass_session
def search(session: CliSession, /, number: int | None, **given: Any) -> None:
    """Print matching events, oldest first; TEXT may be anywhere in them.

    TEXT with keys is a filter as in the console: owner:ann -outcome:allowed since:2h.
    """
    client, out = session.client, session.out
    wanted = EventFilter.of(client, out, **given)
    events: Iterable[EventInfo]
    status = client.call(calls.STATUS)
    if number is None:
        events = wanted.oldest_first(client)
    else:
        events = wanted.newest(client, status.ledger.head + 1, number)
    name_of, brokers = _names(client), _brokers(status)
    for event in events:
        print_event(out, event, name_of, brokers)


def _follow(session: CliSession, last: int, brokers: Mapping[str, str] | None) -> None:
    """Print the events after *last*, across broker restarts."""
    client, out = session.client, session.out
    lost, name_of = False, _names(client)
    while True:
        try:
            for event in client.events(last):
                if lost:
                    lost = False
                    out.note("the broker is back: going on from where it stopped")
                if isinstance(event, HeadInfo):
                    raise LedgerDamagedError(
                        f"this is not the ledger that was followed: it ends before "
                        f"event {last}",
                        "`agentvault audit verify`, and find out who replaced it",
                    )
                if isinstance(event, EventInfo) and event.seq > last:
                    last = event.seq
                    print_event(out, event, name_of, brokers)
        except UnreachableError:
            if not lost:
                out.note("the broker is gone: waiting for it (Ctrl-C ends this)")
            lost = True
        time.sleep(_RETRY)


audit.add_command(export)
audit.add_command(verify)
