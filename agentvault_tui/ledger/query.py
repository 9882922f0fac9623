"""Read pages of events by keyset, each within a bounded time.

Without text every page comes from covering indexes. With text it comes from the trigram
index, checked against the text itself, plus a scan of unindexed events, in windows of
the chain: when the time is up, the page ends there.
"""
# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.ledger.chain import genesis, read_event, written
from agentvault_tui.ledger.places import first_at, head_seq
from agentvault_tui.ledger.records import EventQuery, Link, Page, Story
from agentvault_tui.ledger.schema import transaction
from agentvault_tui.ledger.search import Match, indexed_upto, plan
from agentvault_tui.model import DECISION_TYPES, Event, EventType

_BUDGET: Final = 0.035
"""Seconds one page may search."""
_FIRST_WINDOW: Final = 2_000
_LARGEST_WINDOW: Final = 1_000_000
_FEW: Final = 2_000
"""Events of an agent or type that are read one by one."""
_END: Final = 2**62


@dataclass(frozen=True, slots=True)
class _Span:
    low: int
    high: int


def read_page(db: sqlite3.Connection, query: EventQuery, clock: Clock) -> Page:
    """Read one page, in one snapshot."""
    with transaction(db):
        seqs, resume = _find(db, query, clock)
        if len(seqs) > query.limit:
            seqs = seqs[: query.limit]
            resume = seqs[-1]
        rows = db.execute(
            "SELECT body, hash FROM events WHERE seq IN"
            f" (SELECT value FROM json_each(?)) ORDER BY seq {_order(query)}",
            (json.dumps(seqs),),
        )
        return Page(tuple(read_event(*row) for row in rows), resume)


def read_one(db: sqlite3.Connection, seq: int) -> Event | None:
    """Return one event, if there is one of that number."""
    row = db.execute("SELECT body, hash FROM events WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else read_event(*row)


def read_links(
    db: sqlite3.Connection, ledger_id: str, seqs: Sequence[int]
) -> tuple[Link, ...]:
    """Read links with the hashes before them, in the order of the chain."""
    rows = db.execute(
        "SELECT e.seq, e.body, e.hash, p.hash FROM events e"
        " LEFT JOIN events p ON p.seq = e.seq - 1"
        " WHERE e.seq IN (SELECT value FROM json_each(?)) ORDER BY e.seq",
        (json.dumps(seqs),),
    )
    return tuple(
        Link(
            seq,
            body,
            written(digest),
            written(genesis(ledger_id) if seq == 1 else before),
        )
        for seq, body, digest, before in rows
    )


def _find(
    db: sqlite3.Connection, query: EventQuery, clock: Clock
) -> tuple[list[int], int | None]:
    """Return up to limit + 1 places, and where to go on if the time was up."""
    deadline = clock.boot() + _BUDGET
    seqs: list[int] = []
    for span in _spans(db, query):
        if query.q:
            wanted = query.limit + 1 - len(seqs)
            more, resume = _search(
                db, query, span, wanted=wanted, clock=clock, deadline=deadline
            )
        else:
            more, resume = _listed(db, query, span, query.limit + 1), None
        seqs += more
        if resume is not None or len(seqs) > query.limit:
            return seqs[: query.limit + 1], resume
    return seqs, None


def _filtered(query: EventQuery) -> bool:
    return bool(query.agent or query.type or query.outcome)


def _order(query: EventQuery) -> str:
    return "ASC" if query.after is not None else "DESC"


def _spans(db: sqlite3.Connection, query: EventQuery) -> list[_Span]:
    """Return the stretches of the chain the query is about, in reading order."""
    head = head_seq(db)
    low, high = 1, head
    if query.after is not None:
        low = max(low, min(query.after, _END) + 1)
    elif query.before is not None:
        high = min(high, query.before - 1)
    spans = [_Span(low, high)]
    if query.since is not None or query.until is not None:
        spans = [
            _Span(max(low, span.low), min(high, span.high))
            for span in _dated(db, query.since, query.until, head)
        ]
    spans = [span for span in spans if span.low <= span.high]
    return spans if query.after is not None else spans[::-1]


def _dated(
    db: sqlite3.Connection, since: datetime | None, until: datetime | None, head: int
) -> Iterator[_Span]:
    starts = [row[0] for row in db.execute("SELECT first_seq FROM eras ORDER BY 1")]
    for start, stop in zip(starts, [*starts[1:], head + 1], strict=True):
        low = start if since is None else first_at(db, since, start, stop)
        high = stop if until is None else first_at(db, until, start, stop)
        yield _Span(low, high - 1)


def _listed(
    db: sqlite3.Connection, query: EventQuery, span: _Span, limit: int
) -> list[int]:
    """Return places that pass every filter but the text.

    Each combination of agent, type and outcome is one ordered stretch of an index.
    """
    order = _order(query)
    between = "seq BETWEEN ? AND ?"
    tail = f"ORDER BY seq {order} LIMIT ?"
    if not _filtered(query):
        sql = f"SELECT seq FROM events WHERE {between} {tail}"
        return [row[0] for row in db.execute(sql, (span.low, span.high, limit))]
    agent = "" if query.agent is None else "agent_id = ? AND "
    sql = f"SELECT seq FROM events WHERE {agent}type = ? AND outcome IS ? AND"
    keys = [] if query.agent is None else [query.agent]
    merged = [
        row[0]
        for kind, outcome in _combinations(db, query)
        for row in db.execute(
            f"{sql} {between} {tail}",
            (*keys, kind, outcome or None, span.low, span.high, limit),
        )
    ]
    return sorted(merged, reverse=order == "DESC")[:limit]


def _combinations(db: sqlite3.Connection, query: EventQuery) -> list[tuple[str, str]]:
    """Return the types and outcomes there are, as far as the query wants them."""
    wanted = (
        "(?1 IS NULL OR agent_id = ?1) AND (?2 IS NULL OR type = ?2)"
        " AND (?3 IS NULL OR outcome = ?3)"
    )
    return db.execute(
        f"SELECT type, outcome FROM tally WHERE {wanted}"
        " UNION SELECT type, coalesce(outcome, '') FROM events"
        f" WHERE seq > (SELECT upto FROM counted) AND {wanted}",
        (query.agent, query.type, query.outcome),
    ).fetchall()


def _search(
    db: sqlite3.Connection,
    query: EventQuery,
    span: _Span,
    *,
    wanted: int,
    clock: Clock,
    deadline: float,
) -> tuple[list[int], int | None]:
    """Return places in *span* whose text holds the query's, window by window."""
    needle = (query.q or "").casefold().replace("\x00", "\ufffd")
    few = _few(db, query, span)
    if few is not None:
        return _among(db, query, needle, few, wanted), None
    seqs: list[int] = []
    descending = query.after is None
    upto = indexed_upto(db)
    match = plan(db, needle, span.low, min(span.high, upto), descending=descending)
    if match is None:
        upto = 0
    size = _FIRST_WINDOW
    edge = span.high if descending else span.low
    while span.low <= edge <= span.high:
        reach = match.reach(size) if match and edge <= upto else size
        window = _window(edge, reach, span, upto, descending=descending)
        started = clock.boot()
        use = match if window.high <= upto else None
        seqs += _scan(db, query, needle, use, window=window, limit=wanted - len(seqs))
        edge = window.low - 1 if descending else window.high + 1
        now = clock.boot()
        if len(seqs) >= wanted:
            break
        if now >= deadline and span.low <= edge <= span.high:
            return seqs, edge + 1 if descending else edge - 1
        # Grow while windows are cheap, so that a miss over a long chain is quick.
        spent = now - started
        if spent < (deadline - now) / 4:
            size = min(size * 4, _LARGEST_WINDOW)
        elif spent > (deadline - now) / 2:
            size = max(size // 4, _FIRST_WINDOW // 2)
    return seqs, None


def _window(edge: int, size: int, span: _Span, upto: int, *, descending: bool) -> _Span:
    """Return the next window from *edge*, not mixing indexed and unindexed events."""
    if descending:
        low = max(span.low, edge - size + 1)
        return _Span(max(low, upto + 1) if edge > upto else low, edge)
    high = min(span.high, edge + size - 1)
    return _Span(edge, min(high, upto) if edge <= upto else high)


def _scan(
    db: sqlite3.Connection,
    query: EventQuery,
    needle: str,
    match: Match | None,
    *,
    window: _Span,
    limit: int,
) -> list[int]:
    """Return the matching places in one window, by the index when *match* is given."""
    if match is not None and match.expression is None:
        return []
    conditions = ["instr(e.text, ?) > 0"]
    keys: list[str] = [needle]
    for column in ("agent", "type", "outcome"):
        value = getattr(query, column)
        if value is not None:
            name = "agent_id" if column == "agent" else column
            # The unary plus keeps the planner on the window.
            conditions.append(f"+e.{name} = ?")
            keys.append(str(value))
    tail = f"{' AND '.join(conditions)} ORDER BY {{}} {_order(query)} LIMIT ?"
    between = (window.low, window.high)
    if match is None:
        sql = f"SELECT e.seq FROM events e WHERE e.seq BETWEEN ? AND ? AND {tail}"
        rows = db.execute(sql.format("e.seq"), (*between, *keys, limit))
    else:
        sql = (
            "SELECT w.rowid FROM idx.words w CROSS JOIN events e ON e.seq = w.rowid"
            f" WHERE w.words MATCH ? AND w.rowid BETWEEN ? AND ? AND {tail}"
        )
        rows = db.execute(
            sql.format("w.rowid"), (match.expression, *between, *keys, limit)
        )
    return [row[0] for row in rows]


def _few(db: sqlite3.Connection, query: EventQuery, span: _Span) -> list[int] | None:
    if not _filtered(query):
        return None
    places = _listed(db, query, span, _FEW + 1)
    return places if len(places) <= _FEW else None


def _among(
    db: sqlite3.Connection,
    query: EventQuery,
    needle: str,
    places: list[int],
    limit: int,
) -> list[int]:
    rows = db.execute(
        "SELECT seq FROM events WHERE seq IN (SELECT value FROM json_each(?))"
        f" AND instr(text, ?) > 0 ORDER BY seq {_order(query)} LIMIT ?",
        (json.dumps(places), needle, limit),
    )
    return [row[0] for row in rows]


_MOST_IDS: Final = 8
_NEAREST: Final = 1_000
"""Events read on each side that may mention an id."""
_UNINDEXED: Final = 50_000
"""Events looked through on each side where the index does not reach."""
_TRIGRAMS: Final = 4
"""Trigrams of an id that are searched for."""


def read_story(db: sqlite3.Connection, anchor: Event) -> Story:
    """Return the events that share an id with *anchor*, oldest first."""
    events = {anchor.seq: anchor}
    wanted, done, complete = _ids(anchor), set[str](), True
    while missing := sorted(wanted - done):
        if len(done) == _MOST_IDS:
            complete = False
            break
        name = missing[0]
        done.add(name)
        for seqs, whole in _mentions(db, name, anchor.seq):
            complete &= whole
            events |= {e.seq: e for e in _events(db, seqs) if _carries(e, name)}
        for event in events.values():
            wanted |= _links(event)
    return Story(tuple(events[seq] for seq in sorted(events)), complete)


def _mentions(
    db: sqlite3.Connection, name: str, seq: int
) -> Iterator[tuple[list[int], bool]]:
    """Yield places near *seq* where an id may stand, and if these are all."""
    upto = indexed_upto(db)
    needle = name.casefold()
    if len(needle) < 3:
        upto = 0
    if upto:
        sql = "SELECT rowid FROM idx.words WHERE words MATCH ?"
        for side in (
            "AND rowid > ? ORDER BY rowid LIMIT ?",
            "AND rowid < ? ORDER BY rowid DESC LIMIT ?",
        ):
            rows = db.execute(f"{sql} {side}", (_terms(needle), seq, _NEAREST))
            seqs = [row[0] for row in rows]
            yield seqs, len(seqs) < _NEAREST
    head = head_seq(db)
    low = max(upto + 1, seq - _UNINDEXED)
    high = min(head, max(seq, upto) + _UNINDEXED)
    rows = db.execute(
        "SELECT seq FROM events WHERE seq BETWEEN ? AND ? AND instr(text, ?) LIMIT ?",
        (low, high, needle, _NEAREST),
    )
    seqs = [row[0] for row in rows]
    whole = low == upto + 1 and high == head and len(seqs) < _NEAREST
    yield seqs, whole


def _terms(needle: str) -> str:
    """Return the index terms; not the start, that all ids of a kind share."""
    last = len(needle) - 3
    first = min(needle.find("_") + 1, last)
    steps = range(_TRIGRAMS)
    starts = {first + round(i * (last - first) / steps[-1]) for i in steps}
    parts = (needle[start : start + 3].replace('"', '""') for start in sorted(starts))
    return " AND ".join(f'"{part}"' for part in parts)


def _events(db: sqlite3.Connection, seqs: list[int]) -> Iterator[Event]:
    rows = db.execute(
        "SELECT body, hash FROM events WHERE seq IN (SELECT value FROM json_each(?))",
        (json.dumps(seqs),),
    )
    return (read_event(*row) for row in rows)


def read_unfinished(db: sqlite3.Connection, since: int) -> tuple[Event, ...]:
    """Read the attempts of calls after event *since* that have no result."""
    results = {
        row[0]
        for row in db.execute(
            "SELECT json_extract(body, '$.detail.call_id') FROM events"
            " WHERE type IN ('gateway.result', 'gateway.tunnel')"
            " AND outcome IS NULL AND seq > ?",
            (since,),
        )
    }
    attempts = db.execute(
        "SELECT json_extract(body, '$.detail.call_id'), body, hash FROM events"
        " WHERE type = 'gateway.attempt' AND outcome = 'allowed' AND seq > ?"
        " ORDER BY seq",
        (since,),
    )
    return tuple(
        read_event(body, digest)
        for call, body, digest in attempts
        if call not in results
    )


def read_applied(db: sqlite3.Connection) -> frozenset[str]:
    """Read which agents (ids) and service files (names) were first put there by files.

    The events that did so name the digest of all that was applied with them.
    """
    rows = db.execute(
        "SELECT coalesce(agent_id, json_extract(body, '$.resource')) FROM events"
        " WHERE type IN ('agent.registered', 'service.changed') AND outcome IS NULL"
        " AND json_extract(body, '$.detail.applied') IS NOT NULL"
    )
    return frozenset(row[0] for row in rows)


def read_unconfirmed(db: sqlite3.Connection) -> dict[str, str]:
    """Read who registered the agents that no person who may grant has confirmed.

    Returns:
        the operator's name, by the agent's id.
    """
    rows = db.execute(
        "SELECT agent_id, json_extract(body, '$.actor.name') FROM events"
        " WHERE type = 'agent.registered' AND outcome IS NULL"
        " AND json_extract(body, '$.detail.confirmed') = 0 AND agent_id NOT IN"
        " (SELECT accepted.value FROM events AS applied,"
        " json_each(applied.body, '$.detail.accepted') AS accepted"
        " WHERE applied.type = 'config.applied' AND applied.outcome IS NULL)"
    )
    return dict(rows.fetchall())


def _carries(event: Event, name: str) -> bool:
    tokens = event.detail.get("tokens")
    return name in _ids(event) or (
        # What a revocation cut is told as a list; it leads to no further event.
        event.type is EventType.AGENT_REVOKED
        and isinstance(tokens, list)
        and name in tokens
    )


def _links(event: Event) -> set[str]:
    """Return the ids that lead from an event of the story to others."""
    ids = _ids(event)
    if event.type in DECISION_TYPES and event.decision_id:
        ids.discard(event.decision_id)
    return ids


def _ids(event: Event) -> set[str]:
    members: tuple[object, ...] = (
        event.decision_id,
        event.detail.get("stepup_id"),
        event.detail.get("token_id"),
    )
    return {each for each in members if isinstance(each, str) and each}
