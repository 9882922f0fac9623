"""Opens the ledger of a broker that shares its log with others."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from agentvault_tui.clock import Clock
from agentvault_tui.errors import (
    AgentVaultError,
    LedgerDamagedError,
    LedgerUnwritableError,
    RefusedError,
    SettingsError,
)
from agentvault_tui.home import Home, put_private
from agentvault_tui.ledger.chain import written
from agentvault_tui.ledger.headfile import read_witness
from agentvault_tui.ledger.home_copy import read_place
from agentvault_tui.ledger.opening import Opened, copied_elsewhere, open_checked
from agentvault_tui.ledger.places import hash_at
from agentvault_tui.ledger.postgres_store import PostgresStore
from agentvault_tui.ledger.schema import StoreConnection, storage_errors
from agentvault_tui.ledger.shared_log import SharedLog, StoreHead
from agentvault_tui.ledger.sqlite_store import LedgerFile
from agentvault_tui.ledger.writer import Listeners, Writer
from agentvault_tui.model import EventType, new_id
from agentvault_tui.settings import Settings
from agentvault_tui.store_connection import Connector

_FIRST_COPY_SECONDS = 600.0
"""How long each part of a first copy may take."""


async def open_team(
    db: StoreConnection,
    home: Home,
    settings: Settings,
    clock: Clock,
    listeners: Listeners,
    *,
    undo: AsyncExitStack,
    again: bool,
) -> tuple[Opened, PostgresStore]:
    """Open this home's copy of the team's store, and make it up to its head.

    A store that is away leaves the copy as it is; one that lacks events this home
    acknowledged is a fault. Under both nothing is granted and reading works. A store
    that was copied elsewhere is used only *again*.

    Raises:
        SettingsError: the team has no name.
        RefusedError: the store is not this team's, or not fit for use, or never had
            events that this home's ledger has.
        LedgerUnwritableError: there is no copy yet, and the store is away.
    """
    if not settings.team.name:
        raise SettingsError(
            "store.url is set and team.name is not",
            "give the name that the store was prepared for",
        )
    connector = Connector(settings.store.url, settings.team.name)
    shared = SharedLog(connector, broker_id(home), settings.store.pool, clock)
    undo.push_async_callback(shared.close)
    opened, head, away = await _open(db, home, connector, shared, again=again)
    writer = Writer(head.tip, head.n, listeners)
    file = LedgerFile(db, home.database, opened.ledger_id, clock)
    store = PostgresStore(writer, file, shared, head)
    try:
        if away is not None:
            raise away
        await store.open(_FIRST_COPY_SECONDS)
        with storage_errors(home.database):
            index = await db.run(_check_acknowledged, home, opened.ledger_id)
        opened = replace(opened, index=index)
    except (LedgerUnwritableError, LedgerDamagedError) as error:
        await _refuse_apart(db, shared, head, error)
        await store.start_without(error)
    return opened, store


async def _open(
    db: StoreConnection,
    home: Home,
    connector: Connector,
    shared: SharedLog,
    *,
    again: bool,
) -> tuple[Opened, StoreHead, LedgerUnwritableError | None]:
    opened, away = None, None
    if home.database.stat().st_size:
        opened = await db.run(open_checked, home, trust=True)
        _, connector.systems = await db.run(read_place, opened.ledger_id)
    try:
        if again:
            await shared.mark_copied(None)
        ledger_id, copied = await shared.ledger_id()
        if copied is not None:
            raise RefusedError(*copied_elsewhere(copied))
    except LedgerUnwritableError as error:
        if opened is None:
            what = f"this home has no copy of the team's store yet, and {error.what}"
            raise LedgerUnwritableError(what, error.remedy) from None
        ledger_id, away = opened.ledger_id, error
    if opened is None:
        opened = await db.run(open_checked, home, trust=True, ledger_id=ledger_id)
    if opened.ledger_id != ledger_id:
        raise RefusedError(
            f"this home has another ledger than the store: {opened.ledger_id}"
            f" and {ledger_id}",
            "use a new home, or copy its ledger into an empty store:"
            " agentvault store copy --to URL",
        )
    # What the copy lacks after a power cut is in the store.
    await db.run(lambda raw: raw.execute("PRAGMA synchronous = NORMAL"))
    head, _ = await db.run(read_place, ledger_id)
    return opened, head, away


async def _refuse_apart(
    db: StoreConnection, shared: SharedLog, head: StoreHead, error: AgentVaultError
) -> None:
    """Refuse a home whose ledger went on by itself: then the store has lost nothing.

    Only an *error* that is damage is looked into; *head* is the place that the file was
    completed to before it was opened.

    Raises:
        RefusedError: the file is no copy of the store (``serve --again``, or a restore
            after which another store was used), or was restored into another one.
    """
    if not isinstance(error, LedgerDamagedError):
        return
    if head.revision or not head.tip.seq:
        sql = "SELECT seq, hash FROM events WHERE type = ? ORDER BY seq DESC LIMIT 1"
        kind = (EventType.LEDGER_RESTORED.value,)
        restored = await db.run(lambda raw: raw.execute(sql, kind).fetchall())
        if not restored or await shared.contains(*restored[0]):
            return
    raise RefusedError(
        f"this home's ledger went on apart from the store: {error.what}",
        "use a new home for this store, or give this ledger an empty one:"
        " agentvault store copy --to URL",
    )


def _check_acknowledged(
    db: sqlite3.Connection, home: Home, ledger_id: str
) -> str | None:
    """See that the chain has the last head that this home acknowledged.

    Returns:
        the digest of the text index that was left with it, if there is one.
    """
    witness = read_witness(home.head_file)
    if witness is None or witness.ledger != ledger_id:
        return None
    recorded = hash_at(db, ledger_id, witness.head.seq)
    if recorded is None or written(recorded) != witness.head.hash:
        raise LedgerDamagedError(
            f"the store's chain does not contain event {witness.head.seq}, which this"
            " broker acknowledged",
            "find out what was lost; accept it on the record:"
            " agentvault audit accept --reason WHY",
        )
    return witness.index


def broker_id(home: Home) -> str:
    """Return the name of this home's broker in its team, made at the first use."""
    path = home.broker_id_file
    if not path.exists():
        with suppress(FileExistsError):
            put_private(path, f"{new_id('brk')}\n".encode(), replace=False)
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise AgentVaultError(
            f"{path} cannot be read ({error})", "restore its owner and mode"
        ) from None
