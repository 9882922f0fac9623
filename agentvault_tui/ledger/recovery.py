"""After a failed write: find out whether the batch is in the store, and record it."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from agentvault_tui.clock import Clock
from agentvault_tui.errors import LedgerDamagedError, OutcomeUnknownError
from agentvault_tui.ledger.batch import Batch, Job, Tip, build, read_tip, write
from agentvault_tui.ledger.bindings import LEDGER
from agentvault_tui.ledger.places import hash_at
from agentvault_tui.ledger.records import Attempt, DropToken, Recovery
from agentvault_tui.ledger.schema import StoreConnection
from agentvault_tui.ledger.state import has_row, last_n
from agentvault_tui.model import Draft, EventType, Token, TokenId

if TYPE_CHECKING:  # it imports psycopg, which few need
    from agentvault_tui.ledger.shared_log import Appended, Transaction

_NAMED: Final = 40
"""Tokens named in the event; the count is always there."""

log = logging.getLogger("agentvault.ledger")


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch whose commit failed, for the start after a process that was killed."""

    ledger: str
    first: int
    last: int
    hash: str
    """Of its last event, in hexadecimal."""
    error: str
    tokens: list[TokenId]


def note_path(database: Path) -> Path:
    """Return where the note about a batch in doubt is, next to the *database*."""
    return Path(f"{database}-doubt")


def settle_note(
    db: sqlite3.Connection, database: Path, ledger_id: str, tip: Tip, clock: Clock
) -> Tip:
    """Record the outcome of a batch that the last process left in doubt.

    Its callers were answered that it failed. If it is in the chain all the same, the
    tokens in it are void, and an event says so, unless that process wrote both.

    Args:
        db: the writing connection, before anything else is written.
        database: its file.
        ledger_id: the ledger's own name.
        tip: where the chain ends.
        clock: the clock.

    Returns:
        where the chain ends now.

    Raises:
        sqlite3.Error: it could not be recorded.
    """
    path = note_path(database)
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
    except FileNotFoundError:
        return tip
    except msgspec.MsgspecError:  # killed while it was written: nobody had an answer
        log.warning("%s cannot be read, and is removed", path)
        path.unlink()
        return tip
    last = hash_at(db, ledger_id, note.last)
    if note.ledger == ledger_id and last is not None and last.hex() == note.hash:
        kind = EventType.AUDIT_AMBIGUOUS.value
        sql = "SELECT 1 FROM events WHERE seq = ? AND type = ?"
        if db.execute(sql, (note.last + 1, kind)).fetchone() is None:
            places = note.first, note.last
            draft = ambiguous(note.tokens, places, note.error, stored=True)
            voids = [DropToken(each) for each in note.tokens]
            job = Job.of([draft], voids, itertools.count(last_n(db) + 1))
            batch = build(tip, [job], clock)
            write(db, batch.statements)
            tip = batch.after
    path.unlink()
    return tip


class DoubtfulBatch:
    """A batch whose commit failed: it is in the store as a whole, or not at all."""

    def __init__(self, batch: Batch, ledger_id: str, error: str) -> None:
        self._batch = batch
        self._ledger_id = ledger_id
        self._error = error
        self._in_store: dict[bytes, bool] = {
            batch.before.hash: False,
            batch.after.hash: True,
        }
        self._written: dict[bytes, tuple[Tip, Recovery]] = {}
        """Earlier tries at recording this, doubtful themselves."""

    def write_note(self, database: Path) -> None:
        """Leave a note for the next start: this process may be killed before `settle`.

        It is not flushed, since the disk has just failed to: a killed process's writes
        survive. On a disk that takes no note there is none.
        """
        batch = self._batch
        if batch.after is batch.before:
            return  # no event says that anything was decided
        note = _Note(
            ledger=self._ledger_id,
            first=batch.before.seq + 1,
            last=batch.after.seq,
            hash=batch.after.hash.hex(),
            error=self._error,
            tokens=_tokens(job.attempt for job in batch.jobs),
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            descriptor = os.open(note_path(database), flags, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(note))
        except OSError as error:
            log.warning("no note of the batch that failed: %s", error)

    async def settle(self, db: StoreConnection, clock: Clock) -> tuple[Tip, Recovery]:
        """Read the store, void the batch's tokens, and record both."""
        tip, stored_n = await db.run(_look, self._ledger_id)
        if tip.hash in self._written:
            return self._written[tip.hash]
        if tip.hash not in self._in_store:
            raise LedgerDamagedError(
                f"the ledger ends at {tip.seq}, which this broker did not write",
                "stop the broker and verify the ledger",
            )
        stored = self._in_store[tip.hash]
        if self._batch.after is self._batch.before:
            stored = await db.run(_state_found, self._batch)
        return await self._record(db, tip, stored_n, clock, stored=stored)

    async def _record(
        self,
        db: StoreConnection,
        tip: Tip,
        stored_n: int,
        clock: Clock,
        *,
        stored: bool,
    ) -> tuple[Tip, Recovery]:
        attempts = tuple(job.attempt for job in self._batch.jobs)
        places = self._batch.before.seq + 1, self._batch.after.seq
        tokens = _tokens(attempts)
        draft = ambiguous(tokens, places, self._error, stored=stored)
        voids = [DropToken(each) for each in tokens]
        job = Job.of([draft], voids, itertools.count(stored_n))
        batch = build(tip, [job], clock)
        recovery = Recovery(stored, attempts, batch.events[0][0])
        self._written[batch.after.hash] = batch.after, recovery
        await db.run(write, batch.statements)
        return batch.after, recovery


def ambiguous(
    tokens: Sequence[TokenId], places: tuple[int, int], error: str, *, stored: bool
) -> Draft:
    """Return the event about a batch whose commit failed.

    Args:
        tokens: those that it issued.
        places: the numbers of its first and last event, had it been written.
        error: why its commit failed.
        stored: whether it was written.

    Returns:
        the event.
    """
    return Draft(
        EventType.AUDIT_AMBIGUOUS,
        LEDGER,
        reason="batch_found" if stored else "batch_not_found",
        detail={
            "error": error,
            "first_seq": places[0],
            "last_seq": places[1],
            "tokens": len(tokens),
            "voided": list(tokens[:_NAMED]),
        },
    )


def _tokens(attempts: Iterable[Attempt]) -> list[TokenId]:
    """Return the tokens that commits issue."""
    changes = (change for attempt in attempts for change in attempt.changes)
    return [change.id for change in changes if isinstance(change, Token)]


def _look(db: sqlite3.Connection, ledger_id: str) -> tuple[Tip, int]:
    return read_tip(db, ledger_id), last_n(db)


def _state_found(db: sqlite3.Connection, batch: Batch) -> bool:
    """Check whether a batch without events is there: by its rows' own numbers."""
    return any(
        has_row(db, table, row[0] if table == "tokens" else row[-1])
        for job in batch.jobs
        for table, row in job.rows
    )


@dataclass(slots=True)
class Doubt:
    """A transaction that was sent and not answered."""

    sent: Transaction
    error: str
    refused: bool = False
    """Whether its callers have the answer that the outcome is unknown."""
    stored: Appended | None = None
    """Where it turned out to be in the store after that."""
    record: Transaction | None = None
    """The transaction of its record, while that is in doubt itself."""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Return its callers' commits."""
        return tuple(job.attempt for job in self.sent.jobs)

    def give_up(self) -> None:
        """Answer the callers that its outcome is unknown."""
        self.refused = True
        for job in self.sent.jobs:
            ids = (draft.decision_id for draft in job.attempt.drafts)
            error = OutcomeUnknownError(
                "the store was lost while it committed this",
                "ask again once it answers; what was issued meanwhile is ended",
                decision_id=next(filter(None, ids), None),
            )
            job.refuse(error)

    def make_record(self, numbers: Iterator[int]) -> Job:
        """Return the record of its outcome, which ends the undelivered tokens."""
        stored, count = self.stored, sum(len(job.prepared) for job in self.sent.jobs)
        last = stored.seq if stored else self.sent.head.tip.seq + count
        places = last - count + 1, last
        changes = [change for one in self.attempts for change in one.changes]
        tokens = [change for change in changes if isinstance(change, Token)]
        draft = ambiguous(
            _tokens(self.attempts), places, self.error, stored=stored is not None
        )
        drafts = [draft, *(map(_undelivered, tokens) if self.stored else ())]
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
