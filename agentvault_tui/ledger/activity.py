"""The agents' actions, counted by scope, quarter of an hour and reason of refusal.

The counts stand next to the events, so one agent's are read at once however long the
chain is. They are written for many commits at once (`count_new`), since each would
touch three pages more; a read adds the events that are not counted yet. `verify` counts
again from the bodies and compares.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import iso, parse_iso
from agentvault_tui.ledger.schema import transaction
from agentvault_tui.model import DECISION_TYPES, ActorKind, AgentId, Event, EventType

SCOPE: Final = "scope"
REASON: Final = "reason"
QUARTER: Final = "quarter"
REDEEMED: Final = "redeemed"
"""Counted like an outcome: an elevated token was redeemed."""
ALLOWED: Final = "allowed_by_policy"
"""The reason of a redemption whose token policy alone allowed."""
UNCOUNTED: Final = (
    "SELECT seq, time, type, agent_id, outcome, json_extract(body, '$.action'),"
    " json_extract(body, '$.reason'), json_extract(body, '$.actor.kind'),"
    " iif(json_type(body, '$.detail.scope') = 'text',"
    " json_extract(body, '$.detail.scope'), NULL) FROM events"
    " WHERE seq > (SELECT upto FROM counted) {} ORDER BY seq"
)
_TALLY: Final = (
    "INSERT INTO tally VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
    " events = events + excluded.events, seen = coalesce(excluded.seen, seen)"
)
_ACTIVITY: Final = (
    "INSERT INTO activity VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
    " events = events + excluded.events, last = excluded.last"
)
_DENIED: Final = "denied"
_QUARTER_CELLS: Final = 14
"""Characters of a time up to its minutes."""

Key = tuple[str, str, str, str]
"""Agent, facet, value, outcome: the key of a count."""
DECISIONS: Final = "({})".format(", ".join(f"'{kind}'" for kind in DECISION_TYPES))
"""`DECISION_TYPES` as a list in SQL."""


@dataclass(frozen=True, slots=True)
class Count:
    """How often one thing was answered one way, and when last."""

    value: str
    """The scope, the reason, or the first moment of the quarter."""
    outcome: str
    events: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Activity:
    """One agent's counts: scopes and reasons since ever, quarters since a moment."""

    scopes: tuple[Count, ...]
    reasons: tuple[Count, ...]
    quarters: tuple[Count, ...]


class Fact(NamedTuple):
    """The counted part of an event; the same of a draft and a stored body."""

    kind: str
    agent_id: str | None
    outcome: str | None
    action: str | None
    reason: str | None
    scope: str | None
    """The detail's ``scope``, if it is a text."""


def keys(fact: Fact, stamp: str) -> list[Key]:
    """Return the keys that one event, recorded at *stamp*, adds one to."""
    return _keys(fact, stamp[: _QUARTER_CELLS + 2])


@lru_cache(maxsize=1024)
def _keys(fact: Fact, stamp: str) -> list[Key]:
    agent = fact.agent_id
    if not agent:
        return []
    if fact.kind == EventType.TOKEN_REDEEMED:
        if fact.reason == ALLOWED:
            return []  # counted as a use when it was issued
        return [(agent, SCOPE, scope, REDEEMED) for scope in _scopes(fact)]
    if fact.kind not in DECISION_TYPES:
        return []
    outcome = fact.outcome or ""
    keys = [(agent, SCOPE, scope, outcome) for scope in _scopes(fact)]
    keys.append((agent, QUARTER, quarter(stamp), outcome))
    if outcome == _DENIED:
        keys.append((agent, REASON, fact.reason or "", outcome))
    return keys


def quarter(stamp: str) -> str:
    """Return the start of the quarter of an hour *stamp* lies in, to the minute."""
    minute = int(stamp[_QUARTER_CELLS : _QUARTER_CELLS + 2])
    return f"{stamp[:_QUARTER_CELLS]}{minute // 15 * 15:02}"


def read_activity(
    db: sqlite3.Connection, agent_id: AgentId, since: datetime
) -> Activity:
    """Read one agent's counts, in one snapshot: one stretch of one index."""
    first = quarter(iso(since))
    rows = db.execute(
        "SELECT facet, value, outcome, events, last FROM activity"
        " WHERE agent_id = ? AND (facet <> 'quarter' OR value >= ?)",
        (agent_id, first),
    )
    counts = {row[:3]: (row[3], row[4]) for row in rows}
    for (_, *key), (events, last) in uncounted(db, agent_id).activity.items():
        if key[0] != QUARTER or key[1] >= first:
            before = counts.get(tuple(key), (0, ""))[0]
            counts[tuple(key)] = before + events, last
    listed: dict[str, list[Count]] = {SCOPE: [], REASON: [], QUARTER: []}
    for (facet, value, outcome), (events, last) in sorted(counts.items()):
        listed[facet].append(Count(value, outcome, events, parse_iso(last)))
    return Activity(*(tuple(listed[facet]) for facet in (SCOPE, REASON, QUARTER)))


@dataclass(slots=True)
class Counts:
    """The counts that some events add."""

    upto: int = 0
    tally: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By agent, type and outcome."""
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """When the agent itself was seen last, by the same keys."""
    activity: dict[Key, tuple[int, str]] = field(default_factory=dict)

    def add(self, row: Sequence[Any]) -> None:
        """Count one event, a row of `UNCOUNTED`."""
        self.upto, stamp, kind, agent, outcome, action, reason, actor, scope = row
        fact = Fact(kind, agent, outcome, action, reason, scope)
        self._add(fact, stamp, by_agent=actor == ActorKind.AGENT)

    def add_event(self, event: Event, stamp: str) -> None:
        """Count one event that was just written."""
        self.upto = event.seq
        by_agent = event.actor.kind is ActorKind.AGENT
        outcome = None if event.outcome is None else event.outcome.value
        members = event.type.value, event.agent_id, outcome, event.action, event.reason
        self._add(Fact(*members, _scope(event.detail)), stamp, by_agent=by_agent)

    def _add(self, fact: Fact, stamp: str, *, by_agent: bool) -> None:
        key = fact.agent_id or "", fact.kind, fact.outcome or ""
        self.tally[key] += 1
        if by_agent:
            self.seen[key] = stamp
        for counted in keys(fact, stamp):
            self.activity[counted] = self.activity.get(counted, (0, ""))[0] + 1, stamp


def uncounted(db: sqlite3.Connection, agent_id: str | None = None) -> Counts:
    """Count the events, of one agent or all, that the tables do not count yet."""
    which = "" if agent_id is None else "AND agent_id = ?"
    keys = () if agent_id is None else (agent_id,)
    counts = Counts()
    for row in db.execute(UNCOUNTED.format(which), keys):
        counts.add(row)
    return counts


def count_new(db: sqlite3.Connection, counts: Counts | None = None) -> None:
    """Bring the counts up to date; *counts* has those of all uncounted events."""
    with transaction(db, "BEGIN IMMEDIATE"):
        counts = counts or uncounted(db)
        db.executemany(
            _TALLY,
            [(*key, n, counts.seen.get(key)) for key, n in counts.tally.items()],
        )
        db.executemany(
            _ACTIVITY, [(*key, *counted) for key, counted in counts.activity.items()]
        )
        if counts.upto:
            db.execute("UPDATE counted SET upto = ?", (counts.upto,))


def fact_of(body: dict[str, Any]) -> Fact:
    """Return the counted part of a parsed body."""
    return Fact(
        body["type"],
        body["agent_id"],
        body["outcome"],
        body["action"],
        body["reason"],
        _scope(body["detail"]),
    )


def _scopes(fact: Fact) -> list[str]:
    """Return the scopes of an event, each once; the action where none are named."""
    return list(dict.fromkeys((fact.scope or fact.action or "").split()))


def _scope(detail: object) -> str | None:
    scope = detail.get("scope") if isinstance(detail, dict) else None
    return scope if isinstance(scope, str) else None
