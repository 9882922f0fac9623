"""``agentvault audit``: read, search, export and verify what was recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Final, Literal

import click
from msgspec import to_builtins
from msgspec.structs import replace

from agentvault_tui.cli.framework import FILE, group, pass_session
from agentvault_tui.cli.lookup import agent_pages, find_agent
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, iso, parse_iso
from agentvault_tui.console.draw import words
from agentvault_tui.console.state.filters import Filter
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.moments import FORMS, FORMS_AHEAD, read_moment
from agentvault_tui.console.state.records import stepup_state
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
from agentvault_tui.operator_api.requests import AuditQuery, PastQuery
from agentvault_tui.operator_api.shapes import OPEN, OUTCOMES, HeadInfo, StatusInfo
from agentvault_tui.text import Shown

_PAGE: Final = 1000
_RETRY: Final = 1.0


@group("audit", example="agentvault audit tail --follow")
def audit() -> None:
    """Read, search, export and verify the ledger."""


class Moment(click.ParamType[str]):
    """An option that is a moment; the command receives it as the wire writes it."""

    name = "time"

    def __init__(self, *, ahead: bool = False) -> None:
        """Read lengths and times of day as past, or as *ahead*."""
        self._ahead = ahead

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Parse a moment; fail with the accepted forms."""
        now, forms = SystemClock().now(), FORMS_AHEAD if self._ahead else FORMS
        if (moment := read_moment(str(value), now, ahead=self._ahead)) is None:
            self.fail(f"'{value}' is not a time: write {forms}", param, ctx)
        return iso(moment)


@cache
def _empty_mirror(*, ascii_only: bool) -> Mirror:
    """Return a mirror without agents, to word events."""
    return Mirror(SystemClock(), ascii_only=ascii_only)


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
        brokers: of a team, what tells them apart, by id.
    """
    if out.json_mode:
        out.json(event)
        return
    mirror = _empty_mirror(ascii_only=out.ascii_only)
    row = mirror.intake.event(event)
    why, about = words.why(mirror, row), [words.place(row), row.note]
    if event.actor.kind != "agent" and event.agent_id:
        # Whose it is stands nowhere else in what others did about an agent.
        about.append(out.shown(event.detail.get("agent") or name_of(event.agent_id)))
    if event.outcome == "denied":
        told = event.detail
        called = told.get("tool") or f"{told.get('method')} {told.get('path')}"
        if called not in about and (told.get("path") or told.get("tool")):
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
        (10, out.word(row.word.lower())),
        *by,
        (18, Cell(row.actor, "strong")),
        (20, Cell(row.action or row.type)),
        (30, Cell(Shown(" ".join(filter(None, about))))),
        (0, out.own_words(why) if theirs else Cell(Shown(why))),
    )


def _brokers(status: StatusInfo) -> dict[str, str] | None:
    """Return what tells the brokers of a team apart, by id; None without a team."""
    return broker_names(status.team.brokers) if status.team else None


def _names(client: OperatorClient) -> Callable[[str], str]:
    """Return what gives the name of an agent, asked for once; its id if unknown."""

    @cache
    def name_of(agent_id: str) -> str:
        try:
            return client.call(calls.AGENT, id=agent_id).name
        except NotFoundError:
            return agent_id

    return name_of


@audit.command("show", example="agentvault audit show 1842")
@click.argument("seq", type=click.IntRange(1))
@pass_session
def show(session: CliSession, seq: int) -> int:
    """Print event SEQ in full: its story, its exact body, and whether the hash holds.

    The link of the chain is computed here, from the body. Exits 1 if it does not hold.
    """
    found = session.client.call(calls.EVENT, seq=seq)
    story = session.client.call(calls.STORY, seq=seq)
    proof = Proof.read(replace(found, seq=seq), found.ledger)
    problem = proof.problem()
    if not problem and proof.event() != found.event:
        problem = "the body tells another event than the broker shows"
    if session.json:
        session.out.json(
            {
                **to_builtins(found),
                "verified": not problem,
                "problem": problem,
                "story": story.events,
                "story_complete": story.complete,
            }
        )
    else:
        _print_proof(session.out, found, story, proof, problem)
    return 1 if problem else 0


def _print_proof(
    out: Output, found: EventProofInfo, story: StoryInfo, proof: Proof, problem: str
) -> None:
    from agentvault_tui.console.draw.evidence import EventEvidence, evidence

    mirror = _empty_mirror(ascii_only=out.ascii_only)
    row, *rows = map(mirror.intake.event, (found.event, *story.events))
    known = EventEvidence(proof, tuple(rows), story.complete, row.seq)
    out.rows(
        evidence(
            *(out.pen, mirror, row, known, problem),
            width=out.width or 100,
            raw=False,
            raw_key="the last line",
        )
    )
    out.line(Cell(out.shown(found.body, 100_000)))


@audit.command("past", example="agentvault audit past --at 2h")
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
    if not session.out.print_json(found):
        _print_past(session.out, found)


def _print_past(out: Output, found: PastInfo) -> None:
    last, panic = found.around.last, found.status.panic
    recorded = f"{found.seq} of {last.seq if last else 0}, recorded {found.time}"
    why = f": {panic.reason}" if panic.reason else ""
    stopped = f"everything stopped since {panic.since} by {panic.by}{why}"
    out.fields(
        [
            ("as of", out.cell(found.at, "strong")),
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
        for agent in found.agents or ()
    ]
    if agents:
        counts = map(str.upper, OUTCOMES)
        out.table(("NAME", "ID", "STATUS", "TOKENS", *counts, "SCOPES"), agents)
    else:
        out.line("no agents then")

    def left(ends: str) -> int:
        return max(int((parse_iso(ends) - parse_iso(found.at)).total_seconds()), 0)

    waiting = [
        [
            each.id,
            out.word(stepup_state(each.status)),
            out.cell(each.agent_name, "strong", 60),
            *(each.action, each.resource, f"{left(each.expires_at)} s left"),
        ]
        for each in found.stepups or ()
        if each.status in OPEN
    ]
    if waiting:
        out.line("")
        out.table(("STEP-UP", "STATUS", "AGENT", "ACTION", "ON", "ENDS"), waiting)
    for doubt in found.status.warnings:
        out.note(f"unsure: {doubt}")


@audit.command("export", on_home=True, example="agentvault audit export events.jsonl")
@click.argument("file", type=FILE)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "ocsf"]),
    default="jsonl",
    show_default=True,
    help="Only JSON Lines can be verified.",
)
@click.option(
    "--after",
    metavar="SEQ",
    type=click.IntRange(0),
    default=0,
    help="Only events after this number; they verify from there.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@pass_session
def export(
    session: CliSession,
    /,
    *,
    file: Path,
    form: Literal["jsonl", "csv", "ocsf"],
    after: int,
    force: bool,
) -> None:
    """Write every event to FILE, mode 0600; needs no broker.

    An existing FILE is kept unless --force is given; a file of the home always is.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder", "name a file")
    from agentvault_tui.ledger import export_ledger

    done = export_ledger(
        *(session.home, file.absolute()),
        form=form,
        after=after,
        replace=force,
        now=SystemClock().now(),
    )
    out = session.out
    if session.json:
        out.json(
            {
                "file": str(file),
                "format": form,
                "ledger": done.ledger,
                "events": done.count,
                "head": done.last.seq,
                "hash": done.last.hash,
            }
        )
        return
    out.line(f"{done.count} events up to {done.last.seq} in ", out.cell(file))
    if form == "jsonl":
        out.line("check it anywhere: agentvault audit verify ", out.cell(file))


@audit.command("verify", example="agentvault audit verify events.jsonl")
@click.argument("file", required=False, type=FILE)
@pass_session
def verify(session: CliSession, file: Path | None) -> int:
    """Check the ledger, or an export in FILE, and name the first bad event.

    Of the ledger also that agents, scopes, panic and tokens are as its events say.

    Needs no broker. Exits 1 when the record is not the one that was written.
    """
    from agentvault_tui.ledger import verify_export, verify_ledger

    found = verify_ledger(session.own_home) if file is None else verify_export(file)
    out = session.out
    if session.json:
        out.json(
            {
                "ok": found.ok,
                "events": found.events,
                "head": found.head.seq,
                "hash": found.head.hash,
                "ledger": found.ledger,
                "first_bad": found.first_bad,
                "problem": found.problem,
            }
        )
    elif found.ok:
        out.line(out.word("ok"), f": {found.events} events, head {found.head.seq}")
        out.line(out.cell(found.head.hash, "quiet"))
    else:
        where = "the ledger" if found.first_bad is None else f"event {found.first_bad}"
        out.line(out.word("fault"), f": {where}: ", out.cell(found.problem, limit=500))
        out.line(f"right up to event {found.head.seq}, {found.events} checked")
    return 0 if found.ok else 1


@audit.command(
    "accept",
    on_home=True,
    example="agentvault audit accept --reason 'restored the backup of Monday'",
)
@click.option("--reason", required=True, help="Why; it is recorded.")
@pass_session
def accept(session: CliSession, reason: str) -> None:
    """Go on from an older copy of the ledger that was put back on purpose.

    What is lost stays lost; that it was accepted, by whom and why, is recorded.
    What was changed beside the hashed bodies of events is put right by them.
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
    help="At most so many: the latest, 20 by default; with --after the first.",
)
@click.option(
    "--after",
    metavar="SEQ",
    type=click.IntRange(0),
    help="All events after this number, to go on where a reader stopped.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens next.")
@pass_session
def tail(
    session: CliSession, number: int | None, after: int | None, follow: bool
) -> None:
    """Print the latest events, oldest first; follow misses and repeats none."""
    client, out = session.client, session.out
    status = client.call(calls.STATUS)
    head, brokers = status.ledger.head, _brokers(status)
    found: Iterable[EventInfo]
    if after is None:
        latest = 20 if number is None else number
        found = _newest(client, head + 1, latest, AuditQuery())
    elif after > head:
        raise NotFoundError(
            f"the ledger ends at event {head}, before {after}",
            "it is another one than was read, or an older copy: "
            "`agentvault audit verify`",
        )
    elif follow and number is not None:
        raise UsageError("-n would leave a gap", "follow --after SEQ without it")
    else:
        behind = _oldest_first(client, AuditQuery(), after)
        known = takewhile(lambda event: event.seq <= head, behind)
        found = islice(known, number)
    name_of = _names(client)
    for event in found:
        print_event(out, event, name_of, brokers)
    if follow:
        _follow(session, head, brokers)


@audit.command(
    "search",
    example="agentvault audit search --agent payments-agent --outcome denied "
    "--since 2h invoice",
)
@click.option("--agent", help="Only this agent's: id or unique name.")
@click.option("--outcome", help="Only those answered: allowed, denied or escalated.")
@click.option("--type", "kind", help="Only this type, such as token.decision.")
@click.option("--since", type=Moment(), help="Not before: a time, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), help="Before: a time, or 10m, 2h, 3d ago.")
@click.option(
    "-n",
    "number",
    type=click.IntRange(1),
    help="Only the latest so many; without it, all.",
)
@click.argument("text", nargs=-1)
@pass_session
def search(
    session: CliSession, /, agent: str | None, number: int | None, **given: Any
) -> None:
    """Print matching events, oldest first; TEXT may stand anywhere in them.

    TEXT with keys is a filter as in the console: owner:ann -outcome:allowed since:2h.
    """
    client, out = session.client, session.out
    query, holds = _filtered(client, out, " ".join(given["text"]))
    query.agent = _agent_id(client, agent) if agent else query.agent
    query.outcome = given["outcome"] or query.outcome
    query.type = given["kind"] or query.type
    query.since = given["since"] or query.since
    query.until = given["until"] or query.until
    found: Iterable[EventInfo]
    status = client.call(calls.STATUS)
    if number is None:
        found = filter(holds, _oldest_first(client, query))
    else:
        found = _newest(client, status.ledger.head + 1, number, query, holds)
    name_of, brokers = _names(client), _brokers(status)
    for event in found:
        print_event(out, event, name_of, brokers)


def _agent_id(client: OperatorClient, word: str) -> str:
    """Find an agent; an unknown id may still stand in the ledger."""
    try:
        return find_agent(client, word).id
    except NotFoundError:
        if word.startswith("agt_"):
            return word
        raise


def _filtered(
    client: OperatorClient, out: Output, text: str
) -> tuple[AuditQuery, Callable[[EventInfo], bool]]:
    """Read TEXT as the console's filter if it names a key of one, else as it stands.

    Returns:
        what the broker looks for, and what tells of an event whether all of it holds.
    """
    wanted = Filter.parse(text)
    if not any(term.key for term in wanted.terms):
        return AuditQuery(q=text or None), lambda _: True
    if wanted.problem:
        out.note(f"in the filter, {wanted.problem}")
    mirror = Mirror(SystemClock())
    mirror.intake.learn(client.call(calls.POLICY).catalogue)
    for page in agent_pages(client):
        for agent in page.agents:
            mirror.take(agent)
    now = mirror.clock.now()

    def holds(event: EventInfo) -> bool:
        return wanted.event(mirror.intake.event(event), mirror, now)

    return wanted.query(mirror.agents, now, text=True), holds


def _oldest_first(
    client: OperatorClient, query: AuditQuery, after: int = 0
) -> Iterator[EventInfo]:
    cursor: int | None = after
    while cursor is not None:
        page = client.call(calls.AUDIT, replace(query, after=cursor, limit=_PAGE))
        yield from page.events
        cursor = page.next


def _newest(
    client: OperatorClient,
    before: int,
    number: int,
    query: AuditQuery,
    holds: Callable[[EventInfo], bool] | None = None,
) -> list[EventInfo]:
    """Return the latest *number* events below *before*, oldest first."""
    found: list[EventInfo] = []
    cursor: int | None = before
    while cursor is not None and len(found) < number:
        limit = _PAGE if holds else min(number - len(found), _PAGE)
        page = client.call(calls.AUDIT, replace(query, before=cursor, limit=limit))
        found += filter(holds, page.events) if holds else page.events
        cursor = page.next
    return found[:number][::-1]


def _follow(session: CliSession, last: int, brokers: Mapping[str, str] | None) -> None:
    """Print what follows *last*, across broker restarts."""
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
