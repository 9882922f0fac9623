"""The writer of a broker that shares its log: places commits behind others' in it.

Each transaction is placed only behind the head that this broker's memory knows. When
another broker was first, what it wrote is followed before anything else is written, and
waiting commits that it overtook fail (see `keys`). While the store is away all commits
fail at once. A transaction that had no answer is looked for until its outcome is known.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sqlite3
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import (
    AgentVaultError,
    LedgerBusyError,
    LedgerDamagedError,
    LedgerError,
    LedgerUnwritableError,
    OutcomeUnknownError,
    OvertakenError,
    RefusedError,
    StoreAwayError,
)
from agentvault_tui.ledger import schema, shared_log
from agentvault_tui.ledger.batch import Batch, Job, place, write
from agentvault_tui.ledger.bindings import LEDGER
from agentvault_tui.ledger.home_copy import (
    followed_changes,
    followed_events,
    followed_statements,
    place_statement,
    read_place,
)
from agentvault_tui.ledger.keys import keys_of, written_keys
from agentvault_tui.ledger.records import Attempt, Change, DropToken, Recovery
from agentvault_tui.ledger.recovery import ambiguous
from agentvault_tui.ledger.schema import StoreConnection
from agentvault_tui.ledger.shared_log import Appended, SharedLog, StoreHead
from agentvault_tui.ledger.state import Row, Statement
from agentvault_tui.ledger.writer import Writer
from agentvault_tui.model import Draft, Event, EventType, Token
from agentvault_tui.store_connection import CALL_SECONDS

WAIT_SECONDS: Final = 1.0
"""How long a grant waits for its place, and a reading that grants for the store."""
_DOUBT_SECONDS: Final = 10.0
"""How long callers wait for the outcome of a transaction that had no answer."""
_TURN: Final = 0.002
"""Seconds until asking again while it is another broker's turn to write."""
_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 0.5
log = logging.getLogger("agentvault.store")


class TeamWriter(Writer):
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
        super().__init__(db, path, ledger_id, head.tip)
        self.on_followed: Callable[
            [tuple[Event, ...], Sequence[Change]], Coroutine[object, object, None]
        ] = _ignore
        self.numbers = itertools.count(head.n + 1)
        self.head = head
        """The last transaction that the copy has."""
        self.shared = shared
        self._told = head.revision
        """The newest revision that anybody told of."""
        self._known = head.revision
        """The last transaction that this broker's memory has."""
        self._moved = asyncio.Event()
        """Set, and replaced, once memory knows more, or the store is away."""
        self._examine = True
        """Whether the store may be another one than the last that answered."""
        self._missed: Sequence[tuple[Any, ...]] = ()
        """What the last append was told of others, until it is followed."""
        self._untaken: str | None = None
        """Why memory is not what the store has, if so."""
        self._stopped = False
        """Whether the log is not the one it was: then nothing starts it again."""

    # Asked by others

    def submit(self, job: Job, *, urgent: bool) -> None:
        """Put *job* in line, as `Writer.submit` does, with when it was made."""
        super().submit(job, urgent=urgent)
        job.made = asyncio.get_running_loop().time()

    async def confirm(self) -> None:
        """Know all that was written before this was called; see `Ledger.confirm`."""
        if self.problem is not None:
            raise self._refusal()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                revision = await self.shared.revision()
                self._tell(revision)
                while self._known < revision and self.problem is None:
                    await self._moved.wait()
        except TimeoutError:
            raise LedgerUnwritableError(
                "the store did not answer in time", "ask again shortly"
            ) from None
        if self.problem is not None:
            raise self._refusal()
        if self.fault is not None:
            raise LedgerUnwritableError(self.fault, "nothing is granted until then")

    async def run(self, clock: Clock) -> None:
        """Write until closed, and listen to the store meanwhile."""
        listening = asyncio.create_task(self._listen(), name="store listener")
        try:
            await super().run(clock)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await self.shared.close()

    async def _listen(self) -> None:
        said = ""
        while True:
            try:
                await self.shared.listen(self._tell)
            except AgentVaultError as error:
                if error.what != said:  # twice a second would fill the log
                    said = error.what
                    log.warning("cannot listen to the store: %s", said)
            self._examine = True
            self._wake_writer()
            await asyncio.sleep(_LAST_RETRY)

    def _tell(self, revision: int) -> None:
        if revision > self._told:
            self._told = revision
            self._wake_writer()

    # The writer's own task

    async def open(self, seconds: float) -> None:
        """Bring the copy up to the store's head, before anything is loaded from it.

        Args:
            seconds: how long each part of it may take; a first copy takes some.

        Raises:
            LedgerDamagedError: the store does not have what the copy has.
            LedgerUnwritableError: the store does not answer.
        """
        await self._follow(seconds)

    async def start_without(self, error: AgentVaultError) -> None:
        """Begin with what the copy has: nothing is granted until the store answers."""
        if isinstance(error, LedgerDamagedError):
            await self._stop(error)
        else:
            self.problem = error.what

    async def _prepare(self, clock: Clock) -> None:
        """Follow what others wrote, before anything is placed behind it."""
        if self.problem is not None and not self._stopped:
            await self._outlast(LedgerUnwritableError(self.problem), clock)
        while (self._examine or self._told > self._known) and self.problem is None:
            try:
                await self._follow()
            except LedgerDamagedError as lost:
                await self._stop(lost)
            except AgentVaultError as error:
                await self._outlast(error, clock)
            if any(self._lanes):
                return  # and take a turn, rather than run after a head that moves on

    async def _write(self, jobs: list[Job], clock: Clock) -> None:
        jobs = self._in_time(jobs)
        if not jobs:
            return
        batch = str(uuid.uuid4())
        try:
            found = await self._append(jobs, batch)
        except (StoreAwayError, RefusedError) as error:
            self._latch(error)
            self._fail(jobs)
            await self._outlast(error, clock)
        except LedgerError as error:
            doubt = Doubt(jobs, batch, self.tip.seq, error.what)
            await self._outlast(error, clock, doubt)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._latch(error)
            self._fail(jobs)
            await self._outlast(error, clock)
        else:
            await self._settle(jobs, batch, found, clock)

    async def _append(self, jobs: Sequence[Job], batch: str) -> Appended:
        found = await self.shared.append(
            self.head, jobs, batch, urgent=self._was_urgent
        )
        self._missed = found.missed
        return found

    async def _settle(
        self, jobs: Sequence[Job], batch: str, found: Appended, clock: Clock
    ) -> None:
        """Do what the answer of the store asks for."""
        if found.outcome == "placed":
            await self._accept(jobs, batch, found, clock)
        elif found.outcome == "behind":
            self._put_back(jobs)
            self._told = max(self._told, self._known + 1)
        elif found.outcome == "wait":
            self._put_back(jobs)
            await asyncio.sleep(_TURN)
        else:
            for job in jobs:
                _refuse(job, LedgerUnwritableError("the store's ledger is at fault"))

    async def _accept(
        self, jobs: Sequence[Job], batch: str, found: Appended, clock: Clock
    ) -> Batch:
        """Write what was placed to the copy as well, then tell of it."""
        before = self.tip
        made = place(
            before, jobs, found.time or clock.now(), new_era=before.time is None
        )
        if made.after.hash != found.hash:
            raise LedgerDamagedError(
                f"the store chained event {found.seq} in another way than this broker",
                "stop the brokers and keep the store as evidence",
            )
        rows = [pair for job in jobs for pair in job.rows]
        last = max((_number(*pair) for pair in rows), default=0)
        head = StoreHead(
            made.after, found.revision, batch, max(last, self.head.n), self.head.fault
        )
        place_row = place_statement(head, self.shared.systems)
        await self._write_copy([*made.statements, place_row], head)
        self.head, self._known = head, head.revision
        if self._was_urgent:
            attempts = [job.attempt for job in jobs]
            drafts = [draft for one in attempts for draft in one.drafts]
            changes = [change for one in attempts for change in one.changes]
            self._overtake(written_keys(drafts, changes, rows))
        await self._finish(made, clock)
        self._announce()
        return made

    async def _follow(self, seconds: float = CALL_SECONDS) -> None:
        """Bring copy and memory to the store's head, and drop what it overtook."""
        complete = False
        while not complete:
            missed, self._missed = self._missed, ()
            if missed and not self._examine:
                followed = shared_log.followed(missed, self.head)
            else:
                followed = await self.shared.follow(self.head, seconds)
            complete, head = followed.complete, followed.head
            events = followed_events(followed)
            if (head.revision, head.tip.seq) != (self.head.revision, self.tip.seq):
                made = followed_statements(
                    self.head, followed, events, self.shared.systems
                )
                await self._write_copy(made, head)
            self.head, self.tip = head, head.tip
            self.on_commit()
            if self.on_followed is _ignore:
                self._counts = None
                self._uncounted += len(followed.events)
                continue
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
            if any(self._lanes):
                self._overtake(written_keys(events, changes, followed.rows))
        self._renumber()
        moved = self.head.revision > self._known
        self._known = self.head.revision
        # What was told of meanwhile is followed next, unless there is nothing.
        self._told = max(self._told, self._known) if moved else self._known
        self._examine = False
        fault = self._untaken or self.head.fault
        if self.fault != fault:
            self.fault = fault
            self.on_problem()
        self._announce()

    def _announce(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    # Waiting commits

    def _overtake(self, keys: set[str]) -> None:
        """Refuse those that depend on what was written since they were made."""
        for lane in (self._queue, self._calls):
            waiting = list(lane)
            lane.clear()
            for job in waiting:
                if keys.isdisjoint(_keys(job)):
                    lane.append(job)
                else:
                    _refuse(job, _overtaken())
        self._count_eager()

    def _renumber(self) -> None:
        """Give what waits larger numbers than anything that is stored."""
        self.numbers = itertools.count(max(self.head.n + 1, next(self.numbers)))
        waiting = [job for lane in self._lanes for job in lane if job.rows]
        if waiting and min(map(_first, waiting)) <= self.head.n:
            for job in sorted(waiting, key=_first):
                anew = Job.of(job.attempt.drafts, job.attempt.changes, self.numbers)
                job.prepared, job.rows = anew.prepared, anew.rows

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """Return *jobs* to the front of their lines."""
        if self._was_urgent:
            self._urgent.extendleft(reversed(jobs))
            self._was_urgent = False
        else:
            for lane, of_call in ((self._queue, False), (self._calls, True)):
                lane.extendleft(job for job in reversed(jobs) if job.of_call is of_call)
        self._count_eager()

    def _in_time(self, jobs: list[Job]) -> list[Job]:
        """Refuse grants that waited too long; what only reports waits on."""
        least = asyncio.get_running_loop().time() - WAIT_SECONDS
        if self._was_urgent:
            return jobs
        late = [job for job in jobs if job.made < least and "policy" in _keys(job)]
        for job in late:
            _refuse(job, LedgerBusyError("other brokers write", "try again shortly"))
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
        until, delay = loop.time() + _DOUBT_SECONDS, _FIRST_RETRY
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
                delay = min(delay * 2, _LAST_RETRY)
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
            return Recovery(found=False, attempts=(), event=None)
        if not doubt.told:
            # The same transaction once more: it is placed once, whichever arrives.
            found = await self._append(doubt.jobs, doubt.batch)
            if found.outcome == "wait":  # the first may still be on its way
                await asyncio.sleep(_TURN)
                return None
            # Its jobs may be in line again: nothing that fails may follow here.
            await self._settle(doubt.jobs, doubt.batch, found, clock)
            return Recovery(found=False, attempts=(), event=None)
        if doubt.record is None:
            there = await self.shared.outcome(doubt.batch)
            if there is not None and not doubt.found:
                doubt.found = True
                await self._accept(doubt.jobs, doubt.batch, there, clock)
            await self._follow()
            doubt.record = doubt.make_record(self.numbers), str(uuid.uuid4())
        record, name = doubt.record
        placed = await self._append([record], name)
        doubt.record = None
        if placed.outcome != "placed":
            return None
        made = await self._accept([record], name, placed, clock)
        return Recovery(doubt.found, doubt.attempts, made.events[0][0])

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
        """Grant nothing any more, and tell the other brokers, if they can be told."""
        self._stopped, self.fault = True, lost.what
        self._latch(lost)
        self._fail(self._waiting())
        try:
            await self.shared.set_fault(lost.what)
        except AgentVaultError as error:
            log.warning("other brokers cannot be told: %s", error.what)

    async def _write_copy(self, statements: list[Statement], head: StoreHead) -> None:
        """Write to the copy what the store has; until that works nothing else does."""
        latched, delay = self.problem is not None, _FIRST_RETRY
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
            delay = min(delay * 2, _LAST_RETRY)
            if await self._reopened(head):
                break
        if not latched and self.problem is not None:
            self._release(Recovery(found=False, attempts=(), event=None))

    async def _reopened(self, head: StoreHead) -> bool:
        """Open the copy anew; tell whether it goes up to *head* already."""
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


@dataclass(slots=True)
class Doubt:
    """A transaction that was sent and not answered."""

    jobs: Sequence[Job]
    batch: str
    """Its name."""
    before: int
    """The number of the last event before it."""
    error: str
    told: bool = False
    """Whether its callers were told that nobody knows."""
    found: bool = False
    """Whether it turned out to be in the store after that."""
    record: tuple[Job, str] | None = None
    """What records it, and that transaction's name, while it is in doubt itself."""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Return what its callers tried."""
        return tuple(job.attempt for job in self.jobs)

    def give_up(self) -> None:
        """Tell the callers that nobody knows what became of it."""
        self.told = True
        for job in self.jobs:
            ids = (draft.decision_id for draft in job.attempt.drafts)
            error = OutcomeUnknownError(
                "the store was lost while it committed this",
                "ask again once it answers; what was issued meanwhile is ended",
                decision_id=next(filter(None, ids), None),
            )
            _refuse(job, error)

    def make_record(self, numbers: Iterator[int]) -> Job:
        """Return what records its outcome, and ends the tokens nobody received."""
        places = self.before + 1, self.before + sum(len(j.prepared) for j in self.jobs)
        draft, tokens = ambiguous(self.attempts, places, self.error, found=self.found)
        drafts = [draft, *(map(_undelivered, tokens) if self.found else ())]
        return Job.of(drafts, [DropToken(token.id) for token in tokens], numbers)


def _undelivered(token: Token) -> Draft:
    """Return the event of a token that was issued and never given to its agent."""
    return Draft(
        EventType.TOKEN_REVOKED,
        LEDGER,
        agent_id=token.agent_id,
        action=token.scope,
        reason="not_delivered",
        decision_id=token.decision_id,
        detail={"token_id": token.id},
    )


def _keys(job: Job) -> set[str]:
    if job.keys is None:
        job.keys = keys_of(job.attempt.drafts, job.attempt.changes, job.rows)
    return job.keys


def _refuse(job: Job, error: LedgerError) -> None:
    if job.done is not None and not job.done.done():
        job.done.set_exception(error)


def _overtaken() -> OvertakenError:
    return OvertakenError(
        "what this was decided from was changed meanwhile", "ask again"
    )


def _number(table: str, row: Row) -> int:
    return int(row[0] if table == "tokens" else row[-1])


def _first(job: Job) -> int:
    """Return the number of the first row of *job*, which has one."""
    return _number(*job.rows[0])


async def _ignore(_: tuple[Event, ...], __: Sequence[Change]) -> None:
    """Stand in until someone listens."""
