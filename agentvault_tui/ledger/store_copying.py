"""Copies a whole store into an empty one: SQLite to PostgreSQL, and back.

Events are copied byte for byte, and read back and verified where they arrived. The
source stays as it is, but for a note that says where it was copied to: a broker that
went on from it would make a second truth.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final

import msgspec
import psycopg

from agentvault_tui.clock import Clock, SystemClock, iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import (
    LedgerDamagedError,
    LedgerError,
    LedgerUnwritableError,
    RefusedError,
)
from agentvault_tui.home import Home, put_private
from agentvault_tui.ledger import schema
from agentvault_tui.ledger.batch import Job, Tip, build, read_tip, write
from agentvault_tui.ledger.chain import genesis, link
from agentvault_tui.ledger.headfile import Witness, write_witness
from agentvault_tui.ledger.home_copy import followed_events, followed_statements
from agentvault_tui.ledger.journal import CutJournal
from agentvault_tui.ledger.opening import (
    PLACE,
    HomeLock,
    create_file,
    open_checked,
)
from agentvault_tui.ledger.records import Change, Head
from agentvault_tui.ledger.schema import storage_errors
from agentvault_tui.ledger.shared_log import SharedLog, StoreHead, keyed
from agentvault_tui.ledger.state import TABLES, last_n
from agentvault_tui.ledger.store_admin import store_info
from agentvault_tui.model import Actor, Draft, EventType
from agentvault_tui.store_connection import Connection, Connector, ask, close

_PATIENT: Final = 3600.0
"""Seconds that one statement of a copy may take."""
_EVENTS: Final = "SELECT seq, CAST(body AS BLOB), hash FROM events ORDER BY seq"
_FILLED: Final = (
    "UPDATE agentvault.head SET ledger = %s, seq = %s, hash = %s, time = %s,"
    " revision = 1, batch = %s, n = %s, fault = %s WHERE revision = 0"
)
Convert = Callable[[Mapping[str, str]], Sequence[Change]]
_UNFINISHED: Final = "the copy into this store was not finished"


async def copy_to_store(
    home: Home,
    connector: Connector,
    to: str,
    actor: Actor,
    *,
    copy_tenant: Callable[[], object] = lambda: None,
    convert: Convert = lambda _: (),
) -> Head:
    """Copy the ledger of *home* into an empty store.

    Wherever it breaks off, at most one of both serves: the note that keeps the source
    from serving is written before the first row, and the target is at fault until its
    last event is written.

    Args:
        home: the home of the SQLite file; no broker may run on it.
        connector: connects to the target, which is prepared for the team.
        to: the target as the event and the note name it.
        actor: who copies.
        copy_tenant: copies the embedded tenant's data there; called once nothing is
            left that refuses the copy.
        convert: returns the rows that a team has otherwise than a home, from the
            values of `Meta` by key; they are bound to the copy's event.

    Returns:
        the head of the target: its last event says that it was copied.

    Raises:
        HomeInUseError: a broker runs on the home.
        RefusedError: the target is not empty, or cuts of the source are not recorded.
        LedgerDamagedError: the source is, or the copy differs.
        LedgerUnwritableError: one of both cannot be used now.
    """
    create_file(home)
    lock = HomeLock(home.lock_file)
    try:
        with (
            storage_errors(home.database),
            closing(schema.open_writer(home.database)) as source,
        ):
            opened = open_checked(source, home, trust=False)
            _check_recorded(home, opened.ledger_id, fresh=not opened.tip.seq)
            db = await connector.connect()
            try:
                await _check_empty(db)
                await asyncio.to_thread(copy_tenant)
                note = {"to": to, "head": opened.tip.seq + 1}
                put_private(home.copied_file, to_json(note).encode(), replace=True)
                await ask(db, f"SET statement_timeout = {_PATIENT * 1000:.0f}")
                await _fill(db, source, opened.ledger_id)
                await _compare(db, source, opened.ledger_id)
            finally:
                await close(db)
            changes = convert(_values(source))
        return await _record(connector, _draft(actor, opened.tip, to), changes)
    finally:
        lock.release()


def _check_recorded(home: Home, ledger_id: str, *, fresh: bool) -> None:
    journal = CutJournal.open(home, ledger_id, expected=False, fresh=fresh)
    if journal.entries or journal.problem:
        raise RefusedError(
            "revocations of this home are not recorded",
            "start its broker once, then stop it",
        )


async def _check_empty(db: Connection) -> None:
    ((revision,),) = await ask(db, "SELECT revision FROM agentvault.head")
    if revision:
        raise _not_empty()


def _not_empty() -> RefusedError:
    return RefusedError("the target is not empty", "prepare a new database for it")


async def copy_to_home(
    connector: Connector,
    home: Home,
    actor: Actor,
    clock: Clock,
    *,
    copy_tenant: Callable[[], object] = lambda: None,
    convert: Convert = lambda _: (),
) -> Head:
    """Copy a team's store into a home without a ledger.

    Wherever it breaks off, at most one of both serves, as with `copy_to_store`.

    Args:
        connector: connects to the source; no broker may live on it.
        home: the target.
        actor: who copies.
        clock: the clock for the event about it.
        copy_tenant: copies the embedded tenant's data there.
        convert: as in `copy_to_store`, the other way.

    Returns:
        the head of the target: its last event says that it was copied.

    Raises:
        HomeInUseError: a broker runs on the home.
        RefusedError: the target is not empty, or a broker lives on the source.
        LedgerDamagedError: the source's chain does not verify.
        LedgerUnwritableError: one of both cannot be used now.
    """
    info = await store_info(connector)
    if info.live:
        raise RefusedError(
            f"{len(info.live)} brokers live on the store: {', '.join(info.live)}",
            "stop them first: what they write now would be missing",
        )
    create_file(home)
    lock, shared, path = HomeLock(home.lock_file), _log(connector), home.database
    try:
        if path.stat().st_size:
            raise RefusedError(f"{path} is there", "name a folder without a ledger")
        try:
            await shared.mark_copied(str(path))
            head = await _make(home, shared, info.ledger, (actor, convert), clock)
            await asyncio.to_thread(copy_tenant)
        except BaseException:
            path.unlink()  # half a copy would be taken for a whole one
            with suppress(LedgerError):  # else it says so, and takes --again
                await shared.mark_copied(None)
            raise
        # The chain tells of starts with a journal: one that is missing stops all.
        CutJournal.open(home, info.ledger, expected=False, fresh=True)
        write_witness(home.head_file, Witness(info.ledger, head))
        return head
    finally:
        await shared.close()
        lock.release()


async def read_into(connector: Connector, home: Home) -> None:
    """Read a team's store into a home that no broker uses, to be verified there.

    Args:
        connector: connects to the store; brokers may live on it.
        home: a home without a ledger.

    Raises:
        LedgerDamagedError: the store's chain does not verify.
        LedgerUnwritableError: one of both cannot be used now.
    """
    create_file(home)
    shared = _log(connector)
    path = home.database
    try:
        ledger_id, _ = await shared.ledger_id()
        with storage_errors(path), closing(schema.open_writer(path)) as db:
            tip = await _read(db, home, shared, ledger_id)
        write_witness(home.head_file, Witness(ledger_id, tip.head))
    finally:
        await shared.close()


async def _read(
    db: sqlite3.Connection, home: Home, shared: SharedLog, ledger_id: str
) -> Tip:
    """Write all of the store into an empty file."""
    opened = open_checked(db, home, trust=True, ledger_id=ledger_id)
    head, complete = StoreHead(opened.tip, 0, ""), False
    while not complete:
        followed = await shared.follow(head, _PATIENT)
        events = followed_events(followed)
        write(db, followed_statements(head, followed, events, []))
        head, complete = followed.head, followed.complete
    write(db, [("DELETE FROM meta WHERE key = ?", (PLACE,))])
    return head.tip


def _log(connector: Connector) -> SharedLog:
    return SharedLog(connector, "copy", 1, SystemClock())


async def _make(
    home: Home,
    shared: SharedLog,
    ledger_id: str,
    made: tuple[Actor, Convert],
    clock: Clock,
) -> Head:
    """Make the file of *home* from the store, and record that it was."""
    path = home.database
    with storage_errors(path), closing(schema.open_writer(path)) as db:
        tip = await _read(db, home, shared, ledger_id)
        actor, convert = made
        drafts, numbers = (
            [_draft(actor, tip, str(path))],
            itertools.count(last_n(db) + 1),
        )
        job = Job.of(drafts, convert(_values(db)), numbers)
        batch = build(tip, [job], clock)
        write(db, batch.statements)
    return batch.after.head


def _draft(actor: Actor, tip: Tip, to: str) -> Draft:
    detail = {"events": tip.seq, "head": tip.head.hash, "to": to}
    return Draft(EventType.STORE_COPIED, actor, detail=detail)


async def _fill(db: Connection, source: sqlite3.Connection, ledger_id: str) -> None:
    """Write all of *source* in one transaction: it arrives whole, or not at all."""
    tip = read_tip(source, ledger_id)
    time = None if tip.time is None else iso(tip.time)
    place = (ledger_id, tip.seq, tip.hash, time)
    values = (*place, uuid.uuid4(), last_n(source), _UNFINISHED)
    try:
        async with db.transaction(), db.cursor() as cursor:
            await cursor.execute(_FILLED, values)
            if cursor.rowcount != 1:
                raise _not_empty()
            sql = "COPY agentvault.events FROM STDIN (FORMAT BINARY)"
            async with cursor.copy(sql) as copy:
                copy.set_types(["int8", "bytea", "bytea"])
                for row in source.execute(_EVENTS):
                    await copy.write_row(row)
            sql = (
                "COPY agentvault.state (kind, key, n, revision, expires, doc)"
                " FROM STDIN (FORMAT BINARY)"
            )
            async with cursor.copy(sql) as copy:
                copy.set_types(["text", "text", "int8", "int8", "text", "bytea"])
                for table, row in _rows(source):
                    key, n, ends = keyed(table, row)
                    doc = to_json(row).encode()
                    await copy.write_row((table, key, n, 1, ends, doc))
    except (psycopg.Error, OSError) as error:
        raise _broken_off(error) from error


def _broken_off(error: Exception) -> LedgerUnwritableError:
    return LedgerUnwritableError(
        f"the copy may not have arrived ({type(error).__name__}): neither serves",
        "copy again into a newly prepared database, or go on here: agentvault serve"
        " --again",
    )


def _values(db: sqlite3.Connection) -> dict[str, str]:
    """Return the values of `Meta` rows, by key."""
    rows = db.execute("SELECT key, value FROM meta WHERE key LIKE 'app:%'")
    return {key.removeprefix("app:"): value for key, value in rows}


def _rows(source: sqlite3.Connection) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield every row of the state, but the file's own."""
    for table in TABLES:
        own = f" WHERE key NOT IN ('ledger', '{PLACE}')" if table == "meta" else ""
        for row in source.execute(f"SELECT * FROM {table}{own}"):  # noqa: S608 - constants
            yield table, row


async def _compare(db: Connection, source: sqlite3.Connection, ledger_id: str) -> None:
    """Read back the copy: the chain, and the rows."""
    tip = read_tip(source, ledger_id)
    seq, previous = 0, genesis(ledger_id)
    sql = "COPY (SELECT seq, body, hash FROM agentvault.events ORDER BY seq) TO STDOUT"
    async with db.cursor() as cursor, cursor.copy(f"{sql} (FORMAT BINARY)") as copy:
        copy.set_types(["int8", "bytea", "bytea"])
        async for number, body, digest in copy.rows():
            seq += 1
            if number != seq or link(previous, number, body) != digest:
                break
            previous = digest
    arrived = set()
    sql = "COPY (SELECT kind, doc FROM agentvault.state) TO STDOUT (FORMAT BINARY)"
    async with db.cursor() as cursor, cursor.copy(sql) as copy:
        copy.set_types(["text", "bytea"])
        async for table, doc in copy.rows():
            arrived.add((table, tuple(msgspec.json.decode(doc))))
    if (seq, previous) != (tip.seq, tip.hash) or arrived != set(_rows(source)):
        raise LedgerDamagedError(
            f"what arrived is not the same: it is right up to event {seq}",
            "verify the source, agentvault audit verify; then prepare a new database",
        )


async def _record(
    connector: Connector, draft: Draft, changes: Sequence[Change]
) -> Head:
    """Write the first event of the target that the source has not; then it serves."""
    shared = _log(connector)
    try:
        end = await shared.end()
        job = Job.of([draft], changes, itertools.count(end.n + 1))
        placed = await shared.append(end, [job], str(uuid.uuid4()), urgent=True)
        if placed.outcome != "placed":
            raise RefusedError("a broker wrote to the target already", "look at both")
        await shared.set_fault(None)
        return Tip(placed.seq, placed.hash, placed.time).head
    except LedgerUnwritableError as error:
        raise _broken_off(error) from error
    finally:
        await shared.close()
