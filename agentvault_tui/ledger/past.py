"""The broker's state at a moment, rebuilt from its events alone.

State tables are never asked, so anyone can check it against an export. If an event was
truncated because it was too long, `Past.unsure` names the missing parts.
"""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.errors import LedgerUnwritableError, NotFoundError, UsageError
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
from agentvault_tui.ledger.chain import written
from agentvault_tui.ledger.past_agents import Roster, Rosters
from agentvault_tui.ledger.past_spans import last_asked, seq_at
from agentvault_tui.ledger.past_stepups import stepups
from agentvault_tui.ledger.past_tokens import PastCache, PastHolding, holdings
from agentvault_tui.ledger.places import head_seq, time_at
from agentvault_tui.ledger.records import Panic
from agentvault_tui.ledger.schema import (
    StoreConnection,
    open_reader,
    storage_errors,
    transaction,
)
from agentvault_tui.model import (
    DECISION_TYPES,
    Agent,
    AgentCounts,
    AgentId,
    EventType,
    Outcome,
    StepUp,
)

_T = TypeVar("_T")
_MINUTE: Final = timedelta(minutes=1)
_ROUTINE: Final = frozenset(
    {
        *DECISION_TYPES,
        EventType.GATEWAY_RESULT,
        EventType.GATEWAY_TUNNEL,
        EventType.RUN_CONFINED,
        EventType.RUN_REFUSED,
        EventType.TOKEN_DELIVERED,
        EventType.TOKEN_REDEEMED,
        EventType.TOKEN_REVOKED,
        EventType.TOKEN_EXCHANGED,
        EventType.TOKEN_NOT_EXCHANGED,
        EventType.STEPUP_AUTHORIZING,
        EventType.STEPUP_NOT_APPROVED,
        EventType.STEPUP_CONFIRMED,
        EventType.OPERATOR_LOGIN,
        EventType.OPERATOR_LOGOUT,
        EventType.OPERATOR_NOT_SIGNED_IN,
        EventType.OPERATOR_REFUSED,
        EventType.UPSTREAM_REVOCATION,
        EventType.TENANT_LOG,
    }
)
"""Types of everyday events; all others count as turns."""
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


class PastPlace(NamedTuple):
    """An event's place in the chain."""

    seq: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Around:
    """Where one can go from a moment; None where the chain ends."""

    first: PastPlace
    last: PastPlace
    before: PastPlace | None
    after: PastPlace | None
    turn_before: PastPlace | None
    """The nearest event before that is not routine."""
    turn_after: PastPlace | None


@dataclass(frozen=True, slots=True)
class Past:
    """Everything a broker keeps in memory, as it was."""

    place: PastPlace
    """The last event that had happened."""
    hash: str
    moment: datetime
    """The reference time of countdowns: the event's time, or later."""
    agents: tuple[Agent, ...]
    """Oldest first, without credentials."""
    counts: dict[AgentId, AgentCounts]
    minute: dict[AgentId, AgentCounts]
    """Counts of the last minute."""
    last_asked: dict[AgentId, datetime]
    holdings: dict[AgentId, PastHolding]
    stepups: tuple[StepUp, ...]
    """The open ones, oldest first, then the latest others."""
    panic: Panic | None
    around: Around
    unsure: tuple[str, ...]
    """Sentences about gaps in the events."""


@dataclass(frozen=True, slots=True)
class PastActivity:
    """An agent's actions before an event, and its state."""

    seq: int
    moment: datetime
    agent: Agent
    activity: Activity
    whole: bool
    """Whether every decision is counted, not the latest `MOST` alone."""


class History:
    """The rebuilt parts of one reading connection, cached if they cannot change."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Read the database at *path* over a connection of its own, once asked."""
        self._path, self._clock = path, clock
        self._lock = asyncio.Lock()
        self._db: StoreConnection | None = None
        self._closed = False
        self._rosters = Rosters()
        self._cache = PastCache()

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._db is not None:
            await self._db.close()

    async def at(
        self, *, seq: int | None = None, moment: datetime | None = None
    ) -> Past:
        """Rebuild from events the state after event *seq*, or at *moment*.

        Raises:
            NotFoundError: nothing was recorded by then, or no event has that number.
            UsageError: the moment is still to come.
        """
        return await self._read(self._at, seq, moment)

    async def activity(
        self,
        agent_id: AgentId,
        since: Callable[[datetime], datetime],
        *,
        seq: int | None = None,
        moment: datetime | None = None,
    ) -> PastActivity:
        """Count an agent's actions by then, its quarters from *since* the moment.

        Raises:
            NotFoundError: as `at` does, or there was no such agent.
            UsageError: the moment is still to come.
        """
        more = {"agent_id": agent_id, "since": since}
        return await self._read(self._activity, seq, moment, **more)

    async def _read(
        self,
        look: Callable[..., _T],
        seq: int | None,
        moment: datetime | None,
        **more: object,
    ) -> _T:
        async with self._lock:
            if self._closed:
                raise LedgerUnwritableError("the ledger is closed")
            with storage_errors(self._path):
                self._db = self._db or await StoreConnection.open(
                    lambda: open_reader(self._path)
                )
                when = {"now": self._clock.now(), "seq": seq, "moment": moment}
                return await self._db.run(partial(look, **when), **more)

    def _at(
        self,
        db: sqlite3.Connection,
        *,
        now: datetime,
        seq: int | None = None,
        moment: datetime | None = None,
    ) -> Past:
        """Rebuild the state at an event, or at a moment, in one snapshot."""
        with transaction(db):
            place, moment = _find(db, seq, moment, now)
            return self._rebuild(db, place, moment)

    def _activity(
        self,
        db: sqlite3.Connection,
        agent_id: AgentId,
        since: Callable[[datetime], datetime],
        *,
        now: datetime,
        seq: int | None = None,
        moment: datetime | None = None,
    ) -> PastActivity:
        """Count the actions of one agent, its quarters from *since* the moment."""
        with transaction(db):
            place, moment = _find(db, seq, moment, now)
            agent = self._rosters.at(db, place.seq).agents.get(agent_id)
            if agent is None:
                raise NotFoundError(
                    "there was no such agent then", "look at a later moment"
                )
            begins = since(moment)
            counts, whole = _activity_at(db, agent_id, place.seq, begins, moment)
            return PastActivity(place.seq, moment, agent, counts, whole)

    def _rebuild(
        self, db: sqlite3.Connection, place: PastPlace, moment: datetime
    ) -> Past:
        seq = place.seq
        roster: Roster = self._rosters.at(db, seq)
        holdings_then, unsure = holdings(db, seq, moment, roster, self._cache)
        cases, doubts = stepups(db, seq, moment, roster)
        counts = self._cache.tallies.at(db, seq)
        minute = seq_at(db, moment - _MINUTE, upto=seq) or 0
        earlier = self._cache.tallies.at(db, minute)
        row = db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
        return Past(
            place=place,
            hash=written(row[0]),
            moment=moment,
            agents=tuple(
                one for one in roster.agents.values() if one.removed_at is None
            ),
            counts=counts,
            minute={
                agent: _less(count, earlier.get(agent))
                for agent, count in counts.items()
            },
            last_asked=last_asked(db, seq, roster.agents),
            holdings=holdings_then,
            stepups=cases,
            panic=roster.panic,
            around=_around(db, place),
            unsure=(*roster.unsure, *unsure, *doubts),
        )


def _find(
    db: sqlite3.Connection, seq: int | None, moment: datetime | None, now: datetime
) -> tuple[PastPlace, datetime]:
    """Return the event that is meant, and the moment."""
    head = head_seq(db)
    if not head:
        raise NotFoundError(
            "nothing is recorded yet", "the first event is still to come"
        )
    if seq is not None:
        if not 1 <= seq <= head:
            raise NotFoundError(
                f"there is no event {seq}", f"the ledger holds events 1 to {head}"
            )
        place = _place(db, seq)
        return place, place.time
    moment = now if moment is None else moment
    last = _place(db, head)
    if moment > max(now, last.time):
        raise UsageError(
            f"{moment:%Y-%m-%d %H:%M:%S}Z is still to come",
            f"the last event was at {last.time:%Y-%m-%d %H:%M:%S}Z",
        )
    located = seq_at(db, moment, upto=head)
    if located is None:
        first = _place(db, 1)
        raise NotFoundError(
            f"nothing was recorded by {moment:%Y-%m-%d %H:%M:%S}Z",
            f"the first event was at {first.time:%Y-%m-%d %H:%M:%S}Z",
        )
    return _place(db, located), moment


def _around(db: sqlite3.Connection, here: PastPlace) -> Around:
    head = head_seq(db)
    turns = [kind.value for kind in EventType if kind not in _ROUTINE]

    def turn(aggregate: str, compare: str) -> PastPlace | None:
        """Return the nearest event of note before or after the place."""
        sql = (
            f"SELECT {aggregate}(seq) FROM events"
            f" WHERE type = ? AND outcome IS NULL AND seq {compare} ?"
        )
        seqs = [
            row[0]
            for kind in turns
            if (row := db.execute(sql, (kind, here.seq)).fetchone())[0] is not None
        ]
        pick = max if aggregate == "max" else min
        return _place(db, pick(seqs)) if seqs else None

    return Around(
        first=_place(db, 1),
        last=_place(db, head),
        before=_place(db, here.seq - 1) if here.seq > 1 else None,
        after=_place(db, here.seq + 1) if here.seq < head else None,
        turn_before=turn("max", "<"),
        turn_after=turn("min", ">"),
    )


def _place(db: sqlite3.Connection, seq: int) -> PastPlace:
    return PastPlace(seq, parse_iso(time_at(db, seq)))


def _less(count: AgentCounts, before: AgentCounts | None) -> AgentCounts:
    if before is None:
        return count
    return AgentCounts(
        count.allowed - before.allowed,
        count.denied - before.denied,
        count.escalated - before.escalated,
    )


def _activity_at(
    db: sqlite3.Connection, agent: AgentId, seq: int, since: datetime, moment: datetime
) -> tuple[Activity, bool]:
    """Count an agent's actions up to event *seq*; and whether the count is complete.

    Scopes and reasons stand in the bodies, so only the latest decisions are read for
    them; quarters of an hour are stretches of the index, however many they hold.
    """
    counted: dict[tuple[str, str, str], Count] = {}
    whole = True
    for key, many, stamp, beyond in _read(db, agent, seq):
        whole = whole and not beyond
        old = counted.get(key)
        last = parse_iso(stamp)
        if old is not None:
            many, last = many + old.events, max(last, old.last)  # noqa: PLW2901
        counted[key] = Count(key[1], key[2], many, last)
    by_facet: dict[str, list[Count]] = defaultdict(list)
    for (facet, _, _), count in counted.items():
        by_facet[facet].append(count)
    quarters = tuple(_quarters(db, agent, seq, since, moment))
    scopes, reasons = tuple(by_facet[SCOPE]), tuple(by_facet[REASON])
    return Activity(scopes, reasons, quarters), whole


def _read(
    db: sqlite3.Connection, agent: AgentId, seq: int
) -> Iterator[tuple[tuple[str, str, str], int, str, bool]]:
    """Yield key, count and last time, and whether the list is truncated."""
    for kind, outcome in _KINDS:
        place = (agent, kind.value, outcome, seq)
        more = db.execute(_BEYOND, (*place, MOST)).fetchone() is not None
        rows = db.execute(_BODIES, (*place, MOST))
        for action, reason, scope, many, _, stamp in rows:
            fact = Fact(kind, agent, outcome, action, reason, scope)
            for _, facet, value, word in keys(fact, stamp):
                if facet != QUARTER:
                    yield (facet, value, word), many, stamp, more


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
