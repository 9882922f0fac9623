"""A ledger that brokers share: places commits behind others' in the team's store.

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
from collections.abc import Sequence
from typing import Any, Final

from agentvault_tui.errors import (
    AgentVaultError,
    LedgerBusyError,
    LedgerDamagedError,
    LedgerError,
    LedgerUnwritableError,
    StoreAwayError,
)
from agentvault_tui.ledger import shared_log
from agentvault_tui.ledger.batch import Batch, Job, Tip, number_of, older, place
from agentvault_tui.ledger.home_copy import (
    followed_changes,
    followed_events,
    followed_statements,
    place_statement,
    read_place,
)
from agentvault_tui.ledger.keys import written_keys
from agentvault_tui.ledger.records import Recovery
from agentvault_tui.ledger.recovery import Doubt
from agentvault_tui.ledger.shared_log import (
    Appended,
    Followed,
    SharedLog,
    StoreHead,
    Transaction,
)
from agentvault_tui.ledger.sqlite_store import LedgerFile
from agentvault_tui.ledger.state import Statement
from agentvault_tui.ledger.urgent_line import (
    DOUBT_SECONDS,
    FIRST_RETRY,
    LAST_RETRY,
    WAIT_SECONDS,
    Placed,
    Position,
    UrgentLine,
)
from agentvault_tui.ledger.writer import Writer
from agentvault_tui.store_connection import CALL_SECONDS

TURN: Final = 0.002
"""Seconds until asking again while it is another's turn to write."""
_NOTHING: Final = Recovery(committed=False, attempts=(), event=None)
log = logging.getLogger("agentvault.store")


class PostgresStore:
    """Writes batches to the shared log, and the copy of it in the home."""

    def __init__(
        self, writer: Writer, file: LedgerFile, shared: SharedLog, head: StoreHead
    ) -> None:
        """Write to *shared* from *head* on, and to the copy in *file*."""
        self.shared, self.writer, self.file = shared, writer, file
        self.position = Position(writer, shared, head)
        self._urgent = UrgentLine(writer, shared, self.position)
        self._loaded = False
        """Whether memory may have been loaded, and has to follow too."""
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

    def submit(self, job: Job) -> None:
        """Put *job* in line; see `Writer.submit`."""
        (self._urgent.enqueue if job.urgent else self.writer.submit)(job)

    async def run(self) -> None:
        """Write until the writer is closed, and listen to the store meanwhile."""
        self._loaded = True
        tasks = [
            asyncio.create_task(self._listen(), name="store listener"),
            asyncio.create_task(self._urgent.place_all(), name="urgent commits"),
        ]
        try:
            await self.writer.run(self)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.shared.close()

    async def _listen(self) -> None:
        problem = ""
        while True:
            try:
                await self.shared.listen(self.position.notify)
            except AgentVaultError as error:
                if error.what != problem:  # twice a second would fill the log
                    problem = error.what
                    log.warning("cannot listen to the store: %s", problem)
            self._examine = True
            self.writer.wake()
            await asyncio.sleep(LAST_RETRY)

    # The writer's own task

    async def open(self, seconds: float) -> None:
        """Bring the copy up to the store's head before anything is loaded from it."""
        await self._follow(seconds)
        await self.shared.connect_urgent()

    async def start_without(self, error: AgentVaultError) -> None:
        """Begin with the copy: nothing is granted until the store answers."""
        if isinstance(error, LedgerDamagedError):
            await self._stop(error)
        else:
            self.writer.problem = error.what

    async def _prepare(self) -> None:
        """Follow others' writes, unless the next append reports them."""
        writer, position = self.writer, self.position
        if writer.closing:
            await self._urgent.end()
        if writer.problem is not None and not position.stopped:
            await self._outlast(LedgerUnwritableError(writer.problem))
        while writer.problem is None and (
            self._examine
            or self._missed
            or self._urgent.placed
            or (
                position.notified > position.revision
                and (position.asking or not writer.lines.eager)
            )
        ):
            try:
                await self._follow()
            except LedgerDamagedError as lost:
                await self._stop(lost)
            except AgentVaultError as error:
                await self._outlast(error)
            if writer.lines:
                return  # and take a turn, rather than run after a head that moves on

    async def take(self) -> list[Job]:
        """Take the next batch, skipping jobs behind a conflicting job in another line.

        The later placed job gets the larger number, and stays in effect.
        """
        await self._prepare()
        lines = self.writer.lines
        jobs = lines.take(closing=self.writer.closing)
        self._beside.clear()
        if older(jobs, (*self._urgent.sent, *self._urgent.waiting)):
            self._put_back(jobs)
            return []
        lines.take_older(jobs)
        return jobs

    async def write(self, jobs: list[Job]) -> None:
        """Place the jobs that did not wait too long; reports wait on."""
        least = asyncio.get_running_loop().time() - WAIT_SECONDS
        late = [job for job in jobs if job.made < least and "policy" in job.depends]
        for job in late:
            job.refuse(LedgerBusyError("other brokers write", "try again shortly"))
            jobs.remove(job)
        self._urgent.others_sent = True
        done = not jobs or await self._send(jobs)
        self._urgent.others_sent = False
        if done or not self.writer.lines:
            self._urgent.others.set()

    async def _send(self, jobs: list[Job]) -> bool:
        """Send *jobs* to the store; return whether they are settled."""
        transaction = Transaction(self.position.head, jobs, str(uuid.uuid4()))
        try:
            sent = asyncio.ensure_future(self._append(transaction))
            await self._follow_beside(sent, transaction.batch)
            appended = await sent
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            doubt = None
            if isinstance(error, LedgerError) and not isinstance(error, StoreAwayError):
                doubt = Doubt(transaction, error.what)
            else:
                self.position.latch(error)
                self.writer.fail(jobs)
            await self._outlast(error, doubt)
            return True
        try:
            await self._settle(transaction, appended)
        except Exception as error:  # noqa: BLE001 - what is before it was not read
            await self._outlast(error, Doubt(transaction, str(error)))
        return appended.outcome not in {"behind", "wait"}

    async def _append(self, sent: Transaction, instead: str | None = None) -> Appended:
        head, writer = sent.head, self.writer
        first = min(filter(None, (job.first for job in sent.jobs)), default=head.n + 1)
        if (by := head.n + 1 - first) > 0:
            # All alike: of two rows under one key the later commit's is to stay.
            for job in (*sent.jobs, *writer.lines):
                job.shift(by)
            writer.numbers = itertools.count(next(writer.numbers) + by)
        appended = await self.shared.append(*sent, urgent=False, instead=instead)
        self._missed = (head, appended.missed) if appended.missed else None
        return appended

    async def _settle(self, sent: Transaction, appended: Appended) -> None:
        """Act on the answer of the store."""
        if appended.outcome == "placed":
            await self._accept(sent, appended)
        elif appended.outcome == "behind":
            self._put_back(sent.jobs)
            self._examine |= self._missed is None
        elif appended.outcome == "wait":
            self._put_back(sent.jobs)
            await asyncio.sleep(TURN)
        else:
            for job in sent.jobs:
                job.refuse(LedgerUnwritableError("the store's ledger is at fault"))

    async def _accept(self, sent: Transaction, appended: Appended) -> Batch:
        """Follow the writes before a transaction of ours, and add it to the copy."""
        jobs, position = sent.jobs, self.position
        seq = appended.seq - sum(len(job.prepared) for job in jobs)
        end = StoreHead(Tip(seq, b"", None), appended.revision - 1, "", appended.n)
        while position.head.revision < end.revision:
            await self._follow(end=end)
        if appended.n != sent.head.n:
            for job in jobs:
                job.shift(appended.n - sent.head.n)
        before = self.writer.tip
        now = appended.time or self.file.clock.now()
        made = place(before, jobs, now, new_era=before.time is None)
        if made.after.hash != appended.hash:
            raise LedgerDamagedError(
                f"the store chained {appended.seq} in another way than this broker",
                "stop the brokers and keep the store as evidence",
            )
        rows = [pair for job in jobs for pair in job.rows]
        last = max((number_of(*pair) for pair in rows), default=appended.n)
        fault = position.head.fault
        head = StoreHead(made.after, appended.revision, sent.batch, last, fault)
        place_row = place_statement(head, self.shared.systems)
        await self._write_copy([*made.statements, place_row], head)
        position.head = position.whole = head
        if self._partly:  # what was left out is not known before the rest is followed
            position.notify(head.revision + 1)
        else:
            position.revision = head.revision
        if jobs[0].urgent:
            self._overtake(set[str]().union(*(job.writes for job in jobs)))
        await self.writer.publish(made, self._urgent.placed)
        if self.file.add_batch(itertools.chain.from_iterable(made.events)):
            await self.maintain(idle=False)
        position.announce()
        return made

    async def _follow(
        self, seconds: float = CALL_SECONDS, end: StoreHead | None = None
    ) -> None:
        """Bring copy and memory to the store's head, or to *end*, before our own."""
        complete = False
        while not complete:
            if own := self._urgent.next_placed(end):
                await self._accept_own(own)
                continue
            missed, self._missed = self._missed, None
            head = self.position.head
            if (
                missed
                and missed[0] is head
                and (missed[1][0][2] == end.revision if end else not self._examine)
            ):
                followed = shared_log.followed(missed[1], head)
            else:
                followed = await self.shared.follow(head, seconds, end)
            await self._urgent.answered.wait()
            if self._urgent.next_placed(end):  # it is among them, and not another's
                continue
            complete = followed.complete
            self._partly |= end is not None and followed.later
            async with self.shared.taking:
                await self._take_over(followed)
        self._examine &= end is not None

    async def _accept_own(self, own: Placed) -> None:
        """Take an urgent transaction to the copy."""
        await self._accept(own.sent, own.stored)
        self._urgent.placed.popleft()
        if own.refused:
            attempts = tuple(job.attempt for job in own.sent.jobs)
            recovery = Recovery(committed=True, attempts=attempts, event=None)
            self.writer.listeners.announce_recovery(recovery)

    async def _follow_beside(self, sent: asyncio.Future[Appended], batch: str) -> None:
        """Follow for those who wait in `confirm`, while an append waits its turn."""
        position = self.position
        try:
            while not sent.done():
                idle = self.writer.idle()
                if not position.asking or position.notified <= position.revision:
                    both: list[asyncio.Future[Any]] = [sent, idle]
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    continue
                followed = await self.shared.follow_beside(position.head, batch)
                await self._urgent.answered.wait()
                if followed is None or not followed.complete or sent.done():
                    return  # its answer tells
                if self._urgent.placed:
                    return  # that is accepted after it, or before
                async with self.shared.taking:
                    await self._take_over(followed)
        except Exception:
            log.exception("others cannot be followed")
            self._examine = True
        except BaseException:
            sent.cancel()
            raise

    async def _take_over(self, followed: Followed) -> None:
        """Add others' writes to the copy, and publish them."""
        writer, position = self.writer, self.position
        events, head = followed_events(followed), followed.head
        if (head.revision, head.tip.seq) != (position.head.revision, writer.tip.seq):
            before = position.head
            made = followed_statements(before, followed, events, self.shared.systems)
            await self._write_copy(made, head)
        position.head, writer.tip = head, head.tip
        writer.moved.set()
        self.file.count(events)
        keys = set[str]()
        if self._loaded:
            changes = followed_changes(followed)
            if events or changes:
                try:
                    for listen in writer.listeners.followed:
                        await listen(events, changes)
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
            position.whole = head
        self._overtake(keys)
        if not followed.complete:
            return
        if not head.batch:
            return  # up to a transaction of our own, which tells what is known
        self._partly = False
        moved = head.revision > position.revision
        position.revision = head.revision
        # What was told of meanwhile is followed next, unless there is nothing.
        least = position.notified if moved else 0
        position.notified = max(least, head.revision)
        fault = self._untaken or head.fault
        if writer.fault != fault:
            writer.fault = fault
            writer.listeners.announce_state()
        position.announce()

    # Waiting commits

    def _overtake(self, keys: set[str]) -> None:
        """Refuse those that depend on keys written since they were made."""
        self._beside |= keys
        self.writer.lines.overtake(keys)
        self._urgent.overtake(keys)

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """Return *jobs* to the front of their lines, unless they were overtaken."""
        self.writer.lines.put_back(jobs)
        self._overtake(self._beside)

    # Failures

    async def _outlast(self, error: Exception, doubt: Doubt | None = None) -> None:
        """Refuse commits until the store answers, and settles what is in doubt."""
        self.position.latch(error)
        self.writer.fail()
        loop = asyncio.get_running_loop()
        until, delay = loop.time() + DOUBT_SECONDS, FIRST_RETRY
        while not self.writer.closing:
            if doubt is not None and loop.time() >= until:
                doubt.give_up()
            try:
                recovery = await self._regain(doubt)
            except LedgerDamagedError as lost:
                await self._stop(lost)
                break
            except (AgentVaultError, sqlite3.Error, OSError) as again:
                self.position.latch(again)
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)
                continue
            if recovery is not None:
                self.writer.release(recovery)
                return
        if doubt is not None:
            doubt.give_up()

    async def _regain(self, doubt: Doubt | None) -> Recovery | None:
        """Find out where the log ends; None: it is another broker's turn first."""
        if doubt is None:
            await self._follow()
            return _NOTHING
        if not doubt.refused:
            # The same transaction once more: it is placed once, whichever arrives.
            appended = await self._append(doubt.sent)
            if appended.outcome == "wait":  # the first may still be on its way
                await asyncio.sleep(TURN)
                return None
            # Its jobs may be in line again: nothing that fails may follow here.
            await self._settle(doubt.sent, appended)
            return _NOTHING
        if doubt.record is None:
            there = await self.shared.outcome(doubt.sent.batch)
            if there is not None and doubt.stored is None:
                await self._accept(doubt.sent, there)
                doubt.stored = there
            await self._follow()
            jobs = [doubt.make_record(self.writer.numbers)]
            doubt.record = Transaction(self.position.head, jobs, str(uuid.uuid4()))
        placed = await self._append(doubt.record, doubt.sent.batch)
        if placed.outcome != "placed":
            doubt.record = None
            return None
        made = await self._accept(doubt.record, placed)
        return Recovery(doubt.stored is not None, doubt.attempts, made.events[0][0])

    async def _stop(self, lost: LedgerDamagedError) -> None:
        """Grant nothing any more, and notify the other brokers, if possible."""
        self.position.stopped, self.writer.fault = True, lost.what
        self.position.latch(lost)
        self.writer.fail(self._urgent.placed_jobs())
        try:
            await self.shared.set_fault(lost.what)
        except AgentVaultError as error:
            log.warning("other brokers cannot be told: %s", error.what)

    async def _write_copy(self, statements: list[Statement], head: StoreHead) -> None:
        """Write the store's rows to the copy; until that works nothing else does."""
        latched, delay = self.writer.problem is not None, FIRST_RETRY
        while True:
            try:
                await self.file.write(statements)
                break
            except (sqlite3.Error, OSError) as error:
                if self.writer.closing:
                    raise
                self.position.latch(
                    LedgerUnwritableError(f"the home cannot be written ({error})")
                )
                self.writer.fail()
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY)
            if await self._reopened(head):
                break
        if not latched and self.writer.problem is not None:
            self.writer.release(_NOTHING)

    async def _reopened(self, head: StoreHead) -> bool:
        """Open the copy again; return whether it goes up to *head* already."""
        try:
            await self.file.reopen()
            db, ledger_id = self.file.connection, self.file.ledger_id
            there, _ = await db.run(read_place, ledger_id)
        except (sqlite3.Error, OSError, ValueError, LedgerError):
            return False
        return (there.tip.seq, there.revision) == (head.tip.seq, head.revision)

    async def maintain(self, *, idle: bool) -> None:
        """Prune, count and checkpoint the copy, and prune the store as often."""
        writer = self.writer
        if writer.problem is not None:
            return
        try:
            pruned = await self.file.maintain(idle=idle)
        except Exception as error:  # noqa: BLE001 - the copy has to be written again
            log.warning("the home's copy: %s", error)
            await self._write_copy([], self.position.head)
            return
        if pruned and writer.problem is None:
            try:
                await self.shared.prune()
            except AgentVaultError:
                self._examine = True
