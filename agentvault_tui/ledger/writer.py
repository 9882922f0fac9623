"""The one writer: writes all commits that wait as one transaction (group commit).

No timer gathers a group: while one batch is on its way to the store the next collects
behind it. Any failure latches: every commit is refused until the store takes one again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import (
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from itertools import chain, product
from typing import Final, Protocol

from agentvault_tui.errors import LedgerBusyError, LedgerUnwritableError, OvertakenError
from agentvault_tui.ledger.batch import Batch, Job, Tip, older
from agentvault_tui.ledger.records import Change, Recovery
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
_LAZY_SECONDS: Final = 0.02
"""The longest wait for others of a commit without a waiting caller."""

_WOKEN_A_TURN: Final = 2
Events = tuple[Event, ...]
Work = Coroutine[object, object, None]
log = logging.getLogger(__name__)


class LedgerStore(Protocol):
    """The file, or the team's store and its copy, that batches are written to."""

    async def take(self) -> list[Job]:
        """Do the work before every batch, and take that out of the lines."""

    async def write(self, jobs: list[Job]) -> None:
        """Write a batch, and have the writer publish it."""

    async def maintain(self, *, idle: bool) -> None:
        """Do the chores that are due, more of them while nothing waits."""


class Listeners:
    """The functions that are called when a ledger changes, each in turn."""

    def __init__(self, spawn: Callable[[Work, str], None]) -> None:
        """Begin without any; *spawn* starts a task."""
        self.state: list[Callable[[], None]] = []
        """Called whenever `Ledger.writable` or `Ledger.problem` changed."""
        self.event: list[Callable[[Event], None]] = []
        """Called with every durable event, when `Ledger.head` reaches it."""
        self.written: list[Callable[[Events, Sequence[Change]], None]] = []
        """Called with every durable commit and its changes, in the order of the chain
        and before the caller of `Ledger.commit` goes on."""
        self.followed: list[Callable[[Events, Sequence[Change]], Work]] = []
        """Awaited with the events and changes of other brokers, in the order of the
        chain, and with the last change alone of a thing that changed several times. The
        home's copy has them; nothing later is written before it returns, so it must not
        wait for a commit of its own."""
        self.recovered: list[Callable[[Recovery], Work]] = []
        """Awaited in a task of its own, each time writing works again; may commit."""
        self._spawn = spawn

    def announce_state(self) -> None:
        """Call the listeners to `state`."""
        for listen in self.state:
            listen()

    def announce_commit(self, events: Events, changes: Sequence[Change]) -> None:
        """Call the listeners to `event` and `written`."""
        try:
            for event, listen in product(events, self.event):
                listen(event)
            for listener in self.written:
                listener(events, changes)
        except Exception:
            # What is durable stays so, whatever a listener makes of it.
            log.exception("a listener to the ledger failed")

    def announce_recovery(self, recovery: Recovery) -> None:
        """Start a task for each listener to `recovered`."""
        for listen in self.recovered:
            self._spawn(listen(recovery), "recovered")


class Writer:
    """The batches and turns of commits, and the chain's tip."""

    def __init__(self, tip: Tip, n: int, listeners: Listeners) -> None:
        """Begin behind *tip* and the row with the number *n*."""
        self.tip, self.listeners = tip, listeners
        self.problem: str | None = None
        """Why nothing can be written, while that is so."""
        self.fault: str | None = None
        """Why grants are stopped, although it can be written."""
        self.numbers: Iterator[int] = itertools.count(n + 1)
        """Numbers for the rows of commits, larger than any that is stored."""
        self.lines = Lines(self.wake)
        self.closing = False
        self.moved = asyncio.Event()
        """Set whenever the chain has another end."""
        self._answers: deque[tuple[Job, Events]] = deque()
        """Callers to wake: their commits are durable."""
        self._call_answers: deque[tuple[Job, Events]] = deque()
        """The same for records of calls, behind the others."""
        self._idle: asyncio.Future[None] | None = None
        self._tidy = False

    def submit(self, job: Job) -> None:
        """Put *job* in line, unless nothing can be written."""
        if self.problem is not None or self.closing:
            raise self.refusal()
        self.lines.enqueue(job)

    def request_maintenance(self) -> None:
        """Ask for the chores that are better done while nothing waits."""
        self._tidy = True
        self.wake()

    def close(self) -> None:
        """Write the waiting jobs, then stop."""
        self.closing = True
        self.wake()

    async def run(self, store: LedgerStore) -> None:
        """Write to *store* until closed."""
        try:
            while True:
                if jobs := await store.take():
                    await store.write(jobs)
                elif self._answers or self._call_answers:
                    await self._answer(())  # what they made way for was refused
                elif self.closing:
                    return
                elif self._tidy:
                    self._tidy = False
                    await store.maintain(idle=True)
                else:
                    await self.idle()
        except Exception as error:
            self.problem = f"writing ended ({type(error).__name__}): see the log"
            self.listeners.announce_state()
            raise
        finally:
            self.closing = True
            self.fail()

    def idle(self) -> asyncio.Future[None]:
        """Return the future that is done once there is work again."""
        self._idle = asyncio.get_running_loop().create_future()
        return self._idle

    def wake(self) -> None:
        """End a wait for work."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def publish(self, batch: Batch, urgent: Collection[object]) -> None:
        """Publish a durable batch, and wake its callers until *urgent* ones wait."""
        self.tip = batch.after
        for job, events in zip(batch.jobs, batch.events, strict=True):
            self.listeners.announce_commit(events, job.attempt.changes)
        self.moved.set()
        for answer in zip(batch.jobs, batch.events, strict=True):
            if answer[0].urgent:
                self._answers.appendleft(answer)
            else:
                calls = answer[0].of_call
                (self._call_answers if calls else self._answers).append(answer)
        await self._answer(() if batch.jobs[0].urgent else urgent)

    async def _answer(self, urgent: Collection[object]) -> None:
        """Wake the callers, few a turn of the loop; urgent ones first.

        Of the calls, few between two batches while anything else waits to be written.
        """
        woken = False
        while self._answers or self._call_answers:
            if urgent or (woken and self.lines.others and not self._answers):
                return
            self._wake_callers(_WOKEN_A_TURN)
            woken = True
            await asyncio.sleep(0)

    def _wake_callers(self, most: int) -> None:
        for _ in range(most):
            if not (answers := self._answers or self._call_answers):
                return
            job, events = answers.popleft()
            if job.done is not None and not job.done.done():
                job.done.set_result(events[: len(job.attempt.drafts)])

    def fail(self, jobs: Iterable[Job] = ()) -> None:
        """Refuse *jobs* and all in line; what is durable stays so."""
        self._wake_callers(len(self._answers) + len(self._call_answers))
        self.refuse((*jobs, *self.lines.clear()))

    def refuse(self, jobs: Iterable[Job]) -> None:
        """Answer the callers of *jobs* that nothing of theirs was written."""
        for job in jobs:
            job.refuse(self.refusal())

    def release(self, recovery: Recovery) -> None:
        """Take commits again."""
        self.problem = None
        self.listeners.announce_state()
        self.moved.set()
        self.listeners.announce_recovery(recovery)

    def refusal(self) -> LedgerUnwritableError:
        """Return why nothing can be written."""
        return LedgerUnwritableError(
            self.problem or "the ledger is closed",
            "nothing is issued until writing works again",
        )


class Lines:
    """Three lines of jobs: urgent ones, others, and behind them records of calls."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """Call *wake* once a job is to be written."""
        self.urgent: deque[Job] = deque()
        self.others: deque[Job] = deque()
        self.calls: deque[Job] = deque()
        self.eager = 0
        """How many of those in line do not wait for others."""
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        """Runs while the others wait."""
        self._was_urgent = False
        """Whether the last batch was taken from the urgent line."""

    def __iter__(self) -> Iterator[Job]:
        return chain(self.urgent, self.others, self.calls)

    def __bool__(self) -> bool:
        return bool(self.urgent or self.others or self.calls)

    def enqueue(self, job: Job) -> None:
        """Put *job* in line; an urgent one never finds it full.

        One without a waiting caller shares the next transaction with others, if one
        comes within a moment.
        """
        lane = self.calls if job.of_call else self.others
        if job.urgent:
            lane = self.urgent
        elif len(lane) >= MAX_QUEUE:
            raise LedgerBusyError(
                f"{MAX_QUEUE} commits already wait for the disk", "try again shortly"
            )
        lane.append(job)
        if job.urgent or not job.lazy:
            self.eager += 1
            self._wake()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_LAZY_SECONDS, self._end_wait)

    def _end_wait(self) -> None:
        self._timer = None
        self._wake()

    def take(self, *, closing: bool) -> list[Job]:
        """Take the next batch out of the lines.

        An urgent one goes alone: its record must not wait for others' rows. Then it is
        the others' turn: an agent that ends its own tokens is urgent as well.
        """
        others = self.others or self.calls
        urgent = self.urgent and not (self._was_urgent and others)
        self._was_urgent = bool(urgent)
        if not self.eager and self._timer is not None and not closing:
            return []
        lane = self.urgent if urgent else self.others
        taken = [lane.popleft() for _ in range(min(len(lane), MAX_BATCH))]
        if not urgent:
            most = min(len(self.calls), _CALLS_BESIDE if taken else _CALLS_ALONE)
            taken += [self.calls.popleft() for _ in range(most)]
        self.eager -= len(taken) - sum(job.lazy for job in taken)
        return taken

    def clear(self) -> list[Job]:
        """Take all jobs out of the lines."""
        jobs = list(self)
        for lane in (self.urgent, self.others, self.calls):
            lane.clear()
        self.eager = 0
        return jobs

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Return *jobs* to the front of their lines."""
        for lane, of_call in ((self.others, False), (self.calls, True)):
            lane.extendleft(job for job in reversed(jobs) if job.of_call is of_call)

    def take_older(self, jobs: list[Job]) -> None:
        """Add to *jobs* the conflicting ones that are older, in the other line."""
        for lane, of_call in ((self.others, False), (self.calls, True)):
            others = [job for job in jobs if job.of_call is not of_call]
            for job in older(others, lane):
                lane.remove(job)
                jobs.append(job)
                self.eager -= not job.lazy

    def overtake(self, keys: set[str]) -> None:
        """Refuse jobs that depend on *keys*, written by others since they were made."""
        for lane in (self.others, self.calls):
            waiting = list(lane)
            lane.clear()
            for job in waiting:
                if keys.isdisjoint(job.depends):
                    lane.append(job)
                else:
                    job.refuse(overtaken())
        self.eager = sum(not job.lazy for job in self)


def overtaken() -> OvertakenError:
    """Return why a commit was not placed that others' writes made wrong."""
    return OvertakenError(
        "what this was decided from was changed meanwhile", "ask again"
    )
