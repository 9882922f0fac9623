"""Accepting a ledger that is not the one last seen: explicit, and on the record."""

from __future__ import annotations

from itertools import count

from agentvault_tui.clock import Clock
from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import schema
from agentvault_tui.ledger.batch import Job, build, write
from agentvault_tui.ledger.headfile import Witness, read_witness, write_witness
from agentvault_tui.ledger.opening import HomeLock, create_file, foreseen, open_checked
from agentvault_tui.ledger.schema import WriterConnection
from agentvault_tui.model import Actor, Draft, Event, EventType


async def accept_rollback(
    home: Home, *, clock: Clock, actor: Actor, reason: str
) -> Event:
    """Go on from the ledger as it lies there, although it is not the last one seen.

    For a copy restored on purpose. What is lost stays lost: an ``audit.ambiguous``
    event says who accepted it, why, and which head was expected. The chain itself
    must still hold.

    Args:
        home: whose ledger; no broker may run on it.
        clock: the only source of now.
        actor: who accepts it.
        reason: why, for the record.

    Returns:
        the event that says so.

    Raises:
        HomeInUseError: a broker runs on this home.
        LedgerDamagedError: the ledger is not just older, but broken.
    """
    create_file(home)
    lock = HomeLock(home.lock_file)
    try:
        with foreseen(home.database):
            db = await WriterConnection.open(lambda: schema.open_writer(home.database))
        try:
            return await _accept(db, home, clock, actor, reason)
        finally:
            await db.close()
    finally:
        lock.release()


async def _accept(
    db: WriterConnection, home: Home, clock: Clock, actor: Actor, reason: str
) -> Event:
    opened = await db.run(open_checked, home, clock, trust=True)
    found = opened.tip.head
    draft = Draft(
        EventType.AUDIT_AMBIGUOUS,
        actor,
        reason="rollback_accepted",
        detail={
            "reason": reason,
            "found": {"seq": found.seq, "hash": found.hash},
            "expected": _expected(home),
        },
    )
    batch = build(opened.tip, [Job.of([draft], [], count())], clock)
    with foreseen(home.database):
        await db.run(write, batch.statements)
    write_witness(home.head_file, Witness(opened.ledger_id, batch.after.head))
    return batch.events[0][0]


def _expected(home: Home) -> dict[str, object] | None:
    try:
        witness = read_witness(home.head_file)
    except LedgerDamagedError:
        return None
    if witness is None:
        return None
    head = witness.head
    return {"ledger": witness.ledger, "seq": head.seq, "hash": head.hash}
