"""The ledger as the broker sees it: commit, load, read, and its state of health."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from agentvault_tui.clock import Clock
from agentvault_tui.errors import LedgerDamagedError, LedgerUnwritableError
from agentvault_tui.home import Home
from agentvault_tui.ledger import activity, schema, state, uses
from agentvault_tui.ledger.batch import Job
from agentvault_tui.ledger.headfile import Witness, write_witness
from agentvault_tui.ledger.opening import (
    HomeLock,
    Opened,
    create_file,
    keep_room,
    make_room,
    open_alone,
    shortage,
)
from agentvault_tui.ledger.past import History, Past, PastActivity
from agentvault_tui.ledger.query import (
    read_applied,
    read_links,
    read_one,
    read_page,
    read_story,
    read_unconfirmed,
    read_unfinished,
)
from agentvault_tui.ledger.reading import Reading
from agentvault_tui.ledger.records import (
    Attempt,
    Change,
    EventQuery,
    Head,
    Link,
    Loaded,
    Page,
    Recovery,
    Story,
)
from agentvault_tui.ledger.schema import StoreConnection, storage_errors
from agentvault_tui.ledger.search import index_digest
from agentvault_tui.ledger.texts import read_texts
from agentvault_tui.ledger.uses import Kind, StoredUse
from agentvault_tui.ledger.uses_reader import UsesReader
from agentvault_tui.ledger.verify_state import StateDivergence, diverged
from agentvault_tui.ledger.writer import Writer
from agentvault_tui.model import (
    CALL_TYPES,
    OUTCOME_TYPES,
    AgentId,
    Draft,
    Event,
    StepUp,
    StepUpId,
)
from agentvault_tui.settings import Settings
from agentvault_tui.store_url import require_library

if TYPE_CHECKING:
    from agentvault_tui.ledger.shared_log import SharedLog
    from agentvault_tui.ledger.team_writer import TeamWriter

log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")
_Work = Coroutine[object, object, None]
Written = Callable[[tuple[Event, ...], Sequence[Change]], None]
Followed = Callable[[tuple[Event, ...], Sequence[Change]], _Work]
_SPACE_LOOK: Final = 0.5
"""Seconds between two looks at the free space."""
_ANSWERED: Final = 0.001
"""Seconds after a commit in which its caller answers."""
_PULSE: Final = 0.2
"""Seconds the head file may be behind the chain while events flow."""


class Ledger:
    """State and events of one home, and the only way to write them.

    Attributes:
        on_state: called whenever `writable` or `problem` changed.
        on_recovered: awaited, in a task of its own, each time writing works again;
            it may commit.
        on_written: called with every durable commit and its changes, in the order of
            the chain and before the caller of `commit` goes on.
        on_event: each is called with every durable event, when `head` reaches it.
        on_followed: awaited with the events and changes of other brokers, in the order
            of the chain: this home's copy has them already, and nothing later is
            written or followed before it returns. Of a thing that changed several
            times since the last call only the last change is among them. It must
            not commit and wait for that; it may start a task that does.
    """

    def __init__(
        self, home: Home, clock: Clock, lock: HomeLock, opened: Opened
    ) -> None:
        """Use `open` instead."""
        self.on_state: Callable[[], None] | None = None
        self.on_recovered: Callable[[Recovery], _Work] | None = None
        self.on_written: Written | None = None
        self.on_followed: Followed | None = None
        self.on_event: list[Callable[[Event], None]] = []
        self.recounted = opened.recounted
        self.ledger_id = opened.ledger_id
        self._home = home
        self._clock = clock
        self._lock = lock
        self._moved = asyncio.Event()
        self._closing = asyncio.Event()
        self._head_problem: str | None = None
        self._shortage: str | None = None
        self.fault: str | None = None
        """The fault that a verification found, if there is one."""
        self.unverified: str | None = None
        """Why no verification had a result for too long, if so."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._decisions = 0
        """Commits under way that are not of calls through the gateway."""
        self._decided_at = 0.0
        """When the last one of these ended, in loop time."""
        self._loop = asyncio.get_running_loop()
        self._writer: Writer
        self._team: TeamWriter | None = None
        self._reading: Reading
        self.uses: UsesReader
        self._history: tuple[StoreConnection, History] | None = None
        self._history_lock = asyncio.Lock()

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
        lock = HomeLock(home.lock_file)
        try:
            return await cls._open_locked(
                home, clock, lock, settings or Settings(), again=again
            )
        except BaseException:
            lock.release()
            raise

    @classmethod
    async def _open_locked(
        cls,
        home: Home,
        clock: Clock,
        lock: HomeLock,
        settings: Settings,
        *,
        again: bool,
    ) -> Ledger:
        with storage_errors(home.database):
            db = await StoreConnection.open(lambda: schema.open_writer(home.database))
        # What was opened is closed again when the rest fails: each has a thread.
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(db.close)
            if settings.store.url:
                require_library()
                from agentvault_tui.ledger.team import open_team  # noqa: PLC0415 - it imports psycopg, which few need

                opened, team = await open_team(db, home, settings, clock, again=again)
                writer: Writer = team
                undo.push_async_callback(team.shared.close)
            else:
                team = None
                opened = await db.run(open_alone, home, clock, again=again)
                writer = Writer(db, home.database, opened.ledger_id, opened.tip)
                writer.numbers = itertools.count(opened.last_n + 1)
            self = cls(home, clock, lock, opened)
            self._writer, self._team = writer, team
            self._write_head()
            self._shortage = await asyncio.to_thread(_shortage, home, before=False)
            self._reading = await Reading.open(home, opened)
            undo.push_async_callback(self._reading.close)
            with storage_errors(home.database):
                self.uses = UsesReader(home.database)
            undo.callback(self.uses.close)
            undo.push_async_callback(self._end_tasks)
            self._start()
            undo.pop_all()
        return self

    def _start(self) -> None:
        self._writer.on_commit = self._moved.set
        self._writer.on_problem = self._announce_state
        self._writer.on_written = self._written
        self._writer.on_recovery = self._recovered
        if self._team is not None:
            self._team.on_followed = self._follow
        self._spawn(self._writer.run(self._clock), "writer")
        self._spawn(self._keep_head_file(), "pulse")
        self._spawn(self._watch_space(), "space")
        self._reading.start(self._spawn, self._to_index)

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
                yet be found to have been, see `on_recovered`.
            ValueError: an outcome on, or missing from, the wrong type of event.
        """
        for draft in drafts:
            if (draft.outcome is None) == (draft.type in OUTCOME_TYPES):
                raise ValueError(f"outcome {draft.outcome} on {draft.type}")
        if not urgent:
            self.check_writable()
        job = Job.of(drafts, changes, self._writer.numbers, self._writer.broker)
        job.done, job.lazy, job.exact = self._loop.create_future(), lazy, exact
        job.of_call = bool(drafts) and drafts[-1].type in CALL_TYPES
        self._writer.submit(job, urgent=urgent)
        if not job.of_call:
            self._decisions += 1
            job.done.add_done_callback(self._decided)
        return job.done

    async def confirm(self) -> None:
        """Know all that any broker of the team wrote before this was called.

        For reads that grant: introspection, redeeming, admission of a call. One look
        at the store, if there is one, serves all who ask at once.

        Raises:
            LedgerUnwritableError: the store did not answer in time.
        """
        if self._team is not None:
            await self._team.confirm()

    @property
    def store_problem(self) -> str | None:
        """Why the team's store cannot be used now, if so: reads may then be stale."""
        return None if self._team is None else self._team.problem

    @property
    def shared(self) -> SharedLog | None:
        """The team's log, where brokers say that they live; None without a store."""
        return None if self._team is None else self._team.shared

    def _decided(self, _: asyncio.Future[tuple[Event, ...]]) -> None:
        self._decisions -= 1
        self._decided_at = self._loop.time()

    def expect(self) -> None:
        """Let calls wait a moment: a job with precedence is about to come."""
        self._decided_at = self._loop.time()

    def decisions_wait(self) -> bool:
        """Check whether other jobs than calls wait for the disk, or just did."""
        return self._decisions > 0 or self._loop.time() - self._decided_at < _ANSWERED

    @property
    def head(self) -> Head:
        """The last durable link."""
        return self._writer.tip.head

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
        withheld = self._shortage or self.fault or self.unverified or self._writer.fault
        return withheld is None and self.takes_cuts

    @property
    def takes_cuts(self) -> bool:
        """Whether urgent commits are taken now."""
        return self._writer.problem is None and not self._closed

    @property
    def problem(self) -> str | None:
        """The fault: the reason when not writable, or else a warning."""
        withheld = self.fault or self.unverified or self._writer.fault or self._shortage
        return self._writer.problem or withheld or self._head_problem

    def distrust(self, fault: str) -> None:
        """Take no commit from now on that is not urgent: nothing is to be granted."""
        self.fault = fault
        self._announce_state()

    def set_unverified(self, why: str | None) -> None:
        """Take no commit that is not urgent until this is called with None."""
        self.unverified = why
        self._announce_state()

    @property
    def index_lag(self) -> int:
        """How many events the text index is behind; searches are exact all the same."""
        return self._writer.tip.seq - self._reading.indexed

    async def load(self) -> Loaded:
        """Read all state, without expired, dropped and voided tokens."""
        return await self._read(state.load, self._clock)

    async def meta(self, key: str) -> str | None:
        """Return the small value under *key*, if there is one."""
        return await self._read(state.read_meta, key)

    async def texts(self, version: str) -> dict[str, str]:
        """Return the policy texts of a version; see `texts.read_texts`."""
        return await self._read(read_texts, version)

    async def diverged(self, loaded: Loaded) -> StateDivergence:
        """Return the rows of *loaded* that contradict the events."""
        divergence = await self._read(diverged, loaded, self._clock)
        return replace(divergence, limits=self.recounted)

    async def events(self, query: EventQuery) -> Page:
        """Read one page of events; ValueError: the limit is not 1 to 1000."""
        if not 1 <= query.limit <= 1000:
            raise ValueError(f"limit {query.limit} is not 1 to 1000")
        if query.q is None:
            return await self._read(read_page, query, self._clock)
        await self._reading.renew()
        try:
            return await self._read(read_page, query, self._clock)
        except LedgerDamagedError:  # of both files it may be the index
            await self._reading.renew(damaged=True)
            return await self._read(read_page, query, self._clock)

    async def activity(self, agent_id: AgentId, since: datetime) -> activity.Activity:
        """Read an agent's actions: by scope, by reason, by quarter since a moment."""
        return await self._read(activity.read, agent_id, since)

    async def event(self, seq: int) -> Event | None:
        """Read one event."""
        if not 0 < seq <= self.head.seq:
            return None
        return await self._read(read_one, seq)

    async def windows(self, kinds: Sequence[Kind], seq: int) -> list[list[StoredUse]]:
        """Read the windows of limits; see `uses.windows`."""
        return await self._read(uses.windows, kinds, seq)

    async def applied(self) -> frozenset[str]:
        """Read the things that files put there first; see `query.read_applied`."""
        return await self._read(read_applied)

    async def unconfirmed(self) -> dict[str, str]:
        """Read who registered agents without a grant; see `query.read_unconfirmed`."""
        return await self._read(read_unconfirmed)

    async def unfinished(self, since: int) -> tuple[Event, ...]:
        """Read the attempts of calls after event *since* that have no result."""
        return await self._read(read_unfinished, since)

    async def links(self, seqs: Sequence[int]) -> tuple[Link, ...]:
        """Read links of the chain by their numbers; missing ones are left out."""
        there = [seq for seq in seqs if 0 < seq <= self.head.seq]
        return await self._read(read_links, self.ledger_id, there)

    async def story(self, event: Event) -> Story:
        """Read the events that share a decision, a step-up or a token with *event*."""
        return await self._read(read_story, event)

    async def stepup(self, stepup_id: StepUpId) -> StepUp | None:
        """Read one step-up, however old."""
        return await self._read(state.read_stepup, stepup_id)

    async def stepups_before(self, stepup: StepUp, limit: int) -> tuple[StepUp, ...]:
        """Read the latest decisions about the same agent and action, however old."""
        return await self._read(state.stepups_before, stepup, limit)

    async def past(
        self, *, seq: int | None = None, moment: datetime | None = None
    ) -> Past:
        """Rebuild from events the state after event *seq*, or at *moment*.

        It has a connection of its own: pages of events do not wait for it.

        Raises:
            NotFoundError: nothing was recorded by then, or no event has that number.
            UsageError: the moment is still to come.
        """
        return await self._look_back(History.at, seq, moment)

    async def past_activity(
        self,
        agent_id: AgentId,
        since: Callable[[datetime], datetime],
        *,
        seq: int | None = None,
        moment: datetime | None = None,
    ) -> PastActivity:
        """Count an agent's actions by then, its quarters from *since* the moment.

        Raises:
            NotFoundError: as `past` does, or there was no such agent.
            UsageError: the moment is still to come.
        """
        more = {"agent_id": agent_id, "since": since}
        return await self._look_back(History.activity, seq, moment, **more)

    async def _look_back(
        self,
        look: Callable[..., _T],
        seq: int | None,
        moment: datetime | None,
        **more: object,
    ) -> _T:
        if self._closed:
            raise LedgerUnwritableError("the ledger is closed")
        with storage_errors(self._home.database):
            async with self._history_lock:
                if self._history is None:
                    path = self._home.database
                    db = await StoreConnection.open(lambda: schema.open_reader(path))
                    self._history = db, History()
                db, history = self._history
                now, act = self._clock.now(), partial(look, history)
                return await db.run(act, now=now, seq=seq, moment=moment, **more)

    async def close(self) -> None:
        """Write the waiting jobs, the head file too, and release the home."""
        if self._closed:
            return
        self._closed = True
        self._moved.set()
        self._closing.set()
        whole = await self._reading.close()
        self.uses.close()
        if self._history is not None:
            await self._history[0].close()
        self._writer.close()
        for task in tuple(self._tasks):
            await asyncio.gather(task, return_exceptions=True)
        self._writer.log.close()
        # A batch whose commit failed may yet be found behind the head this one knows.
        # Nor is an index vouched for that another process changed.
        certain = self._writer.problem is None and whole
        index = await asyncio.to_thread(index_digest, self._home) if certain else None
        self._write_head(index)
        self._lock.release()

    async def _read(
        self,
        function: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        if self._closed:
            raise LedgerUnwritableError("the ledger is closed")
        return await self._reading.run(function, *args, **kwargs)

    async def _keep_head_file(self) -> None:
        """Bring the head file up to date, and ask for chores, while events flow."""
        while not self._closed:
            await self._moved.wait()
            self._moved.clear()
            if not self._closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _PULSE)
                await asyncio.to_thread(self._write_head)
                if not self._moved.is_set():
                    self._writer.request_maintenance()

    async def _watch_space(self) -> None:
        """Look twice a second for room on the disk, since other programs use it too."""
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _SPACE_LOOK)
            before = self._shortage is not None
            shortage = await asyncio.to_thread(_look, self._home, before=before)
            self._shortage = shortage
            if (shortage is not None) is not before:
                log.warning("the disk: %s", shortage or "there is room again")
                self._announce_state()

    def _to_index(self, indexed: int) -> int:
        """Return up to where to index: the index takes none of the reserved space."""
        return indexed if self._shortage is not None else self._writer.tip.seq

    def _write_head(self, index: str | None = None) -> None:
        before = self._head_problem
        try:
            write_witness(
                self._home.head_file,
                Witness(self.ledger_id, self._writer.tip.head, index),
            )
            self._head_problem = None
        except OSError as error:
            self._head_problem = f"the ledger's head file cannot be written ({error})"
        if self._head_problem != before:
            self._loop.call_soon_threadsafe(self._announce_state)

    def _announce_state(self) -> None:
        if self.on_state is not None:
            self.on_state()

    def _written(self, events: tuple[Event, ...], attempt: Attempt) -> None:
        try:
            for event, listen in product(events, self.on_event):
                listen(event)
            if self.on_written is not None:
                self.on_written(events, attempt.changes)
        except Exception:
            # What is durable stays so, whatever a listener makes of it.
            log.exception("a listener to the ledger failed")

    async def _follow(
        self, events: tuple[Event, ...], changes: Sequence[Change]
    ) -> None:
        if self.on_followed is not None:
            await self.on_followed(events, changes)

    def _recovered(self, recovery: Recovery) -> None:
        if self.on_recovered is not None:
            self._spawn(self.on_recovered(recovery), "recovered")

    async def _end_tasks(self) -> None:
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: _Work, name: str) -> None:
        task = self._loop.create_task(work, name=f"ledger {name}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())


def _look(home: Home, *, before: bool) -> str | None:
    if (shortage := _shortage(home, before=before)) is None:
        keep_room(home)
    return shortage


def _shortage(home: Home, *, before: bool) -> str | None:
    try:
        return shortage(home.data, before=before)
    except OSError as error:
        return f"the disk's free space cannot be read ({error.strerror})"
