"""The writer of a broker that shares its log: places commits behind others' in it.

A transaction is placed if nothing that others wrote since this broker's memory was last
brought up to date is among its keys (see `keys`). Their writes are followed before they
are published, and before anything else is written; waiting commits that they overtook
fail. While the store is away all commits fail at once. A transaction that had no answer
is looked for until its outcome is known.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from agentvault_tui.clock import Clock
from agentvault_tui.errors import (
    AgentVaultError,
    LedgerBusyError,
    LedgerDamagedError,
    LedgerError,
    LedgerUnwritableError,
    StoreAwayError,
)
from agentvault_tui.ledger import schema, shared_log
from agentvault_tui.ledger.batch import Batch, Job, Tip, number_of, older, place, write
from agentvault_tui.ledger.home_copy import (
    followed_changes,
    followed_events,
    followed_statements,
    place_statement,
    read_place,
)
from agentvault_tui.ledger.keys import written_keys
from agentvault_tui.ledger.records import Change, Recovery
from agentvault_tui.ledger.recovery import Doubt
from agentvault_tui.ledger.schema import StoreConnection
from agentvault_tui.ledger.shared_log import Appended, Followed, SharedLog, StoreHead
from agentvault_tui.ledger.state import Statement
from agentvault_tui.ledger.urgent_writer import (
    DOUBT_SECONDS,
    FIRST_RETRY,
    LAST_RETRY,
    TURN,
    WAIT_SECONDS,
    Placed,
    UrgentWriter,
    overtaken,
)
from agentvault_tui.model import Event
from agentvault_tui.store_connection import CALL_SECONDS

log = logging.getLogger("agentvault.store")


class TeamWriter(UrgentWriter):
    """Owns this broker's place in the shared log, and the copy of it in the home."""

    def __init__(
        self,
        db: StoreConnection,
        path: Path,
        ledger_id: str,
        shared: SharedLog,
        head: StoreHead,
    ) -> None:
        """Write to *shared* from *head* on, and to the copy that *db* has open."""
        super().__init__(db, path, ledger_id, shared, head)
        self.on_followed: Callable[
            [tuple[Event, ...], Sequence[Change]], Coroutine[object, object, None]
        ] = _ignore
        self.numbers = itertools.count(head.n + 1)
        self._examine = True
        """Whether the store may be another one than the last that answered."""
        self._missed: tuple[StoreHead, Sequence[tuple[Any, ...]]] | None = None
        """Others' writes that the last append reported, and after which head."""
        self._beside: set[str] = set()
        """Keys of writes followed while the last append was under way."""
        self._untaken: str | None = None
        """Why memory differs from the store, if so."""
        self._partly = False
        """Whether rows before the head were left out, as they had changed since."""

    async def run(self, clock: Clock) -> None:
        """Write until closed, and listen to the store meanwhile."""
        self._clock = clock
        tasks = [
            asyncio.create_task(self._listen(), name="store listener"),
            asyncio.create_task(self._place_cuts(), name="urgent commits"),
        ]
        try:
            await super().run(clock)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.shared.close()

    async def _listen(self) -> None:
        problem = ""
        while True:
            try:
                await self.shared.listen(self._tell)
            except AgentVaultError as error:
                if error.what != problem:  # twice a second would fill the log
                    problem = error.what
                    log.warning("cannot listen to the store: %s", problem)
            self._examine = True
            self._wake_writer()
            await asyncio.sleep(LAST_RETRY)

    # The writer's own task

    async def open(self, seconds: float) -> None:
        """Bring the copy up to the store's head, before anything is loaded from it.

        Args:
            seconds: how long each part of it may take; a first copy takes some.

        Raises:
            LedgerDamagedError: the store lacks a part of the copy.
            LedgerUnwritableError: the store does not answer.
        """
        await self._follow(seconds)
        await self.shared.connect_urgent()

    async def start_without(self, error: AgentVaultError) -> None:
        """Begin with the copy: nothing is granted until the store answers."""
        if isinstance(error, LedgerDamagedError):
            await self._stop(error)
        else:
            self.problem = error.what

    async def _prepare(self, clock: Clock) -> None:
        """Follow others' writes, unless the next append reports them."""
        if self._closing:
            await self._end_cuts()
        if self.problem is not None and not self._stopped:
            await self._outlast(LedgerUnwritableError(self.problem), clock)
        while self.problem is None and (
            self._examine
            or self._missed
            or self._placed
            or (self._notified > self._revision and (self._asking or not self._eager))
        ):
            try:
                await self._follow()
            except LedgerDamagedError as lost:
                await self._stop(lost)
            except AgentVaultError as error:
                await self._outlast(error, clock)
            if any(self._lanes):
                return  # and take a turn, rather than run after a head that moves on

    async def _write(self, jobs: list[Job], clock: Clock) -> None:
        self._writing = True
        done = not (jobs := self._in_time(jobs)) or await self._send(jobs, clock)
        self._writing = False
        if done or not any(self._lanes):
            self._others.set()

    async def _send(self, jobs: list[Job], clock: Clock) -> bool:
        """Send *jobs* to the store; return whether they are settled."""
        batch = str(uuid.uuid4())
        try:
            sent = asyncio.ensure_future(self._append(jobs, batch, head := self.head))
            await self._follow_beside(sent, batch)
            appended = await sent
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            doubt = None
            if isinstance(error, LedgerError) and not isinstance(error, StoreAwayError):
                doubt = Doubt(jobs, batch, head, error.what)
            else:
                self._latch(error)
                self._fail(jobs)
            await self._outlast(error, clock, doubt)
            return True
        try:
            await self._settle(jobs, batch, head, appended, clock)
        except Exception as error:  # noqa: BLE001 - what is before it was not read
            await self._outlast(error, clock, Doubt(jobs, batch, head, str(error)))
        return appended.outcome not in {"behind", "wait"}

    async def _append(
        self,
        jobs: Sequence[Job],
        batch: str,
        head: StoreHead,
        instead: str | None = None,
    ) -> Appended:
        first = min(filter(None, (job.first for job in jobs)), default=head.n + 1)
        if (by := head.n + 1 - first) > 0:
            # All alike: of two rows under one key the later commit's is to stay.
            for job in (*jobs, *itertools.chain(*self._lanes)):
                job.shift(by)
            self.numbers = itertools.count(next(self.numbers) + by)
        appended = await self.shared.append(
            head, jobs, batch, urgent=False, instead=instead
        )
        self._missed = (head, appended.missed) if appended.missed else None
        return appended

    async def _settle(
        self,
        jobs: Sequence[Job],
        batch: str,
        head: StoreHead,
        appended: Appended,
        clock: Clock,
    ) -> None:
        """Act on the answer of the store."""
        if appended.outcome == "placed":
            await self._accept(jobs, batch, head, appended, clock)
        elif appended.outcome == "behind":
            self._put_back(jobs)
            self._examine |= self._missed is None
        elif appended.outcome == "wait":
            self._put_back(jobs)
            await asyncio.sleep(TURN)
        else:
            for job in jobs:
                job.refuse(LedgerUnwritableError("the store's ledger is at fault"))

    async def _accept(
        self,
        jobs: Sequence[Job],
        batch: str,
        previous: StoreHead,
        appended: Appended,
        clock: Clock,
    ) -> Batch:
        """Follow the writes before a transaction of our own, and add that to the copy.

        Args:
            jobs: the placed jobs.
            batch: its name.
            previous: the head when it was sent.
            appended: where it is.
            clock: the broker's.
        """
        seq = appended.seq - sum(len(job.prepared) for job in jobs)
        end = StoreHead(Tip(seq, b"", None), appended.revision - 1, "", appended.n)
        while self.head.revision < end.revision:
            await self._follow(end=end)
        if appended.n != previous.n:
            for job in jobs:
                job.shift(appended.n - previous.n)
        before = self.tip
        made = place(
            before, jobs, appended.time or clock.now(), new_era=before.time is None
        )
        if made.after.hash != appended.hash:
            raise LedgerDamagedError(
                f"the store chained {appended.seq} in another way than this broker",
                "stop the brokers and keep the store as evidence",
            )
        rows = [pair for job in jobs for pair in job.rows]
        last = max((number_of(*pair) for pair in rows), default=appended.n)
        head = StoreHead(made.after, appended.revision, batch, last, self.head.fault)
        place_row = place_statement(head, self.shared.systems)
        await self._write_copy([*made.statements, place_row], head)
        self.head = self._whole = head
        if self._partly:  # what was left out is not known before the rest is followed
            self._tell(head.revision + 1)
        else:
            self._revision = head.revision
        if self._was_urgent:
            keys = set[str]().union(*(job.writes for job in jobs))
            self._beside |= keys
            self._overtake(keys)
        await self._finish(made, clock)
        self._announce()
        return made

    async def _follow(
        self, seconds: float = CALL_SECONDS, end: StoreHead | None = None
    ) -> None:
        """Bring copy and memory to the store's head, and drop the overtaken jobs.

        Args:
            seconds: how long each reading may take.
            end: an earlier end: the place before a transaction of our own.
        """
        complete = False
        while not complete:
            if own := self._own(end):
                await self._accept_own(own)
                continue
            missed, self._missed = self._missed, None
            notified = missed is not None and missed[0] is self.head
            if (
                missed
                and notified
                and (missed[1][0][2] == end.revision if end else not self._examine)
            ):
                followed = shared_log.followed(missed[1], self.head)
            else:
                followed = await self.shared.follow(self.head, seconds, end)
            await self._answered.wait()
            if self._own(end):  # it is among them, and not another's
                continue
            complete = followed.complete
            self._partly |= end is not None and followed.later
            await self._take_over(followed)
        self._examine &= end is not None

    async def _accept_own(self, own: Placed) -> None:
        """Take an urgent transaction to the copy."""
        before, self._was_urgent = self._was_urgent, True
        try:
            await self._accept(own.jobs, own.batch, own.head, own.stored, self._clock)
        finally:
            self._was_urgent = before
        self._placed.popleft()
        if own.refused:
            attempts = tuple(job.attempt for job in own.jobs)
            self.on_recovery(Recovery(committed=True, attempts=attempts, event=None))

    async def _follow_beside(self, sent: asyncio.Future[Appended], batch: str) -> None:
        """Follow for those who wait in `confirm`, while an append waits its turn."""
        loop = asyncio.get_running_loop()
        try:
            while not sent.done():
                self._idle = loop.create_future()
                if not self._asking or self._notified <= self._revision:
                    both: list[asyncio.Future[Any]] = [sent, self._idle]
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    continue
                followed = await self.shared.follow_beside(self.head, batch)
                await self._answered.wait()
                if followed is None or not followed.complete or sent.done():
                    return  # its answer tells
                if self._placed:
                    return  # that is accepted after it, or before
                await self._take_over(followed)
        except Exception:
            log.exception("others cannot be followed")
            self._examine = True
        except BaseException:
            sent.cancel()
            raise

    async def _take_over(self, followed: Followed) -> None:
        async with self.shared.taking:
            await self._bring_up(followed)

    async def _bring_up(self, followed: Followed) -> None:
        """Add others' writes to the copy, and publish them."""
        events, head = followed_events(followed), followed.head
        if (head.revision, head.tip.seq) != (self.head.revision, self.tip.seq):
            made = followed_statements(self.head, followed, events, self.shared.systems)
            await self._write_copy(made, head)
        self.head, self.tip = head, head.tip
        self.on_commit()
        keys = set[str]()
        if self.on_followed is _ignore:
            self._counts = None
            self._uncounted += len(followed.events)
        else:
            changes = followed_changes(followed)
            self._count(events)
            if events or changes:
                try:
                    await self.on_followed(events, changes)
                except Exception as error:
                    # Memory may now allow what another broker has cut off.
                    log.exception("what another broker wrote was not taken over")
                    self._untaken = (
                        "what another broker wrote could not be taken over"
                        f" ({type(error).__name__}): restart this broker"
                    )
            keys = written_keys(events, changes, followed.rows)
        if head.batch:
            # Not before memory has it: what is urgent is decided from that.
            self._whole = head
        self._beside |= keys
        self._overtake(keys)
        if not followed.complete:
            return
        if not head.batch:
            return  # up to a transaction of our own, which tells what is known
        self._partly = False
        moved = head.revision > self._revision
        self._revision = head.revision
        # What was told of meanwhile is followed next, unless there is nothing.
        self._notified = (
            max(self._notified, self._revision) if moved else self._revision
        )
        fault = self._untaken or head.fault
        if self.fault != fault:
            self.fault = fault
            self.on_problem()
        self._announce()

    # Waiting commits

    def _overtake(self, keys: set[str]) -> None:
        """Refuse those that depend on keys written since they were made."""
        for lane in (self._queue, self._calls):
            waiting = list(lane)
            lane.clear()
            for job in waiting:
                if keys.isdisjoint(job.depends):
                    lane.append(job)
                else:
                    job.refuse(overtaken())
        self._count_eager()
        cuts = list(self._cuts)
        self._cuts.clear()
        for job in cuts:
            if job.exact and not keys.isdisjoint(job.depends):
                job.refuse(overtaken())
            else:
                self._cuts.append(job)

    def _take(self) -> list[Job]:
        """Select the next batch, skipping jobs behind a conflicting queued job.

        The later placed job gets the larger number, and stays in effect.
        """
        jobs = super()._take()
        self._beside.clear()
        if older(jobs, (*self._sent, *self._cuts)):
            self._put_back(jobs)
            return []
        for lane, of_call in ((self._queue, False), (self._calls, True)):
            beside = [job for job in jobs if job.of_call is not of_call]
            for job in older(beside, lane):
                lane.remove(job)
                jobs.append(job)
                self._eager -= not job.lazy
        return jobs

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """Return *jobs* to the front of their lines, unless they were overtaken."""
        for lane, of_call in ((self._queue, False), (self._calls, True)):
            lane.extendleft(job for job in reversed(jobs) if job.of_call is of_call)
        self._overtake(self._beside)

    def _in_time(self, jobs: list[Job]) -> list[Job]:
        """Refuse grants that waited too long; reports wait on."""
        least = asyncio.get_running_loop().time() - WAIT_SECONDS
        late = [job for job in jobs if job.made < least and "policy" in job.depends]
        for job in late:
            job.refuse(LedgerBusyError("other brokers write", "try again shortly"))
        return [job for job in jobs if job not in late] if late else jobs

    def _count_eager(self) -> None:
        self._eager = sum(not job.lazy for lane in self._lanes for job in lane)

    # Failures

    async def _outlast(
        self, error: Exception, clock: Clock, doubt: Doubt | None = None
    ) -> None:
        """Refuse commits until the store answers, and all that was in doubt is known.

        Args:
            error: why it does not.
            clock: the machine's.
            doubt: a transaction that was sent and not answered: its callers wait.
        """
        self._latch(error)
        self._fail(self._waiting())
        loop = asyncio.get_running_loop()
        until, delay = loop.time() + DOUBT_SECONDS, FIRST_RETRY
        while not self._closing:
            if doubt is not None and loop.time() >= until:
                doubt.give_up()
            try:
                recovery = await self._regain(doubt, clock)
            except LedgerDamagedError as lost:
                await self._stop(lost)
                break
            except (AgentVaultError, sqlite3.Error, OSError) as again:
                self._latch(again)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)
                continue
            if recovery is not None:
                self._release(recovery)
                return
        if doubt is not None:
            doubt.give_up()

    async def _regain(self, doubt: Doubt | None, clock: Clock) -> Recovery | None:
        """Find out where the log ends; None: it is another broker's turn first."""
        if doubt is None:
            await self._follow()
            return Recovery(committed=False, attempts=(), event=None)
        if not doubt.refused:
            # The same transaction once more: it is placed once, whichever arrives.
            appended = await self._append(doubt.jobs, doubt.batch, doubt.head)
            if appended.outcome == "wait":  # the first may still be on its way
                await asyncio.sleep(TURN)
                return None
            # Its jobs may be in line again: nothing that fails may follow here.
            await self._settle(doubt.jobs, doubt.batch, doubt.head, appended, clock)
            return Recovery(committed=False, attempts=(), event=None)
        if doubt.record is None:
            there = await self.shared.outcome(doubt.batch)
            if there is not None and doubt.stored is None:
                await self._accept(doubt.jobs, doubt.batch, doubt.head, there, clock)
                doubt.stored = there
            await self._follow()
            record = doubt.make_record(self.numbers)
            doubt.record = record, str(uuid.uuid4()), self.head
        record, name, head = doubt.record
        placed = await self._append([record], name, head, doubt.batch)
        if placed.outcome != "placed":
            doubt.record = None
            return None
        made = await self._accept([record], name, head, placed, clock)
        written = made.events[0][0]
        return Recovery(doubt.stored is not None, doubt.attempts, written)

    def _latch(self, error: Exception) -> None:
        what = error.what if isinstance(error, AgentVaultError) else str(error)
        if self.problem != what:
            self.problem = what
            self._counts = None
            self.on_problem()
            self._announce()
            log.warning("nothing is granted: %s", what)

    def _release(self, recovery: Recovery) -> None:
        self.problem = None
        self.on_problem()
        self.on_commit()
        self.on_recovery(recovery)

    async def _stop(self, lost: LedgerDamagedError) -> None:
        """Grant nothing any more, and notify the other brokers, if possible."""
        self._stopped, self.fault = True, lost.what
        self._latch(lost)
        self._fail(
            [*self._waiting(), *(job for one in self._placed for job in one.jobs)]
        )
        try:
            await self.shared.set_fault(lost.what)
        except AgentVaultError as error:
            log.warning("other brokers cannot be told: %s", error.what)

    async def _write_copy(self, statements: list[Statement], head: StoreHead) -> None:
        """Write the store's rows to the copy; until that works nothing else does."""
        latched, delay = self.problem is not None, FIRST_RETRY
        while True:
            try:
                await self._connection().run(write, statements)
                break
            except (sqlite3.Error, OSError) as error:
                if self._closing:
                    raise
                self._latch(
                    LedgerUnwritableError(f"the home cannot be written ({error})")
                )
                self._fail(self._waiting())
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY)
            if await self._reopened(head):
                break
        if not latched and self.problem is not None:
            self._release(Recovery(committed=False, attempts=(), event=None))

    async def _reopened(self, head: StoreHead) -> bool:
        """Open the copy again; return whether it goes up to *head* already."""
        try:
            await self._drop_connection()
            self._db = await StoreConnection.open(
                lambda: schema.open_writer(self._path)
            )
            await self._db.run(schema.reopen, self._path)
            there, _ = await self._db.run(read_place, self._ledger_id)
        except (sqlite3.Error, OSError, ValueError, LedgerError):
            return False
        return (there.tip.seq, there.revision) == (head.tip.seq, head.revision)

    async def _recover(self, _: Batch, error: Exception, __: Clock) -> None:
        """Wait until the copy can be written again: a chore could not."""
        log.warning("the home's copy: %s", error)
        await self._write_copy([], self.head)

    async def _maintain(self, clock: Clock, *, idle: bool) -> None:
        """Prune, count and checkpoint the copy, and prune the store as often."""
        batches = self._batches
        await super()._maintain(clock, idle=idle)
        if batches and not self._batches and self.problem is None:
            try:
                await self.shared.prune()
            except AgentVaultError:
                self._examine = True


async def _ignore(_: tuple[Event, ...], __: Sequence[Change]) -> None:
    """Stand in until someone listens."""
