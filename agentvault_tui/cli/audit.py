"""``agentvault audit``: read, search, export and verify what was recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click
from msgspec.structs import replace

from agentvault_tui.cli.events import print_event
from agentvault_tui.cli.evidence import show
from agentvault_tui.cli.framework import command, group, pass_session
from agentvault_tui.cli.lookup import find_agent
from agentvault_tui.cli.past import past
from agentvault_tui.cli.record_files import accept, export, verify
from agentvault_tui.cli.session import CliSession
from agentvault_tui.cli.times import Moment
from agentvault_tui.errors import (
    LedgerDamagedError,
    NotFoundError,
    UnreachableError,
)
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.operator_api.shapes import HeadInfo

_PAGE: Final = 1000
_RETRY: Final = 1.0


@group("audit", example="agentvault audit tail --follow")
def audit() -> None:
    """Read, search, export and verify the ledger."""


@command("tail", example="agentvault audit tail -n 20 --follow", prints_data=True)
@click.option(
    "-n", "number", type=click.IntRange(0, 100_000), default=20, help="How many."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens next.")
@pass_session
def tail(session: CliSession, number: int, follow: bool) -> None:
    """Print the latest events, oldest first; follow misses and repeats none."""
    client, out = session.client, session.out
    head = client.call(calls.STATUS).ledger.head
    for event in _newest(client, head + 1, number, AuditQuery()):
        print_event(out, event)
    if follow:
        _follow(session, head)


@command(
    "search",
    example="agentvault audit search --agent payments-agent --outcome denied "
    "--since 2h invoice",
    prints_data=True,
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
@click.argument("text", required=False)
@pass_session
def search(
    session: CliSession, /, agent: str | None, number: int | None, **given: Any
) -> None:
    """Print matching events, oldest first; TEXT may stand anywhere in them."""
    client, out = session.client, session.out
    query = AuditQuery(
        agent=_agent_id(client, agent) if agent else None,
        outcome=given["outcome"],
        type=given["kind"],
        since=given["since"],
        until=given["until"],
        q=given["text"],
    )
    found: Iterable[EventInfo]
    if number is None:
        found = _oldest_first(client, query)
    else:
        head = client.call(calls.STATUS).ledger.head
        found = _newest(client, head + 1, number, query)
    for event in found:
        print_event(out, event)


for _command in (tail, search, past, show, export, verify, accept):
    audit.add_command(_command)


def _agent_id(client: OperatorClient, word: str) -> str:
    """Find the agent; an id nobody has any more may still stand in the ledger."""
    try:
        return find_agent(client, word).id
    except NotFoundError:
        if word.startswith("agt_"):
            return word
        raise


def _oldest_first(client: OperatorClient, query: AuditQuery) -> Iterator[EventInfo]:
    after: int | None = 0
    while after is not None:
        page = client.call(calls.AUDIT, replace(query, after=after, limit=_PAGE))
        yield from page.events
        after = page.next


def _newest(
    client: OperatorClient, before: int, number: int, query: AuditQuery
) -> list[EventInfo]:
    """Return the latest *number* events below *before*, oldest first."""
    found: list[EventInfo] = []
    cursor: int | None = before
    while cursor is not None and len(found) < number:
        limit = min(number - len(found), _PAGE)
        page = client.call(calls.AUDIT, replace(query, before=cursor, limit=limit))
        found += page.events
        cursor = page.next
    return found[::-1]


def _follow(session: CliSession, last: int) -> None:
    """Print what comes behind *last*, over broker restarts, until told to stop."""
    client, out = session.client, session.out
    lost = False
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
                    print_event(out, event)
        except UnreachableError:
            if not lost:
                out.note("the broker is gone: waiting for it (Ctrl-C ends this)")
            lost = True
        time.sleep(_RETRY)
