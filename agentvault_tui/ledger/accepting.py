"""Accepting a ledger that is not the one last seen: explicit, and on the record."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import LedgerDamagedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import schema, uses
from agentvault_tui.ledger.activity import count_new
from agentvault_tui.ledger.batch import Job, build, read_tip, write
from agentvault_tui.ledger.bindings import bind
from agentvault_tui.ledger.chain import genesis, link, prepare
from agentvault_tui.ledger.headfile import Witness, read_witness, write_witness
from agentvault_tui.ledger.ledger import Ledger
from agentvault_tui.ledger.opening import (
    HomeLock,
    create_file,
    open_checked,
    read_ledger_id,
)
from agentvault_tui.ledger.records import Attempt
from agentvault_tui.ledger.schema import StoreConnection, read_home, storage_errors
from agentvault_tui.ledger.state import state_statements
from agentvault_tui.ledger.verify import columns_of
from agentvault_tui.ledger.verify_state import FullStateCheck, table_of
from agentvault_tui.model import Actor, Draft, Event, EventType
from agentvault_tui.settings import Settings

_GUARD: Final = "events_are_not_changed"
_NAMED: Final = 40
"""Rows named in the event's detail; its ``state`` has them all."""


async def accept_rollback(
    home: Home, *, clock: Clock, actor: Actor, reason: str
) -> Event:
    """Go on from the ledger as it lies there, although it is not the last one seen.

    For a copy restored on purpose. Columns that differ from the events' bodies are
    corrected, and ends of tokens whose rows are gone: the chain covers the bodies.
    Everything else that is gone stays gone: an ``audit.ambiguous`` event states the
    operator, the reason, the rows, and the expected head. The chain itself must still
    hold.

    Args:
        home: the home; no broker may run on it.
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
        with storage_errors(home.database):
            db = await StoreConnection.open(lambda: schema.open_writer(home.database))
        try:
            return await _accept(db, home, clock, actor, reason)
        finally:
            await db.close()
    finally:
        lock.release()


async def accept_store(
    home: Home, settings: Settings, *, clock: Clock, actor: Actor, reason: str
) -> Event:
    """Continue from a team's store as it is, although it lacks acknowledged events.

    The home's copy, which has them, is stored next to the new one as evidence, and a
    new one is made from the store. From then on all brokers grant again.

    Args:
        home: the home of the broker that found it; it may not run.
        settings: where the store is.
        clock: the machine's.
        actor: who accepts it.
        reason: why, for the record.

    Returns:
        the event that says so.

    Raises:
        HomeInUseError: a broker runs on this home.
        LedgerUnwritableError: the store cannot be used now.
    """
    create_file(home)
    lock = HomeLock(home.lock_file)
    try:
        expected = await asyncio.to_thread(_set_aside, home, clock)
    finally:
        lock.release()
    ledger = await Ledger.open(home, clock=clock, settings=settings)
    try:
        if ledger.shared is not None:
            await ledger.shared.set_fault(None)
            await ledger.confirm()
        detail = {
            "reason": reason,
            "found": asdict(ledger.head),
            "expected": expected,
        }
        draft = Draft(
            EventType.AUDIT_AMBIGUOUS, actor, reason="rollback_accepted", detail=detail
        )
        return (await ledger.commit(draft))[0]
    finally:
        await ledger.close()


def _set_aside(home: Home, clock: Clock) -> dict[str, object]:
    """Rename the copy, and return the last head that it or the head file knows."""
    with storage_errors(home.database), read_home(home) as db:
        head = read_tip(db, read_ledger_id(db, home.database)).head
    stamp = clock.now().strftime("%Y%m%dT%H%M%S")
    for suffix in ("", "-wal", "-shm"):
        path = Path(f"{home.database}{suffix}")
        if path.exists():
            path.rename(f"{home.database}.{stamp}{suffix}")
    expected = _expected(home) or asdict(head)
    home.head_file.unlink(missing_ok=True)
    return expected


async def _accept(
    db: StoreConnection, home: Home, clock: Clock, actor: Actor, reason: str
) -> Event:
    with storage_errors(home.database):
        mended, gone, last_n = await db.run(_restore, home, clock)
    opened = await db.run(open_checked, home, trust=True)
    head = opened.tip.head
    draft = Draft(
        EventType.AUDIT_AMBIGUOUS,
        actor,
        reason="rollback_accepted",
        detail={
            "reason": reason,
            "found": asdict(head),
            "expected": _expected(home),
            **({"columns": mended} if mended else {}),
            **({"gone": gone[:_NAMED]} if gone else {}),
        },
    )
    # Bound as removed. One in `meta` gets a row without a value, as if dropped.
    removed = [("meta", (key, None, max(last_n, opened.last_n) + 1)) for key in gone]
    prepared = tuple(prepare(*pair) for pair in bind([draft], removed))
    rows = [one for one in removed if table_of(one[1][0]) == "meta"]
    batch = build(opened.tip, [Job(prepared, rows, Attempt((draft,), ()))], clock)
    with storage_errors(home.database):
        await db.run(write, batch.statements)
    write_witness(home.head_file, Witness(opened.ledger_id, batch.after.head))
    return batch.events[0][0]


def _restore(
    db: sqlite3.Connection, home: Home, clock: Clock
) -> tuple[int, list[str], int]:
    """Correct the data that events determine: columns, counts, ends of tokens.

    Returns how many events had other columns, the keys of rows that are gone, and the
    largest number of a row that any event binds.
    """
    schema.set_up_writer(db)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != schema.VERSION:
        return 0, [], 0
    previous = genesis(read_ledger_id(db, home.database))
    wrong: list[tuple[object, ...]] = []
    state = FullStateCheck(home.database)
    state.begin(db)
    used = uses.UsesCheck()
    for seq, digest, body, *columns in db.execute(
        "SELECT seq, hash, CAST(body AS BLOB), time, type, agent_id, outcome, text"
        " FROM events ORDER BY seq"
    ):
        if link(previous, seq, body) != digest:
            raise LedgerDamagedError(
                f"event {seq} does not follow from what is before it",
                "keep the file as evidence and restore the newest copy",
            )
        value = json.loads(body)
        state.learn(seq, value)
        used.learn(db, value)
        previous, as_columns = digest, columns_of(value)
        if as_columns != tuple(columns):
            wrong.append((*as_columns, seq))
    if used.problem(db):
        with schema.transaction(db, "BEGIN IMMEDIATE"):
            uses.rebuild(db)
    if wrong:
        update = (
            "UPDATE events SET time = ?, type = ?, agent_id = ?, outcome = ?, text = ?"
            " WHERE seq = ?"
        )
        write(
            db,
            [
                (f"DROP TRIGGER IF EXISTS {_GUARD}", ()),
                *((update, row) for row in wrong),
                (schema.expected()["trigger", _GUARD], ()),
                ("DELETE FROM tally", ()),
                ("DELETE FROM activity", ()),
                ("UPDATE counted SET upto = 0", ()),
            ],
        )
        count_new(db)
    write(db, list(state_statements(state.ends())))
    return len(wrong), state.gone(db, clock), state.last_n


def _expected(home: Home) -> dict[str, object] | None:
    try:
        witness = read_witness(home.head_file)
    except LedgerDamagedError:
        return None
    return {"ledger": witness.ledger, **asdict(witness.head)} if witness else None
