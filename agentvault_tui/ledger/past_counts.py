"""How each agent's requests had been answered up to an event: exact, and quickly."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from agentvault_tui.clock import parse_iso
from agentvault_tui.ledger.places import head_seq
from agentvault_tui.model import AgentCounts, AgentId, Outcome

_ANCHORS: Final = 16
_NEAR: Final = 2_000
"""So few events are counted one by one."""
_RANGE: Final = (
    "SELECT t.agent_id, t.outcome, (SELECT count(*) FROM events e"
    " WHERE e.agent_id = t.agent_id AND e.type = 'token.decision'"
    " AND e.outcome = t.outcome AND e.seq > ?1 AND e.seq <= ?2)"
    " FROM tally t WHERE t.type = 'token.decision'"
)
"""Each agent and answer is one stretch of an index; only what lies between is read."""
_FEW: Final = (
    "SELECT agent_id, outcome, count(*) FROM events WHERE seq > ?1 AND seq <= ?2"
    " AND +type = 'token.decision' GROUP BY agent_id, outcome"
)
_LAST: Final = (
    "SELECT j.value, (SELECT max(seq) FROM events WHERE agent_id = j.value"
    " AND type = 'token.decision' AND outcome = ?3 AND seq <= ?2) FROM json_each(?1) j"
)

Tally = Counter[tuple[str, str]]


class Tallies:
    """Counts from the nearest place whose counts are known: an end, or an earlier one.

    The counts at the head are those that are kept beside the events and that
    ``audit verify`` holds against them.
    """

    def __init__(self) -> None:
        self._known: dict[int, Tally] = {}

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
        anchor = min((0, head, *self._known), key=lambda known: abs(known - seq))
        if anchor in self._known:
            self._known[anchor] = self._known.pop(anchor)  # used last, dropped last
            tally = Counter(self._known[anchor])
        else:
            tally = _at_head(db) if anchor else Counter()
        low, high = min(anchor, seq), max(anchor, seq)
        between = _between(db, low, high)
        if seq >= anchor:
            tally.update(between)
        else:
            tally.subtract(between)
        self._known[seq] = tally
        while len(self._known) > _ANCHORS:
            self._known.pop(next(iter(self._known)))
        return tally


def last_asked(
    db: sqlite3.Connection, seq: int, agents: Iterable[AgentId]
) -> dict[AgentId, datetime]:
    """Return when each agent's last request up to *seq* was answered."""
    wanted = json.dumps(list(agents))
    latest: dict[str, int] = {}
    for outcome in Outcome:
        for agent, place in db.execute(_LAST, (wanted, seq, outcome.value)):
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


def _between(db: sqlite3.Connection, low: int, high: int) -> Tally:
    """Count the decisions after event *low* up to *high*."""
    if high - low <= _NEAR:
        return _read(db.execute(_FEW, (low, high)))
    # The tables, from which agents and answers are taken, do not count the last few.
    (upto,) = db.execute("SELECT upto FROM counted").fetchone()
    edge = min(max(low, upto), high)
    found = _read(db.execute(_RANGE, (low, edge)))
    found.update(_read(db.execute(_FEW, (edge, high))))
    return found


def _read(rows: Iterable[tuple[str, str, int]]) -> Tally:
    return Counter({(agent, outcome): events for agent, outcome, events in rows})


def _at_head(db: sqlite3.Connection) -> Tally:
    found = _read(
        db.execute(
            "SELECT agent_id, outcome, events FROM tally WHERE type = 'token.decision'"
        )
    )
    (upto,) = db.execute("SELECT upto FROM counted").fetchone()
    found.update(_read(db.execute(_FEW, (upto, head_seq(db)))))
    return found
