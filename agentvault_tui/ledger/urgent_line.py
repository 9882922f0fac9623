"""Urgent commits of a team's broker, placed over a connection of their own.

A revocation waits for nothing else that its broker does: not for a transaction that is
on its way, nor for the copy. It comes to the copy in the order of the chain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from agentvault_tui.errors import (
    AgentVaultError,
    LedgerError,
    LedgerUnwritableError,
    OutcomeUnknownError,
    StoreAwayError,
)
from agentvault_tui.ledger.batch import Job
from agentvault_tui.ledger.shared_log import Appended, SharedLog, StoreHead, Transaction
from agentvault_tui.ledger.writer import MAX_BATCH, Writer, overtaken
from agentvault_tui.store_connection import CALL_SECONDS

WAIT_SECONDS: Final = 1.0
"""How long a grant waits for its place, and a reading that grants for the store."""
DOUBT_SECONDS: Final = 10.0
"""How long callers wait for the outcome of a transaction that had no answer."""
FIRST_RETRY: Final = 0.05
LAST_RETRY: Final = 0.5
OTHERS_SECONDS: Final = 0.025
"""How long an urgent transaction that follows another lets others' be placed first."""
_UNKNOWN: Final = (
    "the store was lost while it committed this",
    "it is recorded once the store answers",
)
log = logging.getLogger("agentvault.store")


class Position:
    """This broker's place in the store, and those who wait until it has moved."""

    def __init__(self, writer: Writer, shared: SharedLog, head: StoreHead) -> None:
        """Begin at *head*."""
        self.head = head
        """The last transaction that the copy has."""
        self.whole = head
        """The last one that memory has too, and that was followed as a whole."""
        self.revision = head.revision
        """The last transaction that this broker's memory has."""
        self.notified = head.revision
        """The newest revision in any message."""
        self.asking = 0
        """How many wait until memory has it."""
        self.stopped = False
        """Whether the log is not the one it was: then nothing starts it again."""
        self._moved = asyncio.Event()
        """Set, and replaced, once memory knows more, or the store is away."""
        self._writer, self._shared = writer, shared

    async def confirm(self) -> None:
        """Know all that was written before this was called; see `Ledger.confirm`."""
        writer = self._writer
        if writer.problem is not None:
            raise writer.refusal()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.reach(await self._shared.revision())
        except TimeoutError:
            raise LedgerUnwritableError(
                "the store did not answer in time", "ask again shortly"
            ) from None
        if writer.problem is not None:
            raise writer.refusal()
        if writer.fault is not None:
            raise LedgerUnwritableError(writer.fault, "nothing is granted until then")

    async def reach(self, revision: int) -> None:
        """Wait until memory has *revision*, or the store is away."""
        self.asking += 1
        try:
            self.notify(revision)
            if self.revision < revision:
                self._writer.wake()
            while self.revision < revision and self._writer.problem is None:
                await self._moved.wait()
        finally:
            self.asking -= 1

    def notify(self, revision: int) -> None:
        """Note that the store has *revision*."""
        if revision > self.notified:
            self.notified = revision
            self._writer.wake()

    def announce(self) -> None:
        """Wake those who wait: memory knows more, or the store is away."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def latch(self, error: Exception) -> None:
        """Refuse commits because of *error*."""
        problem = error.what if isinstance(error, AgentVaultError) else str(error)
        if self._writer.problem != problem:
            self._writer.problem = problem
            self._writer.listeners.announce_state()
            self.announce()
            log.warning("nothing is granted: %s", problem)


class Placed(NamedTuple):
    """An urgent transaction that is in the store, and in the copy not yet."""

    sent: Transaction
    stored: Appended
    refused: bool
    """Whether its callers have the answer that its outcome is unknown."""


class UrgentLine:
    """The urgent jobs, until they are placed and the copy has them."""

    def __init__(self, writer: Writer, shared: SharedLog, position: Position) -> None:
        """Place urgent jobs in *shared*."""
        self.waiting: deque[Job] = deque()
        """The jobs that are not sent yet."""
        self.sent: Sequence[Job] = ()
        """The jobs that are not known to be placed yet."""
        self.answered = asyncio.Event()
        """Set unless some of it may be placed without this broker's knowledge."""
        self.answered.set()
        self.placed: deque[Placed] = deque()
        self.others_sent = False
        """Whether other jobs are on their way."""
        self.others = asyncio.Event()
        """Set once that is placed, or will not be."""
        self._wanted = asyncio.Event()
        """Set while there is any."""
        self._quiet = asyncio.Event()
        """Set while there is none, nor on its way."""
        self._quiet.set()
        self._writer, self._shared, self._position = writer, shared, position

    def enqueue(self, job: Job) -> None:
        """Put *job* in line, unless nothing can be written."""
        if self._writer.problem is not None or self._writer.closing:
            raise self._writer.refusal()
        self.waiting.append(job)
        self._wanted.set()
        self._quiet.clear()

    async def place_all(self) -> None:
        """Place urgent jobs until cancelled; the rest is refused then."""
        try:
            while True:
                await self._wanted.wait()
                most = min(len(self.waiting), MAX_BATCH)
                self.sent = [self.waiting.popleft() for _ in range(most)]
                await self._place(self.sent)
                self.sent = ()
                self.answered.set()
                self._writer.wake()
                if not self.waiting:
                    self._wanted.clear()
                    self._quiet.set()
                    continue
                if self.others_sent or self._writer.lines:
                    # Many urgent ones in a row keep nobody waiting.
                    self.others.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(OTHERS_SECONDS):
                            await self.others.wait()
        except Exception as error:
            log.exception("urgent commits are placed no more")
            self._position.stopped = True
            what = f"writing ended ({type(error).__name__}): see the log"
            self._position.latch(LedgerUnwritableError(what))
        finally:
            self.answered.set()
            self._quiet.set()
            self._writer.refuse((*self.sent, *self.waiting, *self.placed_jobs()))

    def placed_jobs(self) -> list[Job]:
        """Return the jobs that the copy has not yet."""
        return [job for one in self.placed for job in one.sent.jobs]

    async def _place(self, jobs: Sequence[Job]) -> None:
        """Place *jobs* behind whatever others write, or refuse them.

        Without an answer they are asked for again, by the same name, until there is
        one: that places them once.
        """
        writer, position = self._writer, self._position
        batch, lost, notified = str(uuid.uuid4()), 0, False
        until = (clock := asyncio.get_running_loop().time)() + DOUBT_SECONDS
        while jobs and (writer.problem is None or (lost and not position.stopped)):
            if not lost:  # else it may be there already, as it was sent
                sent = Transaction(self._renumbered(jobs), jobs, batch)
            self.answered.clear()
            try:
                appended = await self._shared.append(*sent, urgent=True)
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                never = isinstance(error, StoreAwayError)
                if not lost and (never or not isinstance(error, LedgerError)):
                    position.latch(error)
                    break
                lost += 1
                if lost > 1:  # at first: it may be the connection alone
                    position.latch(error)
                    writer.refuse(self.waiting)  # they are behind it
                    self.waiting.clear()
                    writer.wake()
                    await asyncio.sleep(min(FIRST_RETRY * 2 ** (lost - 2), LAST_RETRY))
                if clock() >= until:
                    notified = True
                    for job in jobs:
                        job.refuse(OutcomeUnknownError(*_UNKNOWN))
                continue
            if appended.outcome == "placed":
                self.placed.append(Placed(sent, appended, notified))
                position.notify(appended.revision)
                return
            lost = 0
            self.answered.set()
            await position.reach(appended.revision)
            jobs = _still_right(jobs)
        writer.refuse(jobs)

    def _renumbered(self, jobs: Sequence[Job]) -> StoreHead:
        """Return the head that is known, with *jobs* numbered after it."""
        whole = self._position.whole
        first = min(filter(None, (job.first for job in jobs)), default=whole.n + 1)
        for job in jobs if first <= whole.n else ():
            job.shift(whole.n + 1 - first)
        return whole

    def overtake(self, keys: set[str]) -> None:
        """Refuse exact jobs that depend on *keys*, written since they were made."""
        for job in tuple(self.waiting):
            if job.exact and not keys.isdisjoint(job.depends):
                self.waiting.remove(job)
                job.refuse(overtaken())

    def next_placed(self, end: StoreHead | None) -> Placed | None:
        """Return the next transaction to take to the copy, none after *end*."""
        if self.placed and (
            end is None or self.placed[0].stored.revision <= end.revision
        ):
            return self.placed[0]
        return None

    async def end(self) -> None:
        """Wait until the jobs are placed, if the store answers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * CALL_SECONDS):
                await self._quiet.wait()


def _still_right(jobs: Sequence[Job]) -> Sequence[Job]:
    """Refuse the exact ones, to be decided again; return those to be placed as is."""
    for job in jobs:
        if job.exact:
            job.refuse(overtaken())
    return [job for job in jobs if not job.exact]
