"""How far back something that was alive at a moment can have begun.

How long tokens live, and requests wait, is a setting of the process that issued them:
one lifetime holds between two starts of the broker, and the first event of a stretch
tells it. So the live things are a stretch of the chain, found by bisection.
"""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise, product
from typing import Final

from agentvault_tui.clock import parse_iso
from agentvault_tui.ledger.activity import DECISIONS
from agentvault_tui.ledger.past_agents import Roster
from agentvault_tui.ledger.places import first_after, head_seq, time_at
from agentvault_tui.model import DECISION_TYPES, AgentCounts, AgentId, Outcome

LONGEST: Final = timedelta(days=1)
"""No setting lets a token live, or a request wait, for longer."""
_SLACK: Final = timedelta(seconds=3)
"""Between reading the clock for an expiry and the time of its event."""
_MOST: Final = 1_000
_EDGES: Final = (
    "SELECT first_seq FROM eras WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT ?",
    (
        "SELECT seq FROM events WHERE type = 'broker.started' AND outcome IS NULL"
        " AND seq <= ? ORDER BY seq DESC LIMIT ?"
    ),
)
"""Where an era, and where a process, begins."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the chain, both ends included."""

    low: int
    high: int
    exact: bool
    """Whether its events have an ``expires_at``."""
    shift: timedelta = timedelta(0)
    """How far the wall clock was set back since, as less than 0."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The events that begin something with a lifetime."""

    type: str
    outcome: str | None = None


TOKENS: Final = Kind("token.decision", "allowed")
REQUESTS: Final = Kind("stepup.requested")


def spans(
    db: sqlite3.Connection, seq: int, moment: datetime, kind: Kind, roster: Roster
) -> list[Span]:
    """Return the possible places of live things' events, oldest stretch first."""
    stretches: list[Span] = []
    for low, high in _stretches(db, seq, roster):
        shift = roster.set_back_since(high)
        if parse_iso(time_at(db, high)) + LONGEST + shift <= moment:
            break
        life = _life(db, kind, low, high)
        if life is None:
            continue
        since = moment - (life or LONGEST) - _SLACK - shift
        start = first_after(db, since, low, high + 1)
        if start <= high:
            stretches.append(Span(start, high, bool(life), shift))
    return stretches[::-1]


def seq_at(db: sqlite3.Connection, moment: datetime, *, upto: int) -> int | None:
    """Return the last event up to *upto* that had happened by *moment*, if any."""
    high = upto
    starts = db.execute(
        "SELECT first_seq FROM eras WHERE first_seq <= ? ORDER BY first_seq DESC",
        (upto,),
    ).fetchall()
    for (start,) in starts:
        place = first_after(db, moment, start, high + 1)
        if place > start:
            return place - 1
        high = start - 1
    return None


def _stretches(
    db: sqlite3.Connection, seq: int, roster: Roster
) -> Iterator[tuple[int, int]]:
    """Yield stretches of one process and one run of time, newest first."""
    starts = {row[0] for sql in _EDGES for row in db.execute(sql, (seq, _MOST))}
    edges = sorted({1, seq + 1, *starts, *roster.jumps}, reverse=True)
    for after, start in pairwise(edges):
        yield start, after - 1


def _life(db: sqlite3.Connection, kind: Kind, low: int, high: int) -> timedelta | None:
    """Return the lifetime of things that began there; None: nothing; zero: unknown."""
    row = db.execute(
        "SELECT time, json_extract(body, '$.detail.expires_at') FROM events"
        " WHERE type = ? AND outcome IS ? AND seq BETWEEN ? AND ?"
        " ORDER BY seq LIMIT 1",
        (kind.type, kind.outcome, low, high),
    ).fetchone()
    if row is None:
        return None
    try:
        return max(parse_iso(row[1]) - parse_iso(row[0]), timedelta(seconds=1))
    except (TypeError, ValueError):
        return timedelta(0)


_ANCHORS: Final = 16
_NEAR: Final = 2_000
"""Events that are counted one by one."""
_RANGE: Final = (
    "SELECT t.agent_id, t.outcome, (SELECT count(*) FROM events e"
    " WHERE e.agent_id = t.agent_id AND e.type = t.type"
    " AND e.outcome = t.outcome AND e.seq > ?1 AND e.seq <= ?2)"
    " FROM tally t WHERE t.type IN {}"
)
"""Each agent and answer is one stretch of an index; only the part between is read."""
_FEW: Final = (
    "SELECT agent_id, outcome, count(*) FROM events WHERE seq > ?1 AND seq <= ?2"
    " AND +type IN {} GROUP BY agent_id, outcome"
)
_LAST: Final = (
    "SELECT j.value, (SELECT max(seq) FROM events WHERE agent_id = j.value"
    " AND type = ?4 AND outcome = ?3 AND seq <= ?2) FROM json_each(?1) j"
)

Tally = Counter[tuple[str, str]]


class Tallies:
    """Counts from the nearest place with known counts."""

    def __init__(self, types: str = DECISIONS) -> None:
        """Count events of *types*, a list in SQL."""
        self._types = types
        self._tallies: dict[int, Tally] = {}

    def at(self, db: sqlite3.Connection, seq: int) -> dict[AgentId, AgentCounts]:
        """Return the counts after event *seq*."""
        tally = self._tally(db, seq)
        agents = {agent for agent, _ in tally}
        return {
            AgentId(agent): AgentCounts(
                tally[agent, "allowed"],
                tally[agent, "denied"],
                tally[agent, "escalated"],
            )
            for agent in agents
        }

    def _tally(self, db: sqlite3.Connection, seq: int) -> Tally:
        head = head_seq(db)
        anchor = min((0, head, *self._tallies), key=lambda place: abs(place - seq))
        if anchor in self._tallies:
            self._tallies[anchor] = self._tallies.pop(anchor)  # used last, dropped last
            tally = Counter(self._tallies[anchor])
        else:
            tally = self._at_head(db) if anchor else Counter()
        low, high = min(anchor, seq), max(anchor, seq)
        between = self._between(db, low, high)
        if seq >= anchor:
            tally.update(between)
        else:
            tally.subtract(between)
        self._tallies[seq] = tally
        while len(self._tallies) > _ANCHORS:
            self._tallies.pop(next(iter(self._tallies)))
        return tally

    def _between(self, db: sqlite3.Connection, low: int, high: int) -> Tally:
        """Count the decisions after event *low* up to *high*."""
        few, many = _FEW.format(self._types), _RANGE.format(self._types)
        if high - low <= _NEAR:
            return _read(db.execute(few, (low, high)))
        # The tables, from which agents and answers are taken, do not count the last.
        (upto,) = db.execute("SELECT upto FROM counted").fetchone()
        edge = min(max(low, upto), high)
        tallies = _read(db.execute(many, (low, edge)))
        tallies.update(_read(db.execute(few, (edge, high))))
        return tallies

    def _at_head(self, db: sqlite3.Connection) -> Tally:
        tallies = _read(
            db.execute(
                "SELECT agent_id, outcome, events FROM tally"
                f" WHERE type IN {self._types}"
            )
        )
        (upto,) = db.execute("SELECT upto FROM counted").fetchone()
        few = _FEW.format(self._types)
        tallies.update(_read(db.execute(few, (upto, head_seq(db)))))
        return tallies


def last_asked(
    db: sqlite3.Connection, seq: int, agents: Iterable[AgentId]
) -> dict[AgentId, datetime]:
    """Return when each agent's last request up to *seq* was answered."""
    wanted = json.dumps(list(agents))
    latest: dict[str, int] = {}
    for kind, outcome in product(DECISION_TYPES, Outcome):
        for agent, place in db.execute(_LAST, (wanted, seq, outcome, kind)):
            latest[agent] = max(latest.get(agent, 0), place or 0)
    times = dict(
        db.execute(
            "SELECT seq, time FROM events WHERE seq IN"
            " (SELECT value FROM json_each(?))",
            (json.dumps(list(latest.values())),),
        )
    )
    return {
        AgentId(agent): parse_iso(times[place])
        for agent, place in latest.items()
        if place
    }


def _read(rows: Iterable[tuple[str, str, int]]) -> Tally:
    tally = Tally()
    for agent, outcome, events in rows:
        tally[agent, outcome] += events
    return tally
