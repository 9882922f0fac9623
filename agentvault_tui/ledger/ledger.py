"""The ledger as the broker sees it: commit, load, read, and its state of health."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from agentvault_tui.clock import Clock
from agentvault_tui.errors import LedgerDamagedError, LedgerUnwritableError
from agentvault_tui.home import Home
from agentvault_tui.ledger import schema, state
from agentvault_tui.ledger.batch import Job
from agentvault_tui.ledger.headfile import Witness, write_witness
from agentvault_tui.ledger.opening import (
    HomeLock,
    create_file,
    keep_room,
    make_room,
    open_alone,
    shortage,
)
from agentvault_tui.ledger.past import History
from agentvault_tui.ledger.query import read_links, read_one, read_page
from agentvault_tui.ledger.reading import Reading
from agentvault_tui.ledger.records import Change, EventQuery, Head, Link, Loaded, Page
from agentvault_tui.ledger.schema import StoreConnection, storage_errors
from agentvault_tui.ledger.search import index_digest
from agentvault_tui.ledger.sqlite_store import LedgerFile, SqliteStore
from agentvault_tui.ledger.uses_reader import UsesReader
from agentvault_tui.ledger.verify_state import StateDivergence, diverged
from agentvault_tui.ledger.writer import Listeners, Writer
from agentvault_tui.model import CALL_TYPES, OUTCOME_TYPES, Draft, Event
from agentvault_tui.settings import Settings
from agentvault_tui.store_url import require_library

if TYPE_CHECKING:
    from agentvault_tui.ledger.postgres_store import PostgresStore
    from agentvault_tui.ledger.shared_log import SharedLog

log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")
_Work = Coroutine[object, object, None]
_SPACE_LOOK: Final = 0.5
"""Seconds between two looks at the free space."""
_PULSE: Final = 0.2
"""Seconds the head file may be behind the chain while events flow."""
_ANSWERED: Final = 0.001
"""Seconds after a commit in which its caller answers."""


class Ledger:
    """State and events of one home, and the only way to write them.

    Attributes:
        listeners: the functions that are called when it changes.
        past: rebuilds what was at a moment.
        uses: reads windows of limits.
        fault: the fault that a verification found, if there is one.
        unverified: why no verification had a result for too long, if so.
    """

    ledger_id: str
    past: History
    uses: UsesReader
    recounted: bool
    _upkeep: Upkeep
    _store: SqliteStore | PostgresStore
    _reading: Reading

    def __init__(self) -> None:
        """Use `open` instead."""
        self.listeners = Listeners(self._spawn)
        self.fault: str | None = None
        self.unverified: str | None = None
        self.decisions = Decisions()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        home: Home,
        *,
        clock: Clock,
        settings: Settings | None = None,
        again: bool = False,
    ) -> Ledger:
        """Take the home's lock, and open, create or refuse its ledger.

        With a team's store in *settings* the file is this home's copy of it, made up to
        the store's head first; if the store is away, nothing is granted. A store that
        was copied elsewhere is used only *again*.

        Raises:
            HomeInUseError: another broker has the home; says which process.
            LedgerDamagedError: the file is not the one the last process left.
            LedgerUnwritableError: it cannot be opened now.
            RefusedError: the store is not one that this broker may use, or was copied.
        """
        make_room(home)
        create_file(home)
        self, path = cls(), home.database
        # What was opened is closed again when the rest fails: each has a thread.
        async with contextlib.AsyncExitStack() as undo:
            lock = HomeLock(home.lock_file)
            undo.callback(lock.release)
            with storage_errors(path):
                db = await StoreConnection.open(lambda: schema.open_writer(path))
            undo.push_async_callback(db.close)
            if settings is not None and settings.store.url:
                require_library()
                from agentvault_tui.ledger.team import open_team  # noqa: PLC0415 - it imports psycopg, which few need

                opened, self._store = await open_team(
                    db, home, settings, clock, self.listeners, undo=undo, again=again
                )
            else:
                opened = await db.run(open_alone, home, clock, again=again)
                writer = Writer(opened.tip, opened.last_n, self.listeners)
                file = LedgerFile(db, path, opened.ledger_id, clock)
                self._store = SqliteStore(writer, file)
            self.ledger_id, self.recounted = opened.ledger_id, opened.recounted
            upkeep = Upkeep(home, lock, self.ledger_id, self._store.writer)
            upkeep.write_head()
            await asyncio.to_thread(upkeep.look_at_space)
            self._upkeep, self.past = upkeep, History(path, clock)
            undo.push_async_callback(self._end_tasks)
            self._reading = await Reading.open(
                home, opened, self._spawn, self._to_index
            )
            undo.push_async_callback(self._reading.close)
            with storage_errors(path):
                self.uses = UsesReader(path)
            undo.callback(self.uses.close)
            self._spawn(self._store.run(), "writer")
            self._spawn(upkeep.keep_head_file(), "pulse")
            self._spawn(upkeep.watch_space(), "space")
            undo.pop_all()
        return self

    def commit(
        self,
        *drafts: Draft,
        changes: Sequence[Change] = (),
        urgent: bool = False,
        lazy: bool = False,
        exact: bool = False,
    ) -> asyncio.Future[tuple[Event, ...]]:
        """Put events and the changes they record in line for the disk.

        Events hold the hashes of the rows that are changed (see `bindings`); rows
        that none of *drafts* can hold get an event of their own.

        An *urgent* commit (a revocation) precedes all waiting ones, never finds the
        line full, and is taken while the disk is nearly full; an *exact* one fails if
        another broker changed its basis. A *lazy* one, without a waiting caller, shares
        the next transaction. Cancelling the caller undoes nothing.

        Returns:
            the future that is done when all of it is durable, with the events.

        Raises:
            LedgerBusyError: too many commits wait.
            OvertakenError: another broker, or a revocation here, wrote one of its
                `keys` since this was called; of urgent ones only an exact one.
            LedgerUnwritableError: nothing can be written now, or this was not; it may
                yet be found to have been, see `Listeners`.
            ValueError: an outcome on, or missing from, the wrong type of event.
        """
        for draft in drafts:
            if (draft.outcome is None) == (draft.type in OUTCOME_TYPES):
                raise ValueError(f"outcome {draft.outcome} on {draft.type}")
        if not urgent:
            self.check_writable()
        broker = self.shared.broker_id if self.shared else None
        job = Job.of(drafts, changes, self._store.writer.numbers, broker)
        loop = asyncio.get_running_loop()
        job.done, job.made = loop.create_future(), loop.time()
        job.urgent, job.lazy, job.exact = urgent, lazy, exact
        job.of_call = bool(drafts) and drafts[-1].type in CALL_TYPES
        self._store.submit(job)
        if not job.of_call:
            self.decisions.begin(job.done)
        return job.done

    async def confirm(self) -> None:
        """Know all that any broker of the team wrote before this was called.

        For reads that grant: introspection, redeeming, admission of a call. One look
        at the store, if there is one, serves all who ask at once.

        Raises:
            LedgerUnwritableError: the store did not answer in time.
        """
        if self._store.position is not None:
            await self._store.position.confirm()

    @property
    def store_problem(self) -> str | None:
        """Why the team's store cannot be used now, if so: reads may then be stale."""
        return self._store.writer.problem if self.shared is not None else None

    @property
    def shared(self) -> SharedLog | None:
        """The team's log, where brokers say that they live; None without a store."""
        return self._store.shared

    @property
    def head(self) -> Head:
        """The last durable link."""
        return self._store.writer.tip.head

    def check_writable(self) -> None:
        """See that commits that are not urgent are taken now.

        Raises:
            LedgerUnwritableError: they are not.
        """
        if not self.writable:
            what = self.problem or "the ledger is closed"
            if self.fault or self.unverified:
                what = f"the ledger {self.fault or self.unverified}"
            raise LedgerUnwritableError(what, "nothing is granted until that is over")

    @property
    def writable(self) -> bool:
        """Whether commits that are not urgent are taken now."""
        return self._withheld is None and self.takes_cuts

    @property
    def takes_cuts(self) -> bool:
        """Whether urgent commits are taken now."""
        return self._store.writer.problem is None and not self._upkeep.closing.is_set()

    @property
    def problem(self) -> str | None:
        """The fault: the reason when not writable, or else a warning."""
        writer, upkeep = self._store.writer, self._upkeep
        return writer.problem or self._withheld or upkeep.head_problem

    @property
    def _withheld(self) -> str | None:
        withheld = self.fault or self.unverified
        return withheld or self._store.writer.fault or self._upkeep.shortage

    def distrust(self, fault: str) -> None:
        """Take no commit from now on that is not urgent: nothing is to be granted."""
        self.fault = fault
        self.listeners.announce_state()

    def set_unverified(self, why: str | None) -> None:
        """Take no commit that is not urgent until this is called with None."""
        self.unverified = why
        self.listeners.announce_state()

    @property
    def index_lag(self) -> int:
        """How many events the text index is behind; searches are exact all the same."""
        return self._store.writer.tip.seq - self._reading.indexed

    async def load(self) -> Loaded:
        """Read all state, without expired, dropped and voided tokens."""
        return await self.read(state.load, self._store.file.clock)

    async def diverged(self, loaded: Loaded) -> StateDivergence:
        """Return the rows of *loaded* that contradict the events."""
        divergence = await self.read(diverged, loaded, self._store.file.clock)
        return replace(divergence, limits=self.recounted)

    async def events(self, query: EventQuery) -> Page:
        """Read one page of events; ValueError: the limit is not 1 to 1000."""
        if not 1 <= query.limit <= 1000:
            raise ValueError(f"limit {query.limit} is not 1 to 1000")
        if query.q is None:
            return await self.read(read_page, query, self._store.file.clock)
        await self._reading.renew()
        try:
            return await self.read(read_page, query, self._store.file.clock)
        except LedgerDamagedError:  # of both files it may be the index
            await self._reading.renew(damaged=True)
            return await self.read(read_page, query, self._store.file.clock)

    async def event(self, seq: int) -> Event | None:
        """Read one event."""
        if not 0 < seq <= self.head.seq:
            return None
        return await self.read(read_one, seq)

    async def links(self, seqs: Sequence[int]) -> tuple[Link, ...]:
        """Read links of the chain by their numbers; missing ones are left out."""
        there = [seq for seq in seqs if 0 < seq <= self.head.seq]
        return await self.read(read_links, self.ledger_id, there)

    async def close(self) -> None:
        """Write the waiting jobs, the head file too, and release the home."""
        if self._upkeep.closing.is_set():
            return
        writer, upkeep = self._store.writer, self._upkeep
        upkeep.closing.set()
        writer.moved.set()
        whole = await self._reading.close()
        self.uses.close()
        await self.past.close()
        writer.close()
        for task in tuple(self._tasks):
            await asyncio.gather(task, return_exceptions=True)
        await self._store.file.close()
        # A batch whose commit failed may yet be found behind the head this one knows.
        # Nor is an index vouched for that another process changed.
        certain = writer.problem is None and whole
        index = await asyncio.to_thread(index_digest, upkeep.home) if certain else None
        upkeep.write_head(index)
        upkeep.lock.release()

    async def read(
        self,
        function: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run *function* on a connection that reads.

        Raises:
            LedgerUnwritableError: the ledger is closed, or cannot be read now.
        """
        if self._upkeep.closing.is_set():
            raise LedgerUnwritableError("the ledger is closed")
        return await self._reading.run(function, *args, **kwargs)

    def _to_index(self, indexed: int) -> int:
        """Return up to where to index: the index takes none of the reserved space."""
        short = self._upkeep.shortage is not None
        return indexed if short else self._store.writer.tip.seq

    async def _end_tasks(self) -> None:
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: _Work, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"ledger {name}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())


class Upkeep:
    """The files of an open ledger's home, next to its database."""

    def __init__(
        self, home: Home, lock: HomeLock, ledger_id: str, writer: Writer
    ) -> None:
        """Write the head file of *writer*'s chain."""
        self.home, self.lock = home, lock
        self.closing = asyncio.Event()
        self.head_problem: str | None = None
        """Why the head file is behind, if so."""
        self.shortage: str | None = None
        """Why grants are stopped for want of space, if so."""
        self._ledger_id, self._writer = ledger_id, writer
        self._loop = asyncio.get_running_loop()

    async def keep_head_file(self) -> None:
        """Bring the head file up to date, and ask for chores, while events flow."""
        moved = self._writer.moved
        while not self.closing.is_set():
            await moved.wait()
            moved.clear()
            if not self.closing.is_set():
                await self._rest(_PULSE)
                await asyncio.to_thread(self.write_head)
                if not moved.is_set():
                    self._writer.request_maintenance()

    async def watch_space(self) -> None:
        """Look twice a second for room on the disk, since other programs use it too."""
        while not self.closing.is_set():
            await self._rest(_SPACE_LOOK)
            before = self.shortage
            await asyncio.to_thread(self.look_at_space)
            if (self.shortage is None) is not (before is None):
                log.warning("the disk: %s", self.shortage or "there is room again")
                self._writer.listeners.announce_state()

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.closing.wait(), seconds)

    def look_at_space(self) -> None:
        """Find out whether grants are to be stopped for want of space."""
        try:
            before = self.shortage is not None
            self.shortage = shortage(self.home.data, before=before)
        except OSError as error:
            self.shortage = f"the disk's free space cannot be read ({error.strerror})"
        if self.shortage is None:
            keep_room(self.home)

    def write_head(self, index: str | None = None) -> None:
        """Write the chain's head, and at an orderly stop the text index's digest."""
        before = self.head_problem
        try:
            head = self._writer.tip.head
            write_witness(self.home.head_file, Witness(self._ledger_id, head, index))
            self.head_problem = None
        except OSError as error:
            self.head_problem = f"the ledger's head file cannot be written ({error})"
        if self.head_problem != before:
            self._loop.call_soon_threadsafe(self._writer.listeners.announce_state)


class Decisions:
    """Commits under way that are not of calls through the gateway."""

    def __init__(self) -> None:
        self._count, self._ended_at = 0, 0.0

    def begin(self, done: asyncio.Future[tuple[Event, ...]]) -> None:
        """Count one until it is *done*."""
        self._count += 1
        done.add_done_callback(self._end)

    def _end(self, _: asyncio.Future[tuple[Event, ...]]) -> None:
        self._count -= 1
        self.expect()

    def expect(self) -> None:
        """Let calls wait a moment: a job with precedence is about to come."""
        self._ended_at = asyncio.get_running_loop().time()

    def wait(self) -> bool:
        """Check whether any waits for the disk, or just did."""
        now = asyncio.get_running_loop().time()
        return self._count > 0 or now - self._ended_at < _ANSWERED
