"""The tenant's store in a team's PostgreSQL, which every broker's tenant shares."""

from __future__ import annotations

import asyncio
import json
import select
import sqlite3
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC
from functools import lru_cache
from typing import Any, Final, TypeVar

import psycopg
from psycopg.rows import dict_row

from agentvault_tui.clock import Clock, SharedClock
from agentvault_tui.errors import (
    LedgerError,
    LedgerUnwritableError,
    RefusedError,
    StoreAwayError,
)
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings
from agentvault_tui.store_connection import (
    LOCAL_ONLY,
    Connection,
    Connector,
    bounded,
    close,
)
from agentvault_tui.store_url import require_library
from agentvault_tui.tenant.store import TABLES, Row, Store

_T = TypeVar("_T")
_REST: Final = 1.0
"""Seconds until a store that was away is looked for again: who asks waits for it."""
_AGREED: Final = 60.0
"""Seconds for which the machine's boot clock carries the store's time on."""
_PATH: Final = "SET search_path = pg_catalog, agentvault_tenant"
_NOW: Final = (
    "SELECT greatest(clock_timestamp(), time::timestamptz) AS now FROM agentvault.head"
)
"""The team's time; see `ledger.shared_log`."""
_LOCKED: Final = ", ".join(one for one in TABLES if one != "journal")
"""The journal is written in transactions alone, and large: a vacuum holds it longer."""
_BEGIN: Final = f"BEGIN; LOCK TABLE {_LOCKED} IN SHARE ROW EXCLUSIVE MODE"
"""The same as ``BEGIN IMMEDIATE`` in SQLite: no other writer until the end, and readers
go on. Each statement then sees all that was committed before (READ COMMITTED)."""


class TeamStore(Store):
    """One connection to the team's store, made when it is needed and after it is lost.

    The connection lives on a loop in a thread of its own, so that each call is bounded
    as a broker's are (`store_connection`). The tables are made by
    ``agentvault store prepare``.
    """

    has_own_time = True

    def __init__(self, home: Home, settings: Settings, clock: Clock) -> None:
        """Use the store of *settings*, which need not answer yet.

        No server is used from before those that the broker of *home* saw. A
        `SharedClock` is set to the store's time.

        Raises:
            SettingsError: the library for PostgreSQL is not installed.
        """
        require_library()
        self.before_close = []
        self._home = home
        self._connector = Connector(settings.store.url, settings.team.name)
        self._clock = clock
        self._db: Connection | None = None
        self._held = False
        """Whether a transaction is open, which ends with its connection."""
        self._local_only = False
        """Whether a commit may not have reached the replicas."""
        self._not_before = self._agreed = float("-inf")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="store", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close the connection, and end the thread."""
        for write in self.before_close:
            write()
        if self._db is not None:
            self._wait(close(self._db))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in one transaction, during which no other party writes.

        Raises:
            StoreAwayError: the store is away, and nothing was done.
            LedgerUnwritableError: it was lost while it committed.
        """
        self.run(_BEGIN, ())
        self._held = True
        try:
            yield
            self.run("COMMIT", ())
        except BaseException:
            with suppress(LedgerError):
                self.run("ROLLBACK", ())
            raise
        finally:
            self._held = False

    def check_may_move(self, issuer: str) -> None:
        """Refuse to serve as *issuer* if others serve as another.

        A broker says which in its heartbeat, and nothing where it serves alone.

        Raises:
            RefusedError: a broker of the team does.
        """
        rows = self.all(
            "SELECT doc FROM agentvault.brokers WHERE left(id, 4) = 'brk_'"
            " AND seen > clock_timestamp() - interval '2 seconds'"
        )
        tenants = [str(json.loads(row["doc"]).get("tenant", "")) for row in rows]
        alone = tenants.count("")
        if {*tenants} - {"", issuer} or (alone and len(tenants) > 1):
            raise RefusedError(
                f"other brokers of the team serve its tenant, not as {issuer}",
                "give all the same tenant.url",
            )

    def run(self, sql: str, values: Sequence[object]) -> tuple[list[Row], int]:
        """Run one statement; return its rows, and how many it changed or found.

        Raises:
            StoreAwayError: the store is away, and nothing was done.
            LedgerUnwritableError: no answer came, and it may have been done.
            RefusedError: the server is not this team's store.
        """
        return self._wait(self._run(sql, values))

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _run(self, sql: str, values: Sequence[object]) -> tuple[list[Row], int]:
        db = await self._connected()
        self._local_only = False
        sql = _postgres(sql) if values else sql
        work = _fetch(db, sql, [_sent(value) for value in values] or None)
        result = await bounded(db, work)
        if self._local_only:
            await close(db)
            raise LedgerUnwritableError("a commit has not reached its replicas")
        return result

    async def _connected(self) -> Connection:
        """Return the connection, made again where the server ended it."""
        db, boot = self._db, self._clock.boot()
        if db is not None and not db.closed and _readable(db):
            await close(db)  # nobody asked: the server says that it ends
        if db is None or db.closed:
            if self._held:
                raise StoreAwayError("the store was lost during a transaction")
            if boot < self._not_before:
                raise StoreAwayError("the store is away", "try again in a moment")
            try:
                self._connector.systems = _merged(
                    _seen_servers(self._home), self._connector.systems
                )
                db = self._db = await self._connector.connect()
                await bounded(db, _fetch(db, _PATH, None))
            except LedgerError:
                self._not_before = self._clock.boot() + _REST
                raise
            db.add_notice_handler(self._noticed)
            self._agreed = float("-inf")
        if isinstance(self._clock, SharedClock) and boot >= self._agreed + _AGREED:
            started = self._clock.boot()
            ((row,), _) = await bounded(db, _fetch(db, _NOW, None))
            self._agreed = self._clock.boot()
            self._clock.agree(row["now"].astimezone(UTC), started, self._agreed)
        return db

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        self._local_only = self._local_only or notice.sqlstate == LOCAL_ONLY


async def _fetch(
    db: Connection, sql: str, values: Sequence[object] | None
) -> tuple[list[Row], int]:
    async with db.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(sql, values)
        rows: list[Row] = []
        if cursor.description:
            rows.extend(await cursor.fetchall())
        return rows, cursor.rowcount


def _seen_servers(home: Home) -> list[tuple[str, int]]:
    """Return system identifier and timeline of each server that the broker used.

    They are in its copy of the ledger (`ledger.home_copy`); a new home has none yet.
    """
    if not home.database.exists():
        return []
    sql = "SELECT value FROM meta WHERE key = 'ledger copy'"
    try:
        with closing(
            sqlite3.connect(f"{home.database.as_uri()}?mode=ro", uri=True)
        ) as db:
            row = db.execute(sql).fetchone()
    except sqlite3.Error as error:
        if str(error) == "no such table: meta":
            return []  # an empty file
        what = f"the home's copy of the ledger cannot be read ({error})"
        raise StoreAwayError(what, "look at its owner and the disk") from error
    return [] if row is None else [(n, t) for n, t in json.loads(row[0])["systems"]]


def _merged(
    seen: list[tuple[str, int]], ours: list[tuple[str, int]]
) -> list[tuple[str, int]]:
    """Return the union of both, the latest last, with the latest timeline of each."""
    own = dict(ours)
    both = {name: max(line, own.pop(name, 0)) for name, line in seen}
    return [*both.items(), *own.items()]


def _readable(db: Connection) -> bool:
    return bool(select.select([db.fileno()], [], [], 0)[0])


@lru_cache
def _postgres(sql: str) -> str:
    """Translate SQLite's names into PostgreSQL's."""
    return sql.replace("%", "%%").replace("?", "%s").replace("LIMIT -1", "LIMIT ALL")


def _sent(value: object) -> object:
    """Return *value* as PostgreSQL takes it: text without NUL, flags as 0 and 1."""
    if isinstance(value, bool):
        return int(value)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
