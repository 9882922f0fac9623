"""How each change of state becomes a row next to the events, and how all of it loads.

Every row carries *n*, the place of its change in the order of calls to `commit`. A
revocation overtakes the queue, so rows can reach the disk out of that order; the
larger *n* wins, whichever was written first.
"""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.ledger import docs
from agentvault_tui.ledger.activity import DECISIONS, uncounted
from agentvault_tui.ledger.bindings import is_bound
from agentvault_tui.ledger.canonical import MAX_INT
from agentvault_tui.ledger.records import (
    Change,
    Cooldown,
    DropAccount,
    DropAgentTokens,
    DropAllTokens,
    DropScopeTokens,
    DropToken,
    KeptText,
    Loaded,
    Meta,
    OutboxStep,
    Panic,
    UsedAssertion,
)
from agentvault_tui.ledger.schema import transaction
from agentvault_tui.model import (
    Account,
    Agent,
    AgentCounts,
    AgentId,
    Event,
    Lease,
    StepUp,
    StepUpId,
    StepUpStatus,
    Token,
    TokenId,
)

Row: TypeAlias = tuple[Any, ...]
Statement: TypeAlias = tuple[str, tuple[object, ...]]

_PANIC: Final = "panic"
_CHUNK: Final = 64
"""Rows a statement may have: few enough sizes for SQLite to cache all prepared."""
_BATCH: Final = 256
"""Rows of tokens that are read at once."""
_ALL_AGENTS: Final = ""
"""The key in `voided` of every agent."""
_COOLDOWN: Final = "cooldown:"
_ASSERTION: Final = "jti:"
"""Followed by the expiry, so that expired ones are adjacent."""
_ACCOUNT: Final = "account:"
_LEASE: Final = "lease:"
_KINDS: Final = {_PANIC, "cooldown", "jti", "account", "lease", "app"}
"""Of the small records in `meta`: the beginnings of their keys."""
_LATEST: Final = 50
_REPEATING: Final = (
    "SELECT * FROM stepups WHERE status = ?"
    " AND coalesce(json_extract(doc, '$.repeat.left'), 0) > 0"
)
_CONFIRMED: Final = 100

_NEWER: Final = " WHERE excluded.n > n"
_EVENTS: Final = "INSERT INTO events VALUES {}"
_STATE: Final = {
    "agents": "INSERT INTO agents VALUES {} ON CONFLICT DO UPDATE SET"
    " doc = excluded.doc, n = excluded.n" + _NEWER,
    "tokens": "INSERT INTO tokens VALUES {}",
    "dropped": "INSERT INTO dropped VALUES {} ON CONFLICT DO NOTHING",
    "voided": "INSERT INTO voided VALUES {} ON CONFLICT DO UPDATE SET"
    " n = excluded.n" + _NEWER,
    "stepups": "INSERT INTO stepups VALUES {} ON CONFLICT DO UPDATE SET"
    " status = excluded.status, decided = excluded.decided, doc = excluded.doc,"
    " n = excluded.n" + _NEWER,
    "outbox": "INSERT INTO outbox VALUES {} ON CONFLICT DO UPDATE SET"
    " status = excluded.status, doc = excluded.doc, n = excluded.n" + _NEWER,
    "meta": "INSERT INTO meta VALUES {} ON CONFLICT DO UPDATE SET"
    " value = excluded.value, n = excluded.n" + _NEWER,
    "texts": "INSERT INTO texts VALUES {} ON CONFLICT DO UPDATE SET"
    " text = excluded.text, n = excluded.n" + _NEWER,
}
TABLES: Final = tuple(_STATE)
"""The tables of the state; `meta` also holds the file's own records."""
_PRUNE: Final = (
    "DELETE FROM tokens WHERE expires < ? AND n IN"
    " (SELECT n FROM tokens ORDER BY n LIMIT ?)"
)
_FORGET: Final = "DELETE FROM meta WHERE key > ? AND key < ?"
_WIDTH: Final = {
    "agents": 3,
    "tokens": 6,
    "dropped": 2,
    "voided": 2,
    "stepups": 7,
    "outbox": 4,
    "meta": 3,
    "texts": 3,
}


def row_of(change: Change, n: int) -> tuple[str, Row]:
    """Return the table *change* goes to, and its row there."""
    match change:
        case Token():
            ends = iso(change.expires.wall)
            doc = docs.write_token(change)
            return "tokens", (n, change.id, change.agent_id, ends, doc)
        case DropToken():
            return "dropped", (change.token_id, n)
        case DropAgentTokens():
            return "voided", (change.agent_id, n)
        case DropScopeTokens():
            return "voided", (f"{change.agent_id} {change.scope}", n)
        case DropAllTokens():
            return "voided", (_ALL_AGENTS, n)
        case Agent():
            return "agents", (change.id, docs.write_agent(change), n)
        case StepUp():
            decided = iso(change.decided_at) if change.decided_at else None
            kind = (change.agent_id, change.action, decided)
            doc = docs.write_stepup(change)
            return "stepups", (change.id, change.status.value, *kind, doc, n)
        case OutboxStep():
            return "outbox", (change.id, change.status, docs.OUTBOX.write(change), n)
        case KeptText():
            return "texts", (change.sha256, change.text, n)
        case _:
            return "meta", (*_named(change), n)


def _named(
    change: Panic | Cooldown | UsedAssertion | Account | DropAccount | Lease | Meta,
) -> tuple[str, str | None]:
    """Return the key in `meta` of a small record, and its value."""
    match change:
        case Panic():
            return _PANIC, docs.PANIC.write(change)
        case Cooldown():
            return f"{_COOLDOWN}{change.requester}", docs.write_cooldown(change)
        case UsedAssertion():
            key = f"{_ASSERTION}{iso(change.expires)}"
            return f"{key} {change.client_id} {change.digest}", ""
        case Account():
            return account_key(change), docs.ACCOUNT.write(change)
        case DropAccount():
            return account_key(change), None
        case Lease():
            return lease_key(change), docs.write_lease(change)
        case Meta():
            return f"app:{change.key}", change.value


def change_of(table: str, row: Row) -> Change:
    """Return the change that `row_of` wrote as *row*; of a removed row, its removal.

    Values that the reader adds to a change when it loads, such as the number of
    requests of a step-up, are not in it.
    """
    match table:
        case "tokens":
            return docs.read_token(row[1], row[2], row[4])
        case "dropped":
            return DropToken(TokenId(row[0]))
        case "voided":
            agent_id, _, scope = row[0].partition(" ")
            if scope:
                return DropScopeTokens(AgentId(agent_id), scope)
            return DropAgentTokens(AgentId(agent_id)) if agent_id else DropAllTokens()
        case "agents":
            agent_id = AgentId(row[0])
            return replace(docs.read_agent(row[1]), id=agent_id, client_id=agent_id)
        case "stepups":
            return replace(docs.read_stepup(row[5]), id=StepUpId(row[0]))
        case "outbox":
            return docs.OUTBOX.read(row[2], id=row[0], status=row[1])
        case "texts":
            return KeptText(row[1])
        case _:
            return _unnamed(row[0], row[1])


def _unnamed(key: str, value: str | None) -> Change:
    """Return the small record in `meta` under *key*."""
    kind, _, rest = key.partition(":")
    first, _, second = rest.partition(" ")
    match kind:
        case "panic":
            return docs.PANIC.read(value or "null")
        case "cooldown":
            return docs.read_cooldown(rest, value) if value else Cooldown(rest)
        case "jti":
            client_id, _, digest = second.partition(" ")
            return UsedAssertion(client_id, digest, parse_iso(first))
        case "account" if value is None:
            return DropAccount(AgentId(first), second)
        case "account":
            return docs.ACCOUNT.read(value or "", agent_id=first, connection=second)
        case "lease":
            return docs.read_lease(first, second, value or "[]")
        case "app":
            return Meta(rest, value)
    raise ValueError(f"no record is kept under {key!r:.60}")


def state_statements(rows: Iterable[tuple[str, Row]]) -> Iterator[Statement]:
    """Return the statements that write *rows*: few, each for many rows."""
    tables: dict[str, list[Row]] = {}
    for table, row in rows:
        tables.setdefault(table, []).append(row)
    for table, listed in tables.items():
        yield from _many(_STATE[table], _WIDTH[table], listed)


def event_row(place: tuple[int, str], event: Event, text: str, body: str) -> Row:
    """Return the row, but for its hash, of an event at its place: number and time."""
    outcome = None if event.outcome is None else event.outcome.value
    return (*place, event.type.value, event.agent_id, outcome, text, body)


def event_statements(rows: list[Row]) -> Iterator[Statement]:
    """Return the statements that append events."""
    yield from _many(_EVENTS, 8, rows)


def last_n(db: sqlite3.Connection) -> int:
    """Return the largest *n* in use; ValueError: a row has one out of range."""
    tables = " UNION ALL ".join(f"SELECT max(n) AS n FROM {name}" for name in _STATE)
    (n,) = db.execute(f"SELECT coalesce(max(n), 0) FROM ({tables})").fetchone()
    # A column of integers also takes text, and reals such as infinity.
    if not isinstance(n, int) or n > MAX_INT:
        raise ValueError(f"row number {n!s:.40} is out of range")
    return n


def load(db: sqlite3.Connection, clock: Clock) -> Loaded:
    """Read everything the broker keeps in memory, in one snapshot."""
    with transaction(db):
        counts, last_seen = _counts(db)
        tokens, numbers, issued = _live_tokens(db, clock)
        meta = dict(db.execute("SELECT key, value FROM meta WHERE value IS NOT NULL"))
        small: dict[str, list[Any]] = {}
        for key, value in meta.items():
            kind = key.partition(":")[0]
            if kind in _KINDS:
                small.setdefault(kind, []).append(_unnamed(key, value))
        leases = (one for one in small.get("lease", ()) if one.until is not None)
        return Loaded(
            agents=tuple(
                replace(docs.read_agent(doc), id=agent_id, client_id=agent_id)
                for agent_id, doc in db.execute("SELECT id, doc FROM agents ORDER BY 1")
            ),
            counts=counts,
            last_seen=last_seen,
            tokens=tokens,
            numbers=numbers,
            issued=issued,
            stepups=tuple(_stepup(db, row) for row in stepup_rows(db)),
            panic=next((one for one in small.get(_PANIC, ()) if one.on), None),
            cooldowns=tuple(small.get("cooldown", ())),
            assertions=tuple(small.get("jti", ())),
            outbox=tuple(_outbox(db)),
            meta={one.key: one.value for one in small.get("app", ())},
            accounts=tuple(small.get("account", ())),
            leases=tuple(one for one in leases if one.until > clock.now()),
        )


def read_meta(db: sqlite3.Connection, key: str) -> str | None:
    """Return the value of a `Meta`, if there is one."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (f"app:{key}",)).fetchone()
    return None if row is None else row[0]


def read_stepup(db: sqlite3.Connection, stepup_id: str) -> StepUp | None:
    """Return one step-up, if there is one of that id."""
    row = db.execute("SELECT doc FROM stepups WHERE id = ?", (stepup_id,)).fetchone()
    return None if row is None else docs.read_stepup(row[0])


def stepups_before(
    db: sqlite3.Connection, stepup: StepUp, limit: int
) -> tuple[StepUp, ...]:
    """Return earlier decisions about the same agent and action, latest first."""
    until = iso(stepup.decided_at) if stepup.decided_at else "~"
    rows = db.execute(
        "SELECT doc FROM stepups WHERE agent_id = ? AND action = ?"
        " AND decided < ? AND id <> ? ORDER BY decided DESC LIMIT ?",
        (stepup.agent_id, stepup.action, until, stepup.id, limit),
    )
    return tuple(docs.read_stepup(doc) for (doc,) in rows)


def prune(now: str, rows: int, forget: str) -> list[Statement]:
    """Return the statement that deletes tokens expired by *now*, oldest first.

    With them go the drops that their rows needed, and used assertions that expired by
    *forget*; events never.
    """
    drops = (
        f"DELETE FROM {table} WHERE n < (SELECT min(n) FROM tokens)"
        for table in ("dropped", "voided")
    )
    return [
        (_PRUNE, (now, rows)),
        *((sql, ()) for sql in drops),
        (_FORGET, (_ASSERTION, _ASSERTION + forget)),
    ]


def has_row(db: sqlite3.Connection, table: str, n: int) -> bool:
    """Check whether the change numbered *n* is in *table*."""
    sql = f"SELECT 1 FROM {table} WHERE n = ?"
    return db.execute(sql, (n,)).fetchone() is not None


def _many(template: str, width: int, rows: list[Row]) -> Iterator[Statement]:
    """Write *rows* with few statements: executemany takes the GIL back for each row."""
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        flat = tuple(value for row in chunk for value in row)
        yield _sql(template, width, len(chunk)), flat


_SQL_CACHE: Final[dict[tuple[str, int], str]] = {}


def _sql(template: str, width: int, size: int) -> str:
    key = (template, size)
    sql = _SQL_CACHE.get(key)
    if sql is None:
        row = "(" + ",".join("?" * width) + ")"
        sql = _SQL_CACHE[key] = template.format(",".join([row] * size))
    return sql


def account_key(change: Account | DropAccount) -> str:
    """Return the name of a stored connected account."""
    return f"{_ACCOUNT}{change.agent_id} {change.connection}"


def lease_key(lease: Lease) -> str:
    """Return the name of a stored lease."""
    return f"{_LEASE}{lease.agent_id} {lease.connection}"


def _counts(
    db: sqlite3.Connection,
) -> tuple[dict[AgentId, AgentCounts], dict[AgentId, Any]]:
    counts = {}
    seen = {}
    for agent_id, allowed, denied, escalated, last in db.execute(
        "SELECT agent_id, sum(iif(outcome = 'allowed', events, 0)),"
        " sum(iif(outcome = 'denied', events, 0)),"
        " sum(iif(outcome = 'escalated', events, 0)), max(seen)"
        " FROM tally WHERE agent_id <> '' GROUP BY agent_id"
    ):
        counts[AgentId(agent_id)] = AgentCounts(allowed, denied, escalated)
        if last is not None:
            seen[AgentId(agent_id)] = parse_iso(last)
    new = uncounted(db)
    for (agent_id, _, outcome), events in new.tally.items():
        if agent_id and outcome:
            counted = counts.get(AgentId(agent_id), AgentCounts())
            more = {outcome: getattr(counted, outcome) + events}
            counts[AgentId(agent_id)] = replace(counted, **more)
    for (agent_id, _, _), last in new.seen.items():
        if agent_id:
            latest = seen.get(AgentId(agent_id)), parse_iso(last)
            seen[AgentId(agent_id)] = max(filter(None, latest))
    return counts, seen


def live_token_rows(db: sqlite3.Connection, clock: Clock) -> Iterator[Row]:
    """Yield the rows of tokens neither expired, dropped nor voided, newest first.

    The last column is the ``state`` of the event that is to bind the row.
    """
    narrowed: dict[str, list[tuple[str, int]]] = {}
    for key, n in db.execute("SELECT * FROM voided WHERE instr(agent_id, ' ') > 0"):
        agent_id, _, scope = key.partition(" ")
        narrowed.setdefault(agent_id, []).append((scope, n))
    rows = db.execute(
        "SELECT t.*, (SELECT json_extract(body, '$.state') FROM events e"
        " WHERE e.seq = t.seq) FROM tokens t"
        " LEFT JOIN voided v ON v.agent_id = t.agent_id"
        " LEFT JOIN voided a ON a.agent_id = ?"
        " WHERE t.expires > ? AND t.n > coalesce(v.n, 0) AND t.n > coalesce(a.n, 0)"
        " AND t.id NOT IN (SELECT id FROM dropped) ORDER BY t.n DESC",
        (_ALL_AGENTS, iso(clock.now())),
    )
    # Row by row, SQLite and Python take turns in the processor's cache.
    while batch := rows.fetchmany(_BATCH):
        for row in batch:
            cuts = narrowed and [
                scope for scope, n in narrowed.get(row[2], ()) if row[0] <= n
            ]
            if not cuts or docs.token_scopes(row[4]).isdisjoint(cuts):
                yield row


def _live_tokens(
    db: sqlite3.Connection, clock: Clock
) -> tuple[tuple[Token, ...], Sequence[int], Sequence[int]]:
    """Return the live tokens, their rows' numbers, and the events that bind those.

    One pass that keeps no row: there may be hundreds of thousands. Of two rows of a
    token the one with the larger number counts.
    """
    seen: set[str] = set()
    tokens: list[Token] = []
    numbers, issued = array("q"), array("q")
    for row in live_token_rows(db, clock):
        n, token_id, agent_id, _, doc, seq, _ = row
        if token_id in seen:
            continue
        seen.add(token_id)
        token = docs.read_token(token_id, agent_id, doc)
        if not token.expires.passed(clock):
            tokens.append(token)
            numbers.append(n)
            issued.append(seq if is_bound(row) else 0)
    return tuple(reversed(tokens)), numbers[::-1], issued[::-1]


def stepup_rows(db: sqlite3.Connection) -> list[Row]:
    """Return the rows of step-ups that are open or approved, and the latest others."""
    sql = "SELECT * FROM stepups WHERE status = ? ORDER BY n DESC"
    waiting: list[Row] = []
    decided: list[Row] = []
    for status in StepUpStatus:
        if status.open or status is StepUpStatus.APPROVED:
            waiting += db.execute(sql, (status,))
        else:
            decided += db.execute(f"{sql} LIMIT {_LATEST}", (status,))
    # A token of the approval may be used up while it may still be repeated.
    waiting += db.execute(_REPEATING, (StepUpStatus.REDEEMED,))
    decided.sort(key=_number, reverse=True)
    there = {row[0] for row in waiting}
    others = [row for row in decided[:_LATEST] if row[0] not in there]
    return sorted(waiting, key=_number) + others


def _number(row: Row) -> int:
    return int(row[-1])


def _stepup(db: sqlite3.Connection, row: Row) -> StepUp:
    """Return a step-up; while it is open, how often it was asked for is in events."""
    stepup = replace(docs.read_stepup(row[5]), id=StepUpId(row[0]))
    if not stepup.status.open:
        return stepup
    latest = db.execute(
        "SELECT json_extract(body, '$.detail.count') FROM events"
        f" WHERE agent_id = ? AND type IN {DECISIONS} AND outcome = 'escalated'"
        " AND json_extract(body, '$.detail.stepup_id') = ? ORDER BY seq DESC LIMIT 1",
        (stepup.agent_id, stepup.id),
    ).fetchone()
    newest = latest[0] if latest else None
    return replace(
        stepup, count=max(stepup.count, newest if type(newest) is int else 0)
    )


def _outbox(db: sqlite3.Connection) -> Iterator[OutboxStep]:
    sql = "SELECT id, status, doc FROM outbox WHERE status {} ORDER BY n DESC LIMIT ?"
    open_ones = "IN ('pending', 'failed')"
    for which, limit in ((open_ones, -1), (f"NOT {open_ones}", _CONFIRMED)):
        for step_id, status, doc in db.execute(sql.format(which), (limit,)):
            yield docs.OUTBOX.read(doc, id=step_id, status=status)
