"""A ledger in one file: the transactions that write it, and its upkeep."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import struct
from collections import deque
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Final

from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.ledger import schema
from agentvault_tui.ledger.activity import Counts, count_new
from agentvault_tui.ledger.batch import Batch, Job, build, write
from agentvault_tui.ledger.recovery import DoubtfulBatch, note_path
from agentvault_tui.ledger.schema import StoreConnection
from agentvault_tui.ledger.state import Statement, prune
from agentvault_tui.ledger.writer import Writer
from agentvault_tui.model import Event

_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 1.0
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


class SqliteStore:
    """Writes batches to the file of a home, and finds out about those that failed."""

    shared = position = None

    def __init__(self, writer: Writer, file: LedgerFile) -> None:
        """Write the batches of *writer* to *file*."""
        self.writer, self.file, self.submit = writer, file, writer.submit

    async def run(self) -> None:
        """Write until the writer is closed."""
        await self.writer.run(self)

    async def take(self) -> list[Job]:
        """Take the next batch out of the lines."""
        return self.writer.lines.take(closing=self.writer.closing)

    async def write(self, jobs: list[Job]) -> None:
        """Chain the events of *jobs*, and write all in one transaction."""
        writer = self.writer
        batch = Batch(jobs, writer.tip, writer.tip, [], [])
        try:
            batch = build(writer.tip, jobs, self.file.clock)
            await self.file.write(batch.statements)
        except Exception as error:  # noqa: BLE001 - any failure latches
            await self._recover(batch, error)
            return
        await writer.publish(batch, writer.lines.urgent)
        if self.file.add_batch(chain.from_iterable(batch.events)):
            await self.maintain(idle=False)

    async def maintain(self, *, idle: bool) -> None:
        """Do the chores that are due, more of them while nothing waits."""
        writer = self.writer
        if writer.problem is not None:
            return  # latched for good: the file may not be ours, or is evidence
        try:
            await self.file.maintain(idle=idle)
        except Exception as error:  # noqa: BLE001 - any failure latches
            await self._recover(Batch((), writer.tip, writer.tip, [], []), error)

    async def _recover(self, batch: Batch, error: Exception) -> None:
        """Refuse commits until the file was opened again and takes an event."""
        writer, path = self.writer, self.file.path
        writer.problem = f"the ledger cannot be written ({error})"
        doubt = DoubtfulBatch(batch, self.file.ledger_id, str(error))
        # Before its callers are answered: from then on a kill must not lose it.
        await asyncio.to_thread(doubt.write_note, path)
        writer.fail(batch.jobs)
        writer.listeners.announce_state()
        delay = _FIRST_RETRY
        while not writer.closing:
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LAST_RETRY)
            try:
                await self.file.reopen()
                db = self.file.connection
                writer.tip, recovery = await doubt.settle(db, self.file.clock)
                await asyncio.to_thread(note_path(path).unlink, missing_ok=True)
            except LedgerDamagedError as lost:
                writer.problem = str(lost)
                writer.listeners.announce_state()
                return
            except (sqlite3.Error, OSError, ValueError):
                continue
            writer.problem = None
            if recovery.committed:
                # They are in the chain, so whoever follows it must see them.
                for job, events in zip(batch.jobs, batch.events, strict=True):
                    writer.listeners.announce_commit(events, job.attempt.changes)
            if recovery.event is not None:
                writer.listeners.announce_commit((recovery.event,), ())
            writer.release(recovery)
            return


class LedgerFile:
    """The database of a home while it is written."""

    def __init__(
        self, db: StoreConnection, path: Path, ledger_id: str, clock: Clock
    ) -> None:
        """Write over *db* to the database at *path*."""
        self.path, self.log = path, LogIndex(path)
        self.ledger_id, self.clock = ledger_id, clock
        self._db: StoreConnection | None = db
        self._batches = 0
        self._uncounted = 0
        self._counts: Counts | None = None
        """Counts not written yet; None where the events must be read."""
        self._looks: deque[tuple[float, str]] = deque()
        """Boot clock and wall clock at each pruning."""
        self._held = 0
        """Bytes of log that readers held at the last checkpoint."""

    @property
    def connection(self) -> StoreConnection:
        """The open connection; sqlite3.ProgrammingError: there is none."""
        if self._db is None:
            raise sqlite3.ProgrammingError("no connection")
        return self._db

    async def write(self, statements: list[Statement]) -> None:
        """Run *statements* as one transaction."""
        await self.connection.run(write, statements)

    async def reopen(self) -> None:
        """Open the database again after a failure."""
        await self._disconnect()
        self._counts = None
        self._db = await StoreConnection.open(lambda: schema.open_writer(self.path))
        await self._db.run(schema.reopen, self.path)

    async def close(self) -> None:
        """Close the file, once no other connection of this process is open."""
        await self._disconnect()
        self.log.close()

    async def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                await db.close()

    def count(self, events: Iterable[Event]) -> None:
        """Count events that are durable, for the sums that chores write."""
        for event in events:
            self._uncounted += 1
            if self._counts is not None:
                self._counts.add_event(event, iso(event.time))

    def add_batch(self, events: Iterable[Event]) -> bool:
        """Count a batch that was written; return whether chores are due."""
        self._batches += 1
        self.count(events)
        due = self._batches % _PRUNE_EVERY == 0 or self._uncounted >= _COUNT_EVERY
        if self._batches % _LOOK_EVERY == 0:
            due |= self.log.to_move() > _CHECKPOINT_BYTES
        return due

    async def maintain(self, *, idle: bool) -> bool:
        """Prune, count and checkpoint; return whether anything was pruned."""
        batches, pruned = self._batches, idle or self._batches % _PRUNE_EVERY == 0
        if pruned:
            self._batches = 0
            now = iso(self.clock.now())
            forget = min(now, self._clock_before(now))
            await self.write(prune(now, _PRUNE_ROWS, forget))
        if self._uncounted >= (_COUNT_IDLE if idle else _COUNT_EVERY):
            await self.connection.run(count_new, self._counts)
            self._counts, self._uncounted = Counts(), 0
        if self.log.to_move() > (_IDLE_BYTES if idle else _CHECKPOINT_BYTES):
            # A reader that goes on and on is waited for once, not at every chore.
            waits = _CHECKPOINT_BYTES if idle and not self._held else _LARGE_BYTES
            least = self._held + waits
            held = await self.connection.run(_checkpoint, self.path, least)
            self._held = self._held if held is None else held
        return pruned and batches > 0

    def _clock_before(self, now: str) -> str:
        """Return the wall clock's time `_ASSERTIONS_KEPT` ago, or nothing."""
        self._looks.append((self.clock.boot(), now))
        least = self.clock.boot() - _ASSERTIONS_KEPT
        while len(self._looks) > 1 and self._looks[1][0] <= least:
            self._looks.popleft()
        boot, before = self._looks[0]
        return before if boot <= least else ""


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
