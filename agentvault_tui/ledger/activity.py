"""What agents did, counted as it is written, by what an operator asks about.

Each decision is counted by scope, by quarter of an hour and, when it is a refusal, by
reason; each use of an elevated token by scope. The counts stand beside the events and
are written in their transaction, so one agent's are read at once however long the
chain is. `verify` counts anew from the bodies and compares.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.model import AgentId, EventType

SCOPE: Final = "scope"
REASON: Final = "reason"
QUARTER: Final = "quarter"
REDEEMED: Final = "redeemed"
ALLOWED: Final = "allowed_by_policy"
"""The reason of a redemption whose token policy alone allowed."""
"""Stands beside the outcomes: an elevated token was used."""
TABLE: Final = """CREATE TABLE activity (
  agent_id TEXT NOT NULL, facet TEXT NOT NULL, value TEXT NOT NULL,
  outcome TEXT NOT NULL, events INTEGER NOT NULL, last TEXT NOT NULL,
  PRIMARY KEY (agent_id, facet, value, outcome)
) WITHOUT ROWID"""
_DENIED: Final = "denied"
_QUARTER_CELLS: Final = 14
"""Characters of a time up to its minutes."""

Key = tuple[str, str, str, str]
"""Agent, facet, value, outcome: what is counted together."""


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
    """What of an event is counted; a draft and a stored body say the same."""

    kind: str
    agent_id: str | None
    outcome: str | None
    action: str | None
    reason: str | None
    detail: dict[str, Any]


def keys(fact: Fact, stamp: str) -> list[Key]:
    """Return what one event, recorded at *stamp*, adds one to."""
    agent = fact.agent_id
    if not agent:
        return []
    if fact.kind == EventType.TOKEN_REDEEMED:
        if fact.reason == ALLOWED:
            return []  # counted as a use when it was issued
        return [(agent, SCOPE, scope, REDEEMED) for scope in _scopes(fact)]
    if fact.kind != EventType.TOKEN_DECISION:
        return []
    outcome = fact.outcome or ""
    found = [(agent, SCOPE, scope, outcome) for scope in _scopes(fact)]
    found.append((agent, QUARTER, quarter(stamp), outcome))
    if outcome == _DENIED:
        found.append((agent, REASON, fact.reason or "", outcome))
    return found


def quarter(stamp: str) -> str:
    """Return the start of the quarter of an hour *stamp* lies in, to the minute."""
    minute = int(stamp[_QUARTER_CELLS : _QUARTER_CELLS + 2])
    return f"{stamp[:_QUARTER_CELLS]}{minute // 15 * 15:02}"


def read(db: sqlite3.Connection, agent_id: AgentId, since: datetime) -> Activity:
    """Read one agent's counts, in one snapshot: one stretch of one index."""
    rows = db.execute(
        "SELECT facet, value, outcome, events, last FROM activity"
        " WHERE agent_id = ? AND (facet <> 'quarter' OR value >= ?)",
        (agent_id, quarter(iso(since))),
    ).fetchall()
    found: dict[str, list[Count]] = {SCOPE: [], REASON: [], QUARTER: []}
    for facet, value, outcome, events, last in rows:
        found[facet].append(Count(value, outcome, events, parse_iso(last)))
    return Activity(*(tuple(found[facet]) for facet in (SCOPE, REASON, QUARTER)))


def fact_of(body: dict[str, Any]) -> Fact:
    """Return what of a parsed body is counted."""
    detail = body["detail"]
    return Fact(
        body["type"],
        body["agent_id"],
        body["outcome"],
        body["action"],
        body["reason"],
        detail if isinstance(detail, dict) else {},
    )


def migrate(db: sqlite3.Connection, _: Clock) -> None:
    """Add the table to a ledger written before there was one, and fill it.

    Raises:
        LedgerDamagedError: an event cannot be read.
    """
    db.execute(TABLE)
    rows = db.execute(
        "SELECT time, CAST(body AS BLOB) FROM events WHERE type IN (?, ?) ORDER BY seq",
        (EventType.TOKEN_DECISION, EventType.TOKEN_REDEEMED),
    )
    counted = _counted(rows)
    db.executemany(
        "INSERT INTO activity VALUES (?, ?, ?, ?, ?, ?)",
        ((*key, events, last) for key, (events, last) in counted.items()),
    )


def _counted(rows: Iterable[tuple[str, bytes]]) -> dict[Key, tuple[int, str]]:
    counted: dict[Key, tuple[int, str]] = {}
    for stamp, body in rows:
        try:
            found = keys(fact_of(json.loads(body)), stamp)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LedgerDamagedError(
                "an event cannot be read, so it cannot be counted",
                "keep the file as evidence and restore a copy",
            ) from error
        for key in found:
            counted[key] = (counted.get(key, (0, ""))[0] + 1, stamp)
    return counted


def _scopes(fact: Fact) -> list[str]:
    """Return the scopes of an event, each once; the action where none are named."""
    named = fact.detail.get("scope")
    text = named if isinstance(named, str) and named else fact.action or ""
    return list(dict.fromkeys(text.split()))
