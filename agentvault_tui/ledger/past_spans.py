"""How far back something that was alive at a moment can have begun.

How long tokens live, and requests wait, is a setting of the process that issued them:
one lifetime holds between two starts of the broker, and the first event of a stretch
tells it. So what was alive is a stretch of the chain, found by bisection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from agentvault_tui.clock import parse_iso
from agentvault_tui.ledger.past_agents import Roster
from agentvault_tui.ledger.places import first_after, time_at

LONGEST: Final = timedelta(days=1)
"""No setting lets a token live, or a request wait, for longer."""
_SLACK: Final = timedelta(seconds=3)
"""Between the clock that was read for an end and the time of its event."""
_MOST: Final = 1_000
_EDGES: Final = (
    "SELECT first_seq FROM eras WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT ?",
    (
        "SELECT seq FROM events WHERE type = 'broker.started' AND outcome IS NULL"
        " AND seq <= ? ORDER BY seq DESC LIMIT ?"
    ),
)
"""Where another run of time, and another process, begins."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the chain, both ends included."""

    low: int
    high: int
    known: bool
    """Whether its events say when what they began ends."""
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
    """Return where the events of what still lived can stand, oldest stretch first."""
    found: list[Span] = []
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
            found.append(Span(start, high, bool(life), shift))
    return found[::-1]


def seq_at(db: sqlite3.Connection, moment: datetime, *, upto: int) -> int | None:
    """Return the last event up to *upto* that had happened by *moment*, if any.

    Where the clock was set back a time has happened twice; the later one is meant.
    """
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
    """Return how long what began in a stretch lives.

    Returns:
        None if nothing began there, zero if its events do not say.
    """
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
