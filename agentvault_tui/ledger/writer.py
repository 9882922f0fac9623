"""The one writer: writes all commits that wait as one transaction (group commit).

No timer gathers a group: while one batch is on its way to the disk the next collects
behind it. Any failure latches: every commit is refused, until the store could be
opened again, the doubtful batch was found or found missing, and an event about it was
written.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerDamagedError,
    LedgerUnwritableError,
)
from agentvault_tui.ledger import schema
from agentvault_tui.ledger.activity import Counts, count_new
from agentvault_tui.ledger.batch import Batch, Job, Tip, build, write
from agentvault_tui.ledger.records import Attempt, Recovery
from agentvault_tui.ledger.recovery import DoubtfulBatch, note_path
from agentvault_tui.ledger.schema import StoreConnection
from agentvault_tui.ledger.state import prune
from agentvault_tui.model import Event

MAX_QUEUE: Final = 4096
MAX_BATCH: Final = 32
"""Commits in one transaction: past this a flush is shared enough, and all who wake
together would delay the next job, such as a revocation."""
_CALLS_ALONE: Final = 16
"""Records of calls in a transaction of their own: a revocation that comes waits for
it."""
_CALLS_BESIDE: Final = 4
"""The same in a transaction with any other."""
_WOKEN_A_TURN: Final = 2
_LAZY_SECONDS: Final = 0.02
"""The longest wait for others of a commit without a waiting caller."""
_CHECKPOINT_BYTES: Final = schema.LOG_BYTES
"""Bytes of log after which a checkpoint runs even under load."""
_IDLE_BYTES: Final = 256 * 1024
"""The same while no commit waits."""
_LARGE_BYTES: Final = 4 * schema.LOG_BYTES
"""Bytes after which writing waits until readers let go of the log."""
_READERS_MS: Final = 200
"""The longest such a wait; the next chore waits again."""
_LOOK_EVERY: Final = 8
"""Batches between two looks at the log's size."""
_SHM_HEAD: Final = 100
_COUNT_EVERY: Final = 1024
"""Events that are counted at once, under load."""
_COUNT_IDLE: Final = 256
"""The same while no commit waits."""
_PRUNE_EVERY: Final = 256
_PRUNE_ROWS: Final = 512
_ASSERTIONS_KEPT: Final = 600.0
"""Seconds of the boot clock, twice the longest life of an assertion, that a used one is
stored for at least: a wall clock that is ahead for a while makes none forgotten."""
_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 1.0


class Writer:
    """Owns the writing connection, the queue before it, and the chain's tip."""

    def __init__(
        self, db: StoreConnection, path: Path, ledger_id: str, tip: Tip
    ) -> None:
        self.tip = tip
        self.problem: str | None = None
        """Why nothing can be written, while that is so."""
        self.fault: str | None = None
        """Why grants are stopped, although it can be written."""
        self.on_problem: Callable[[], None] = _nothing
        self.on_commit: Callable[[], None] = _nothing
        self.on_written: Callable[[tuple[Event, ...], Attempt], None] = _nothing
        """Called with every durable commit, in the order of the chain."""
        self.on_recovery: Callable[[Recovery], None] = _nothing
        self.numbers: Iterator[int] = itertools.count(1)
        """Numbers for the rows of commits, larger than any that is stored."""
        self.broker: str | None = None
        """The id of this broker, where it is one of a team."""
        self.log = LogIndex(path)
        self._db: StoreConnection | None = db
        self._path = path
        self._ledger_id = ledger_id
        self._urgent: deque[Job] = deque()
        self._queue: deque[Job] = deque()
        self._calls: deque[Job] = deque()
        """Records of calls through the gateway, behind all others."""
        self._lanes = (self._urgent, self._queue, self._calls)
        self._eager = 0
        """How many of those in line do not wait for others."""
        self._lazy_timer: asyncio.TimerHandle | None = None
        """Runs while the others wait."""
        self._answers: deque[tuple[Job, tuple[Event, ...]]] = deque()
        """Callers to wake: their commits are durable."""
        self._call_answers: deque[tuple[Job, tuple[Event, ...]]] = deque()
        """The same for records of calls, behind the others."""
        self._idle: asyncio.Future[None] | None = None
        self._closing = False
        self._tidy = False
        self._batches = 0
        self._uncounted = 0
        self._looks: deque[tuple[float, str]] = deque()
        """Boot clock and wall clock at each pruning."""
        self._was_urgent = False
        """Whether the last batch was taken from the urgent lane."""
        self._held = 0
        """Bytes of log that readers held at the last checkpoint."""
        self._counts: Counts | None = None
        """Counts not written yet; None where the events must be read."""

    def submit(self, job: Job, *, urgent: bool) -> None:
        """Put *job* in line; an urgent one goes ahead, and never finds it full.

        One without a waiting caller shares the next transaction with others, if one
        comes within a moment.
        """
        if self.problem is not None or self._closing:
            raise self._refusal()
        lane = self._calls if job.of_call else self._queue
        if urgent:
            lane = self._urgent
        elif len(lane) >= MAX_QUEUE:
            raise LedgerBusyError(
                f"{MAX_QUEUE} commits already wait for the disk", "try again shortly"
            )
        lane.append(job)
        if urgent or not job.lazy:
            self._eager += 1
            self._wake_writer()
        elif self._lazy_timer is None:
            loop = asyncio.get_running_loop()
            self._lazy_timer = loop.call_later(_LAZY_SECONDS, self._write_lazy)

    def _write_lazy(self) -> None:
        self._lazy_timer = None
        self._wake_writer()

    def request_maintenance(self) -> None:
        """Ask for the chores that are better done while nothing waits."""
        self._tidy = True
        self._wake_writer()

    def close(self) -> None:
        """Write the waiting jobs, then stop."""
        self._closing = True
        self._wake_writer()

    async def run(self, clock: Clock) -> None:
        """Write until closed."""
        try:
            while True:
                await self._prepare(clock)
                jobs = self._take()
                if jobs:
                    await self._write(jobs, clock)
                elif self._answers or self._call_answers:
                    await self._answer()  # what they made way for was refused
                elif self._closing:
                    return
                elif self._tidy:
                    await self._maintain(clock, idle=True)
                else:
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
        except Exception as error:
            self.problem = f"writing ended ({type(error).__name__}): see the log"
            self.on_problem()
            raise
        finally:
            self._closing = True
            self._fail(self._waiting())
            await self._drop_connection()

    async def _prepare(self, clock: Clock) -> None:
        """Do the work before every batch; here nothing."""

    async def _write(self, jobs: list[Job], clock: Clock) -> None:
        try:
            batch = build(self.tip, jobs, clock)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            nothing = Batch(tuple(jobs), self.tip, self.tip, [], [])
            await self._recover(nothing, error, clock)
            return
        try:
            await self._connection().run(write, batch.statements)
        except Exception as error:  # noqa: BLE001 - any failure latches
            await self._recover(batch, error, clock)
            return
        await self._finish(batch, clock)

    async def _finish(self, batch: Batch, clock: Clock) -> None:
        """Publish a durable batch, wake its callers, and do the due work."""
        self.tip, jobs = batch.after, batch.jobs
        for job, events in zip(jobs, batch.events, strict=True):
            self.on_written(events, job.attempt)
        self.on_commit()
        for answer in zip(jobs, batch.events, strict=True):
            if self._was_urgent:
                self._answers.appendleft(answer)
            else:
                of_call = answer[0].of_call
                (self._call_answers if of_call else self._answers).append(answer)
        await self._answer()
        self._batches += 1
        due = self._batches % _PRUNE_EVERY == 0
        self._count(chain.from_iterable(batch.events))
        due |= self._uncounted >= _COUNT_EVERY
        if self._batches % _LOOK_EVERY == 0:
            due |= self.log.to_move() > _CHECKPOINT_BYTES
        if due:
            await self._maintain(clock, idle=False)

    def _count(self, events: Iterable[Event]) -> None:
        """Count events that are durable, for the sums that chores write."""
        for event in events:
            self._uncounted += 1
            if self._counts is not None:
                self._counts.add_event(event, iso(event.time))

    async def _answer(self) -> None:
        """Wake the callers, few a turn of the loop; urgent ones first.

        Of the calls, few between two batches while anything else waits to be written.
        """
        woken = False
        while self._answers or self._call_answers:
            urgent = self._urgent_waits() and not self._was_urgent
            if urgent or (woken and self._queue and not self._answers):
                return
            self._wake(_WOKEN_A_TURN)
            woken = True
            await asyncio.sleep(0)

    def _urgent_waits(self) -> bool:
        """Check whether urgent jobs are to be written or added to the copy."""
        return bool(self._urgent)

    def _wake(self, most: int) -> None:
        for _ in range(most):
            answers = self._answers or self._call_answers
            if not answers:
                return
            job, events = answers.popleft()
            if job.done is not None and not job.done.done():
                job.done.set_result(events[: len(job.attempt.drafts)])

    async def _maintain(self, clock: Clock, *, idle: bool) -> None:
        """Prune, count and checkpoint, between batches."""
        self._tidy = False
        if self.problem is not None:
            return  # latched for good: the file may not be ours, or is evidence
        try:
            db = self._connection()
            if self._batches % _PRUNE_EVERY == 0 or (idle and self._batches):
                self._batches = 0
                now = iso(clock.now())
                forget = min(now, self._clock_before(clock, now))
                await db.run(write, prune(now, _PRUNE_ROWS, forget))
            if self._uncounted >= (_COUNT_IDLE if idle else _COUNT_EVERY):
                await db.run(count_new, self._counts)
                self._counts, self._uncounted = Counts(), 0
            if self.log.to_move() > (_IDLE_BYTES if idle else _CHECKPOINT_BYTES):
                # A reader that goes on and on is waited for once, not at every chore.
                waits = _CHECKPOINT_BYTES if idle and not self._held else _LARGE_BYTES
                least = self._held + waits
                held = await db.run(_checkpoint, self._path, least)
                self._held = self._held if held is None else held
        except Exception as error:  # noqa: BLE001 - any failure latches
            nothing = Batch((), self.tip, self.tip, [], [])
            await self._recover(nothing, error, clock)

    def _clock_before(self, clock: Clock, now: str) -> str:
        """Return the wall clock's time `_ASSERTIONS_KEPT` ago, or nothing."""
        self._looks.append((clock.boot(), now))
        least = clock.boot() - _ASSERTIONS_KEPT
        while len(self._looks) > 1 and self._looks[1][0] <= least:
            self._looks.popleft()
        boot, before = self._looks[0]
        return before if boot <= least else ""

    async def _recover(self, batch: Batch, error: Exception, clock: Clock) -> None:
        """Refuse commits until the store was opened again and takes an event."""
        self.problem = f"the ledger cannot be written ({error})"
        self._counts = None
        doubt = DoubtfulBatch(batch, self._ledger_id, str(error))
        # Before its callers are answered: from then on a kill must not lose it.
        await asyncio.to_thread(doubt.write_note, self._path)
        self._fail([*batch.jobs, *self._waiting()])
        self.on_problem()
        delay = _FIRST_RETRY
        while not self._closing:
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY)
            try:
                await self._drop_connection()
                self._db = await StoreConnection.open(
                    lambda: schema.open_writer(self._path)
                )
                await self._db.run(schema.reopen, self._path)
                self.tip, recovery = await doubt.settle(self._db, clock)
                await asyncio.to_thread(note_path(self._path).unlink, missing_ok=True)
            except LedgerDamagedError as lost:
                self.problem = str(lost)
                self.on_problem()
                return
            except (sqlite3.Error, OSError, ValueError):
                continue
            self.problem = None
            if recovery.committed:
                # They are in the chain, so whoever follows it must see them.
                for job, events in zip(batch.jobs, batch.events, strict=True):
                    self.on_written(events, job.attempt)
            if recovery.event is not None:
                self.on_written((recovery.event,), Attempt((), ()))
            self.on_problem()
            self.on_commit()
            self.on_recovery(recovery)
            return

    async def _drop_connection(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                await db.close()

    def _connection(self) -> StoreConnection:
        if self._db is None:
            raise sqlite3.ProgrammingError("no connection")
        return self._db

    def _take(self) -> list[Job]:
        # What is urgent goes alone: its record must not wait for others' rows. Then
        # it is the others' turn: an agent that ends its own tokens is urgent as well.
        others = self._queue or self._calls
        urgent = self._urgent and not (self._was_urgent and others)
        self._was_urgent = bool(urgent)
        if not self._eager and self._lazy_timer is not None and not self._closing:
            return []
        lane = self._urgent if urgent else self._queue
        taken = [lane.popleft() for _ in range(min(len(lane), MAX_BATCH))]
        if not urgent:
            most = min(len(self._calls), _CALLS_BESIDE if taken else _CALLS_ALONE)
            taken += [self._calls.popleft() for _ in range(most)]
        self._eager -= len(taken) - sum(job.lazy for job in taken)
        return taken

    def _waiting(self) -> list[Job]:
        jobs = list(chain.from_iterable(self._lanes))
        for lane in self._lanes:
            lane.clear()
        self._eager = 0
        return jobs

    def _fail(self, jobs: list[Job]) -> None:
        # What is durable stays so.
        self._wake(len(self._answers) + len(self._call_answers))
        for job in jobs:
            if job.done is not None and not job.done.done():
                job.done.set_exception(self._refusal())

    def _refusal(self) -> LedgerUnwritableError:
        return LedgerUnwritableError(
            self.problem or "the ledger is closed",
            "nothing is issued until writing works again",
        )

    def _wake_writer(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)


class LogIndex:
    """The head of the log's index, in a file that stays open.

    To close any descriptor of it ends all locks that this process has on it, SQLite's
    among them (fcntl(2)); then another process would write the index again.
    """

    def __init__(self, path: Path) -> None:
        """Read the index of the log of the database at *path*."""
        self._path = Path(f"{path}-shm")
        self._file: int | None = None

    def to_move(self) -> int:
        """Return the bytes not in the database yet (sqlite.org/walformat.html, 2.1)."""
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
            head = os.pread(self._file, _SHM_HEAD, 0)
        except OSError:
            return 0
        if len(head) < _SHM_HEAD:
            return 0
        page, frames = struct.unpack_from("=HI", head, 14)
        (moved,) = struct.unpack_from("=I", head, 96)
        waiting: int = (frames - moved) * (page + 24)
        return waiting

    def close(self) -> None:
        """Close the file, once no connection of this process is open any more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _checkpoint(db: sqlite3.Connection, path: Path, least: int) -> int | None:
    """Move the log into the database; from *least* bytes on, wait for its readers.

    Returns how many bytes readers held all the same; None if not waited for.
    """
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    size = Path(f"{path}-wal").stat().st_size
    if size <= least:
        return None
    db.execute(f"PRAGMA busy_timeout = {_READERS_MS}")
    try:
        (held, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout = {schema.BUSY_SECONDS * 1000:.0f}")
    return size if held else 0


def _nothing(*_: object) -> None:
    """Stand in until someone listens."""
