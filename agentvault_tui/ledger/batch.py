"""Many commits as one transaction: numbered, chained, and written as SQL."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import Final

from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.errors import LedgerError
from agentvault_tui.ledger.bindings import bind
from agentvault_tui.ledger.chain import Prepared, genesis, link, prepare, written
from agentvault_tui.ledger.keys import ending_keys, keys_of, written_keys
from agentvault_tui.ledger.records import Attempt, Change, Head
from agentvault_tui.ledger.schema import transaction
from agentvault_tui.ledger.state import (
    Row,
    Statement,
    event_row,
    event_statements,
    row_of,
    state_statements,
)
from agentvault_tui.ledger.uses import use_statements
from agentvault_tui.model import Draft, Event

NUMBER: Final = re.compile(r'(?<=":")\d+(?=:)')
"""A row's number in `Prepared.state`; a quote inside of a key would be escaped."""
_MEMBERS: Final = attrgetter(*Event._fields[2:-1])
"""The members of an event's draft, in order."""
_HELD: Final = timedelta(seconds=2)
"""A clock set back by no more than this is held at the last event's time."""


@dataclass(slots=True)
class Job:
    """One call of `commit`, on its way to the disk."""

    prepared: tuple[Prepared, ...]
    rows: list[tuple[str, Row]]
    attempt: Attempt
    done: asyncio.Future[tuple[Event, ...]] | None = None
    """Set once it is durable, where a caller waits."""
    urgent: bool = False
    """Whether it goes ahead of all others."""
    of_call: bool = False
    """Whether it records a call through the gateway, and others go ahead."""
    lazy: bool = False
    """Whether it may wait a moment for others."""
    exact: bool = False
    """Whether an urgent one fails if others changed its basis."""
    made: float = 0.0
    """Its arrival, in loop time."""
    _depends: frozenset[str] | None = None

    @property
    def depends(self) -> frozenset[str]:
        """The keys of its basis; see `keys`."""
        if self._depends is None:
            drafts, changes = self.attempt.drafts, self.attempt.changes
            more = ending_keys(changes) if self.exact else ()
            self._depends = frozenset(keys_of(drafts, changes, self.rows)).union(more)
        return self._depends

    @property
    def writes(self) -> set[str]:
        """The keys of its changes."""
        return written_keys(self.attempt.drafts, self.attempt.changes, self.rows)

    @property
    def first(self) -> int | None:
        """The number of its first row, if it has one."""
        return min((number_of(*pair) for pair in self.rows), default=None)

    def shift(self, by: int) -> None:
        """Make the numbers of its rows larger, also where its events bind them."""
        self.rows = [
            (table, (row[0] + by, *row[1:]))
            if table == "tokens"
            else (table, (*row[:-1], row[-1] + by))
            for table, row in self.rows
        ]
        self.prepared = tuple(
            one._replace(state=NUMBER.sub(lambda n: str(int(n[0]) + by), one.state))
            for one in self.prepared
        )

    def refuse(self, error: LedgerError) -> None:
        """Fail its caller: nothing of it was written."""
        if self.done is not None and not self.done.done():
            self.done.set_exception(error)

    @classmethod
    def of(
        cls,
        drafts: Sequence[Draft],
        changes: Sequence[Change],
        numbers: Iterator[int],
        broker: str | None = None,
    ) -> Job:
        """Prepare a commit: number its rows, and bind them to its events.

        Args:
            drafts: the events.
            changes: the rows.
            numbers: for the rows.
            broker: of a team, who records them, which their detail says.
        """
        # The attempt has the drafts themselves: callers know theirs again by them.
        written_drafts = drafts
        if broker is not None:
            by = {"broker": broker}
            written_drafts = [replace(one, detail=by | one.detail) for one in drafts]
        rows = [row_of(change, next(numbers)) for change in changes]
        return cls(
            tuple(prepare(*pair) for pair in bind(written_drafts, rows)),
            rows,
            Attempt(tuple(drafts), tuple(changes)),
        )


def older(jobs: Iterable[Job], waiting: Sequence[Job]) -> list[Job]:
    """Return the waiting jobs that are older than one of *jobs* and share a key.

    Args:
        jobs: those that are about to be placed.
        waiting: a lane of others, in the order they were made.
    """
    jobs = [job for job in jobs if job.rows] if waiting else ()
    newest = max((job.made for job in jobs), default=0)
    depends = set[str]().union(*(job.depends for job in jobs))
    writes = set[str]().union(*(job.writes for job in jobs))
    rows = []
    for job in reversed(waiting) if jobs else ():
        if (job.rows and job.made < newest) and not (
            depends.isdisjoint(job.writes) and writes.isdisjoint(job.depends)
        ):
            rows.append(job)
            depends |= job.depends
            writes |= job.writes
    return rows


@dataclass(frozen=True, slots=True)
class Tip:
    """Where the chain ends."""

    seq: int
    hash: bytes
    time: datetime | None
    """Of the last event."""

    @property
    def head(self) -> Head:
        """The same for the outside."""
        return Head(self.seq, written(self.hash))


@dataclass(frozen=True, slots=True)
class Batch:
    """The content of one transaction, and the end of the chain before and after it."""

    jobs: Sequence[Job]
    before: Tip
    after: Tip
    events: list[tuple[Event, ...]]
    """One tuple for each job."""
    statements: list[Statement]


def build(tip: Tip, jobs: Sequence[Job], clock: Clock) -> Batch:
    """Give the drafts of *jobs* their places behind *tip*, at the clock's time."""
    now, new_era = _stamp(tip, clock)
    return place(tip, jobs, now, new_era=new_era)


def place(tip: Tip, jobs: Sequence[Job], now: datetime, *, new_era: bool) -> Batch:
    """Give the drafts of *jobs* their places behind *tip*, at the time *now*.

    A *new_era* begins where that is before the last event's.
    """
    stamp = iso(now)
    seq, digest = tip.seq, tip.hash
    rows: list[Row] = []
    changed: list[tuple[str, Row]] = []
    events: list[tuple[Event, ...]] = []
    for job in jobs:
        placed = []
        for prepared in job.prepared:
            seq += 1
            body = prepared.body(seq, stamp)
            digest = link(digest, seq, body.encode())
            columns = seq, now, *_MEMBERS(prepared.draft), written(digest)
            event = Event._make(columns)
            row = event_row((seq, stamp), event, prepared.text, body)
            rows.append((*row, digest))
            placed.append(event)
        events.append(tuple(placed))
        changed += placed_rows(job, seq)
    statements = list(event_statements(rows))
    if new_era and rows:
        statements.append(("INSERT INTO eras VALUES (?)", (tip.seq + 1,)))
    statements += state_statements(changed)
    statements += use_statements(chain.from_iterable(events))
    after = Tip(seq, digest, now) if rows else tip
    return Batch(jobs, tip, after, events, statements)


def write(db: sqlite3.Connection, statements: list[Statement]) -> None:
    """Run *statements* as one transaction, in the connection's thread."""
    with transaction(db, "BEGIN IMMEDIATE"):
        for sql, parameters in statements:
            db.execute(sql, parameters)


def read_tip(db: sqlite3.Connection, ledger_id: str) -> Tip:
    """Return where the stored chain ends."""
    row = db.execute(
        "SELECT seq, hash, time FROM events ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return Tip(0, genesis(ledger_id), None)
    return Tip(row[0], row[1], parse_iso(row[2]))


def _stamp(tip: Tip, clock: Clock) -> tuple[datetime, bool]:
    """Return the time of the next events, and whether it is before the last one's.

    Inside an era time never goes back, so a reader finds a moment by bisection.
    """
    now = clock.now()
    if tip.time is None:
        return now, True
    if now >= tip.time:
        return now, False
    if tip.time - now <= _HELD:
        return tip.time, False
    return now, True


def placed_rows(job: Job, last: int) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a job up to event *last*, each token's with its event."""
    first = last - len(job.prepared) + 1
    for table, row in job.rows:
        if table != "tokens":
            yield table, row
        elif first == last:
            yield table, (*row, last)
        else:
            numbered = enumerate(job.prepared, first)
            yield table, (*row, next(n for n, one in numbered if row[1] in one.state))


def number_of(table: str, row: Row) -> int:
    """Return the number of a row."""
    return int(row[0] if table == "tokens" else row[-1])
