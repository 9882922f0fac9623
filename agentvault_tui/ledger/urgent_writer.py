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
from pathlib import Path
from typing import Final, NamedTuple

from agentvault_tui.errors import (
    LedgerError,
    LedgerUnwritableError,
    OutcomeUnknownError,
    OvertakenError,
    StoreAwayError,
)
from agentvault_tui.ledger.batch import Job
from agentvault_tui.ledger.schema import StoreConnection
from agentvault_tui.ledger.shared_log import Appended, SharedLog, StoreHead
from agentvault_tui.ledger.writer import MAX_BATCH, Writer
from agentvault_tui.store_connection import CALL_SECONDS

WAIT_SECONDS: Final = 1.0
"""How long a grant waits for its place, and a reading that grants for the store."""
DOUBT_SECONDS: Final = 10.0
"""How long callers wait for the outcome of a transaction that had no answer."""
FIRST_RETRY: Final = 0.05
LAST_RETRY: Final = 0.5
OTHERS_SECONDS: Final = 0.025
"""How long an urgent transaction that follows another lets others' be placed first."""
TURN: Final = 0.002
"""Seconds until asking again while it is another's turn to write."""
log = logging.getLogger("agentvault.store")


class Placed(NamedTuple):
    """An urgent transaction that is in the store, and in the copy not yet."""

    jobs: Sequence[Job]
    batch: str
    head: StoreHead
    """The head when it was sent."""
    stored: Appended
    refused: bool
    """Whether its callers have the answer that its outcome is unknown."""


class UrgentWriter(Writer):
    """Knows this broker's position in the store, and places urgent jobs."""

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
        self.head = head
        """The last transaction that the copy has."""
        self._whole = head
        """The last one that memory has too, and that was followed as a whole."""
        self.shared, self.broker = shared, shared.broker_id
        self._notified = head.revision
        """The newest revision in any message."""
        self._revision = head.revision
        """The last transaction that this broker's memory has."""
        self._moved = asyncio.Event()
        """Set, and replaced, once memory knows more, or the store is away."""
        self._asking = 0
        """How many wait until it does."""
        self._stopped = False
        """Whether the log is not the one it was: then nothing starts it again."""
        self._cuts: deque[Job] = deque()
        """The urgent jobs that are not sent yet."""
        self._wanted = asyncio.Event()
        """Set while there is any."""
        self._quiet = asyncio.Event()
        """Set while there is none, nor on its way."""
        self._quiet.set()
        self._sent: Sequence[Job] = ()
        """The urgent jobs that are not known to be placed yet."""
        self._answered = asyncio.Event()
        """Set unless some of it may be placed without this broker's knowledge."""
        self._answered.set()
        self._placed: deque[Placed] = deque()
        self._writing = False
        """Whether other jobs are on their way."""
        self._others = asyncio.Event()
        """Set once that is placed, or will not be."""

    def submit(self, job: Job, *, urgent: bool) -> None:
        """Put *job* in line, as `Writer.submit` does, with when it was made."""
        job.made = asyncio.get_running_loop().time()
        if not urgent:
            super().submit(job, urgent=False)
        elif self.problem is not None or self._closing:
            raise self._refusal()
        else:
            self._cuts.append(job)
            self._wanted.set()
            self._quiet.clear()

    async def confirm(self) -> None:
        """Know all that was written before this was called; see `Ledger.confirm`."""
        if self.problem is not None:
            raise self._refusal()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._know(await self.shared.revision())
        except TimeoutError:
            raise LedgerUnwritableError(
                "the store did not answer in time", "ask again shortly"
            ) from None
        if self.problem is not None:
            raise self._refusal()
        if self.fault is not None:
            raise LedgerUnwritableError(self.fault, "nothing is granted until then")

    async def _know(self, revision: int) -> None:
        """Wait until memory has *revision*, or the store is away."""
        self._asking += 1
        try:
            self._tell(revision)
            if self._revision < revision:
                self._wake_writer()
            while self._revision < revision and self.problem is None:
                await self._moved.wait()
        finally:
            self._asking -= 1

    def _tell(self, revision: int) -> None:
        if revision > self._notified:
            self._notified = revision
            self._wake_writer()

    def _announce(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _latch(self, error: Exception) -> None:
        raise NotImplementedError

    async def _place_cuts(self) -> None:
        """Place urgent jobs until cancelled; the rest is refused then."""
        try:
            while True:
                await self._wanted.wait()
                most = min(len(self._cuts), MAX_BATCH)
                self._sent = [self._cuts.popleft() for _ in range(most)]
                await self._place_cut(self._sent)
                self._sent = ()
                self._answered.set()
                self._wake_writer()
                if not self._cuts:
                    self._wanted.clear()
                    self._quiet.set()
                    continue
                if self._writing or any(self._lanes):
                    # Many urgent ones in a row keep nobody waiting.
                    self._others.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(OTHERS_SECONDS):
                            await self._others.wait()
        except Exception as error:
            log.exception("urgent commits are placed no more")
            self._stopped = True
            what = f"writing ended ({type(error).__name__}): see the log"
            self._latch(LedgerUnwritableError(what))
        finally:
            self._answered.set()
            self._quiet.set()
            placed = (job for one in self._placed for job in one.jobs)
            for job in (*self._sent, *self._cuts, *placed):
                job.refuse(self._refusal())

    async def _place_cut(self, jobs: Sequence[Job]) -> None:
        """Place *jobs* behind whatever others write, or refuse them.

        Without an answer they are asked for again, by the same name, until there is
        one: that places them once.
        """
        loop, batch, lost, notified = (
            asyncio.get_running_loop(),
            str(uuid.uuid4()),
            0,
            False,
        )
        until = loop.time() + DOUBT_SECONDS
        while jobs and (self.problem is None or (lost and not self._stopped)):
            if not lost:  # else it may be there already, as it was sent
                head = self._renumbered(jobs)
            self._answered.clear()
            try:
                appended = await self.shared.append(head, jobs, batch, urgent=True)
            except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
                never = isinstance(error, StoreAwayError)
                if not lost and (never or not isinstance(error, LedgerError)):
                    self._latch(error)
                    break
                lost += 1
                if lost > 1:  # at first: it may be the connection alone
                    self._latch(error)
                    self._refuse_cuts()
                    await asyncio.sleep(min(FIRST_RETRY * 2 ** (lost - 2), LAST_RETRY))
                if loop.time() >= until:
                    notified = True
                    for job in jobs:
                        job.refuse(_unknown())
                continue
            if appended.outcome == "placed":
                self._placed.append(Placed(jobs, batch, head, appended, notified))
                self._tell(appended.revision)
                return
            lost = 0
            self._answered.set()
            await self._know(appended.revision)
            jobs = _still_right(jobs)
        for job in jobs:
            job.refuse(self._refusal())

    def _renumbered(self, jobs: Sequence[Job]) -> StoreHead:
        """Return the head that is known, with *jobs* numbered after it."""
        whole = self._whole
        first = min(filter(None, (job.first for job in jobs)), default=whole.n + 1)
        for job in jobs if first <= whole.n else ():
            job.shift(whole.n + 1 - first)
        return whole

    def _refuse_cuts(self) -> None:
        """Refuse the jobs behind a transaction that has no answer."""
        while self._cuts:
            self._cuts.popleft().refuse(self._refusal())
        self._wake_writer()

    def _urgent_waits(self) -> bool:
        return bool(self._placed)

    def _own(self, end: StoreHead | None) -> Placed | None:
        """Return the next urgent transaction to take to the copy, none after *end*."""
        if self._placed and (
            end is None or self._placed[0].stored.revision <= end.revision
        ):
            return self._placed[0]
        return None

    async def _end_cuts(self) -> None:
        """Wait until the urgent jobs are placed, if the store answers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * CALL_SECONDS):
                await self._quiet.wait()


def overtaken() -> OvertakenError:
    """Return why a commit was not placed that others' writes made wrong."""
    return OvertakenError(
        "what this was decided from was changed meanwhile", "ask again"
    )


def _still_right(jobs: Sequence[Job]) -> Sequence[Job]:
    """Refuse the exact ones, to be decided again; return those to be placed as is."""
    for job in jobs:
        if job.exact:
            job.refuse(overtaken())
    return [job for job in jobs if not job.exact]


def _unknown() -> OutcomeUnknownError:
    return OutcomeUnknownError(
        "the store was lost while it committed this",
        "it is recorded once the store answers",
    )
