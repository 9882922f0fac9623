"""What one agent had done by a moment, counted from its events.

Scopes and reasons stand in the bodies, so only the latest decisions are read for them;
quarters of an hour are stretches of the index, however many decisions they hold.
"""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.clock import iso, parse_iso
from agentvault_tui.ledger.activity import (
    DECISIONS,
    QUARTER,
    REASON,
    SCOPE,
    Activity,
    Count,
    Fact,
    keys,
    quarter,
)
from agentvault_tui.ledger.past_spans import seq_at
from agentvault_tui.model import DECISION_TYPES, Agent, AgentId, EventType, Outcome

MOST: Final = 20_000
"""Decisions of each outcome whose bodies are read: a fifth of a second for all."""
_QUARTER: Final = timedelta(minutes=15)
_EDGE: Final = timedelta(microseconds=1)
_BODIES: Final = (
    "SELECT action, reason, scope, count(*), max(seq), time FROM ("
    "SELECT seq, time, json_extract(body, '$.action') AS action,"
    " json_extract(body, '$.reason') AS reason,"
    " CASE json_type(body, '$.detail.scope') WHEN 'text'"
    " THEN json_extract(body, '$.detail.scope') END AS scope"
    " FROM events WHERE agent_id = ? AND type = ? AND outcome IS ? AND seq <= ?"
    " ORDER BY seq DESC LIMIT ?) GROUP BY action, reason, scope"
)
"""With max(), SQLite takes the other columns from the row that has the maximum."""
_BEYOND: Final = (
    "SELECT seq FROM events WHERE agent_id = ? AND type = ? AND outcome IS ?"
    " AND seq <= ? ORDER BY seq DESC LIMIT 1 OFFSET ?"
)
_BETWEEN: Final = (
    f"SELECT count(*) FROM events WHERE agent_id = ? AND type IN {DECISIONS}"
    " AND outcome = ? AND seq > ? AND seq <= ?"
)
_OUTCOMES: Final = tuple(outcome.value for outcome in Outcome)
_KINDS: Final = (
    *((kind, outcome) for kind in DECISION_TYPES for outcome in _OUTCOMES),
    (EventType.TOKEN_REDEEMED, None),
)


@dataclass(frozen=True, slots=True)
class PastActivity:
    """What an agent had done after an event, and how it stood."""

    seq: int
    moment: datetime
    agent: Agent
    activity: Activity
    whole: bool
    """Whether every decision is counted, not the latest `MOST` alone."""


def activity_at(
    db: sqlite3.Connection, agent: AgentId, seq: int, since: datetime, moment: datetime
) -> tuple[Activity, bool]:
    """Count what an agent did up to event *seq*; and whether all of it was counted."""
    found: dict[tuple[str, str, str], Count] = {}
    whole = True
    for key, many, stamp, cut in _read(db, agent, seq):
        whole = whole and not cut
        old = found.get(key)
        last = parse_iso(stamp)
        if old is not None:
            many, last = many + old.events, max(last, old.last)  # noqa: PLW2901
        found[key] = Count(key[1], key[2], many, last)
    by_facet: dict[str, list[Count]] = defaultdict(list)
    for (facet, _, _), count in found.items():
        by_facet[facet].append(count)
    quarters = tuple(_quarters(db, agent, seq, since, moment))
    scopes, reasons = tuple(by_facet[SCOPE]), tuple(by_facet[REASON])
    return Activity(scopes, reasons, quarters), whole


def _read(
    db: sqlite3.Connection, agent: AgentId, seq: int
) -> Iterator[tuple[tuple[str, str, str], int, str, bool]]:
    """Yield what is counted together, how often, when last, and whether that is cut."""
    for kind, outcome in _KINDS:
        place = (agent, kind.value, outcome, seq)
        cut = db.execute(_BEYOND, (*place, MOST)).fetchone() is not None
        rows = db.execute(_BODIES, (*place, MOST))
        for action, reason, scope, many, _, stamp in rows:
            fact = Fact(kind, agent, outcome, action, reason, scope)
            for _, facet, value, word in keys(fact, stamp):
                if facet != QUARTER:
                    yield (facet, value, word), many, stamp, cut


def _quarters(
    db: sqlite3.Connection, agent: AgentId, seq: int, since: datetime, moment: datetime
) -> Iterator[Count]:
    begins = since
    before = seq_at(db, begins - _EDGE, upto=seq) or 0
    while begins <= moment:
        ends = begins + _QUARTER
        upto = seq_at(db, ends - _EDGE, upto=seq) or 0
        for outcome in _OUTCOMES if upto > before else ():
            (many,) = db.execute(_BETWEEN, (agent, outcome, before, upto)).fetchone()
            if many:
                yield Count(quarter(iso(begins)), outcome, many, begins)
        begins, before = ends, max(before, upto)
