"""After a failed write: find out what became of the batch, and record it."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import LedgerDamagedError, OutcomeUnknownError
from agentvault_tui.ledger.batch import Batch, Job, Tip, build, read_tip, write
from agentvault_tui.ledger.bindings import LEDGER
from agentvault_tui.ledger.records import Attempt, DropToken, Recovery
from agentvault_tui.ledger.schema import StoreConnection
from agentvault_tui.ledger.state import has_row, last_n
from agentvault_tui.model import Draft, EventType, Token

if TYPE_CHECKING:  # it imports psycopg, which few need
    from agentvault_tui.ledger.shared_log import Appended, StoreHead

_NAMED: Final = 40
"""Tokens named in the event; the count is always there."""


class DoubtfulBatch:
    """A batch whose commit failed: it is in the store as a whole, or not at all."""

    def __init__(self, batch: Batch, ledger_id: str, error: str) -> None:
        self._batch = batch
        self._ledger_id = ledger_id
        self._error = error
        self._found: dict[bytes, bool] = {
            batch.before.hash: False,
            batch.after.hash: True,
        }
        self._written: dict[bytes, tuple[Tip, Recovery]] = {}
        """Earlier tries at recording this, doubtful themselves."""

    async def settle(self, db: StoreConnection, clock: Clock) -> tuple[Tip, Recovery]:
        """Look what is there, void the batch's tokens, and record both."""
        tip, stored_n = await db.run(_look, self._ledger_id)
        if tip.hash in self._written:
            return self._written[tip.hash]
        if tip.hash not in self._found:
            raise LedgerDamagedError(
                f"the ledger ends at {tip.seq}, which this broker did not write",
                "stop the broker and verify the ledger",
            )
        found = self._found[tip.hash]
        if self._batch.after is self._batch.before:
            found = await db.run(_state_found, self._batch)
        return await self._record(db, tip, stored_n, clock, found=found)

    async def _record(
        self,
        db: StoreConnection,
        tip: Tip,
        stored_n: int,
        clock: Clock,
        *,
        found: bool,
    ) -> tuple[Tip, Recovery]:
        attempts = tuple(job.attempt for job in self._batch.jobs)
        places = self._batch.before.seq + 1, self._batch.after.seq
        draft, tokens = ambiguous(attempts, places, self._error, found=found)
        voids = [DropToken(token.id) for token in tokens]
        job = Job.of([draft], voids, itertools.count(stored_n))
        batch = build(tip, [job], clock)
        recovery = Recovery(found, attempts, batch.events[0][0])
        self._written[batch.after.hash] = batch.after, recovery
        await db.run(write, batch.statements)
        return batch.after, recovery


def ambiguous(
    attempts: Iterable[Attempt], places: tuple[int, int], error: str, *, found: bool
) -> tuple[Draft, list[Token]]:
    """Return the event about a batch whose commit failed, and the tokens it issued.

    The *places* are the numbers of its first and last event, had it been written; and
    *found* tells whether it was.
    """
    changes = [change for attempt in attempts for change in attempt.changes]
    tokens = [change for change in changes if isinstance(change, Token)]
    draft = Draft(
        EventType.AUDIT_AMBIGUOUS,
        LEDGER,
        reason="batch_found" if found else "batch_not_found",
        detail={
            "error": error,
            "first_seq": places[0],
            "last_seq": places[1],
            "tokens": len(tokens),
            "voided": [token.id for token in tokens[:_NAMED]],
        },
    )
    return draft, tokens


def _look(db: sqlite3.Connection, ledger_id: str) -> tuple[Tip, int]:
    return read_tip(db, ledger_id), last_n(db)


def _state_found(db: sqlite3.Connection, batch: Batch) -> bool:
    """Tell whether a batch without events is there: by its rows' own numbers."""
    return any(
        has_row(db, table, row[0] if table == "tokens" else row[-1])
        for job in batch.jobs
        for table, row in job.rows
    )


@dataclass(slots=True)
class Doubt:
    """A transaction that was sent and not answered."""

    jobs: Sequence[Job]
    batch: str
    """Its name."""
    head: StoreHead
    """What was known when it was sent."""
    error: str
    told: bool = False
    """Whether its callers were told that nobody knows."""
    found: Appended | None = None
    """Where it turned out to be in the store after that."""
    record: tuple[Job, str, StoreHead] | None = None
    """What records it, that transaction's name, and what was known when it was sent,
    while it is in doubt itself."""

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
            job.refuse(error)

    def make_record(self, numbers: Iterator[int]) -> Job:
        """Return what records its outcome, and ends the tokens nobody received."""
        found, count = self.found, sum(len(job.prepared) for job in self.jobs)
        last = found.seq if found else self.head.tip.seq + count
        places = last - count + 1, last
        draft, tokens = ambiguous(
            self.attempts, places, self.error, found=found is not None
        )
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
