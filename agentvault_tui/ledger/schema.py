"""The database file: its tables, its version, and how connections to it are opened."""
# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar, cast

import aiosqlite

from agentvault_tui.errors import (
    LedgerDamagedError,
    LedgerError,
    LedgerUnwritableError,
)
from agentvault_tui.home import Home
from agentvault_tui.ledger import uses

log = logging.getLogger(__name__)
APPLICATION_ID: Final = 0x41475654
"""``AGVT``, in the file's header."""
VERSION: Final = 6
_TRANSIENT: Final = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_FULL",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
    "SQLITE_PERM",
)
_LISTED: Final = 5
"""Changes of the file's own tables that are named; the others are counted."""
PAGE: Final = 1024
"""Bytes a page of a new file has. A commit writes every page it touches whole: with
4,096 it wrote twice as much."""
LOG_BYTES: Final = 8 * 1024 * 1024
"""The log's form on disk once it has been moved into the database."""
BUSY_SECONDS: Final = 1.0
"""How long the writer waits for another process before it gives up (503)."""

_TABLES: Final = """
CREATE TABLE meta (
  key TEXT PRIMARY KEY, value TEXT, n INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, time TEXT NOT NULL, type TEXT NOT NULL,
  agent_id TEXT, outcome TEXT, text TEXT NOT NULL,
  body TEXT NOT NULL, hash BLOB NOT NULL
);
CREATE INDEX events_by_agent ON events (agent_id, type, outcome);
CREATE INDEX events_by_type ON events (type, outcome);
CREATE TABLE eras (
  first_seq INTEGER PRIMARY KEY
);
CREATE TABLE tally (
  agent_id TEXT NOT NULL, type TEXT NOT NULL, outcome TEXT NOT NULL,
  events INTEGER NOT NULL, seen TEXT,
  PRIMARY KEY (agent_id, type, outcome)
) WITHOUT ROWID;
CREATE TABLE activity (
  agent_id TEXT NOT NULL, facet TEXT NOT NULL, value TEXT NOT NULL,
  outcome TEXT NOT NULL, events INTEGER NOT NULL, last TEXT NOT NULL,
  PRIMARY KEY (agent_id, facet, value, outcome)
) WITHOUT ROWID;
CREATE TABLE counted (upto INTEGER NOT NULL);
CREATE TABLE agents (
  id TEXT PRIMARY KEY, doc TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE tokens (
  n INTEGER PRIMARY KEY, id TEXT NOT NULL, agent_id TEXT NOT NULL,
  expires TEXT NOT NULL, doc TEXT NOT NULL, seq INTEGER NOT NULL
);
CREATE TABLE dropped (
  id TEXT PRIMARY KEY, n INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE voided (
  agent_id TEXT PRIMARY KEY, n INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE stepups (
  id TEXT PRIMARY KEY, status TEXT NOT NULL, agent_id TEXT NOT NULL,
  action TEXT NOT NULL, decided TEXT, doc TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX stepups_by_status ON stepups (status, n);
CREATE INDEX stepups_by_kind ON stepups (agent_id, action, decided);
CREATE TABLE outbox (
  id TEXT PRIMARY KEY, status TEXT NOT NULL, doc TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER events_are_appended BEFORE INSERT ON events
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
BEGIN SELECT RAISE(ABORT, 'events are only ever appended'); END;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
"""
# `counted.upto` is the last event that tally and activity count, `tokens.seq` the event
# that binds the row. The first trigger also stops INSERT OR REPLACE: it fires before
# the conflict is resolved, while the DELETE trigger needs recursive_triggers.
_TEXTS: Final = """
CREATE TABLE texts (
  sha256 TEXT PRIMARY KEY, text TEXT NOT NULL, n INTEGER NOT NULL
) WITHOUT ROWID;
"""
_CURRENT: Final = _TABLES + _TEXTS + uses.TABLES
UPGRADED: Final = {
    4: _TABLES,
    5: _TABLES
    + _TEXTS
    + "CREATE INDEX events_counted ON events (seq)"
    + " WHERE instr(body, '\"counted\":{') > 0;",
}
"""The versions that a start brings up to date, and their tables."""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the one connection that writes; the file exists, with mode 0600."""
    # DEFERRED to nothing: transactions are spelled out. Threads are aiosqlite's care.
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=256
    )


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
    )
    try:
        harden(db)
        db.execute("PRAGMA query_only = ON")
    except BaseException:
        db.close()
        raise
    return db


def harden(db: sqlite3.Connection) -> None:
    """Trust nothing the file says about how to read it."""
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        db.execute(f"PRAGMA {pragma}")


def set_up_writer(db: sqlite3.Connection) -> None:
    """Make every commit durable before it returns, and leave checkpoints to `writer`.

    SQLite before 3.51.3 can lose a commit when two connections checkpoint and reset
    the log at once.
    """
    harden(db)
    db.execute(f"PRAGMA page_size = {PAGE}")  # of a file that is empty yet
    db.execute("PRAGMA journal_mode = WAL")
    for pragma in (
        "synchronous = FULL",
        f"journal_size_limit = {LOG_BYTES}",
        # Else a statement for many rows keeps the pages it changes in a file, too.
        "temp_store = MEMORY",
        # The newest page of each agent's part of the index stays in memory.
        "cache_size = -32768",
        "wal_autocheckpoint = 0",
        "foreign_keys = ON",
        "secure_delete = ON",
        "recursive_triggers = ON",
    ):
        db.execute(f"PRAGMA {pragma}")


def reopen(db: sqlite3.Connection, path: Path) -> None:
    """Set up a new writing connection to a file that has its tables."""
    set_up_writer(db)
    check_schema(db, path)


def prepare_schema(db: sqlite3.Connection, path: Path, ledger_id: str) -> None:
    """Create the tables in an empty file, or bring older ones up to date.

    Raises:
        LedgerDamagedError: the file is not a ledger, or its tables are not ours.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables == 0:
        db.executescript(
            f"BEGIN IMMEDIATE; {_CURRENT}"
            f"PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {VERSION};"
            f"INSERT INTO meta VALUES ('ledger', '{ledger_id}', 0);"
            "INSERT INTO counted VALUES (0); COMMIT;"
        )
    elif application == APPLICATION_ID and version in UPGRADED:
        _refuse_changes(db, path, UPGRADED[version])
        log.warning("%s: its schema %s is brought up to date, once", path, version)
        with transaction(db, "BEGIN IMMEDIATE"):
            _upgrade(db, version)
    check_schema(db, path)


def _upgrade(db: sqlite3.Connection, version: int) -> None:
    """Add the parts that an older version lacks, inside of a transaction."""
    lacks = uses.TABLES if version > min(UPGRADED) else _TEXTS + uses.TABLES
    for statement in filter(None, map(str.strip, lacks.split(";"))):
        db.execute(statement)
    db.execute("DROP INDEX IF EXISTS events_counted")
    uses.rebuild(db)
    db.execute(f"PRAGMA user_version = {VERSION}")


def check_schema(db: sqlite3.Connection, path: Path) -> None:
    """Check that every table, index and trigger is there, word for word."""
    check_version(db, path)
    _refuse_changes(db, path, _CURRENT)


def _refuse_changes(db: sqlite3.Connection, path: Path, tables: str) -> None:
    if changed := changes(db, tables):
        raise LedgerDamagedError(
            f"{changed} in {path}", "keep the file as evidence and restore a copy"
        )


def check_version(db: sqlite3.Connection, path: Path) -> None:
    """Check that the file is a ledger of this version."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION_ID and version > VERSION:
        raise LedgerDamagedError(
            f"{path} was written by a newer AgentVault (schema {version}, "
            f"this one knows {VERSION})",
            "upgrade AgentVault, or use another home",
        )
    if application == APPLICATION_ID and version in UPGRADED:
        raise LedgerDamagedError(
            f"{path} was written by an older AgentVault (schema {version})",
            "start the broker once, agentvault serve: it brings the file up to date",
        )
    if application == APPLICATION_ID and 0 < version < VERSION:
        raise LedgerDamagedError(
            f"{path} was written by an AgentVault from before 0.1 (schema {version}, "
            f"this one knows {VERSION})",
            "keep the file for its record, and use another home",
        )
    if application != APPLICATION_ID or version != VERSION:
        raise LedgerDamagedError(
            f"{path} is not an AgentVault ledger", "restore it, or use another home"
        )


def changes(db: sqlite3.Connection, tables: str = _CURRENT) -> str | None:
    """Say which tables, indexes and triggers are gone, changed or added."""
    right, definitions = expected(tables), _definitions(db)
    differences = [
        f"the {kind} {name} "
        + ("is gone" if now is None else "was changed" if was else "was added")
        for kind, name in sorted(right | definitions)
        if (was := right.get((kind, name))) != (now := definitions.get((kind, name)))
    ]
    more = (
        [f"and {len(differences) - _LISTED} more"] if len(differences) > _LISTED else []
    )
    return ", ".join(differences[:_LISTED] + more) or None


def expected(tables: str = _CURRENT) -> dict[tuple[str, str], str]:
    """Return the statements that make our tables, indexes and triggers."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(tables)
        return _definitions(db)


def _definitions(db: sqlite3.Connection) -> dict[tuple[str, str], str]:
    rows = db.execute(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_master"
        " WHERE name NOT LIKE 'sqlite_%'"
    )
    return {(kind, name): sql for kind, name, sql in rows}


@contextmanager
def read_home(home: Home) -> Iterator[sqlite3.Connection]:
    """Yield a connection that reads a home's ledger, also while a broker runs."""
    path = home.database
    with storage_errors(path), closing(open_reader(path)) as db:
        check_schema(db, path)
        yield db


@contextmanager
def transaction(db: sqlite3.Connection, begin: str = "BEGIN") -> Iterator[None]:
    """Run a block as one transaction, or read in one snapshot."""
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back by itself already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Raise a file's fault as a LedgerError with a remedy."""
    try:
        yield
    except LedgerError:
        raise
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith((*_TRANSIENT, "SQLITE_IOERR")):
            raise LedgerUnwritableError(
                f"{path} cannot be used now ({error})",
                "check free space, modes, and for other programs that use it",
            ) from error
        raise LedgerDamagedError(
            f"{path} is damaged ({error})",
            "keep it as evidence and restore the newest copy",
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Whoever changed a row may have changed it to any type: none is trusted.
        raise LedgerDamagedError(
            f"{path} is damaged ({error!r:.100})",
            "keep it as evidence and restore the newest copy",
        ) from error


# At debug level it would log every statement with its values, agents' texts among them.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoreConnection(aiosqlite.Connection):
    """A connection whose thread can run a function of ours.

    A batch of statements then costs one hop to the thread and back.
    """

    @classmethod
    async def open(cls, connector: Callable[[], sqlite3.Connection]) -> StoreConnection:
        """Start the thread and connect in it."""
        connection = cls(connector, iter_chunk_size=64)
        try:
            await connection
        except BaseException:
            # aiosqlite has told its thread to stop; see that it has, before the loop
            # it would report to is gone.
            await asyncio.to_thread(connection._thread.join)
            raise
        return connection

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run *function* in the thread, with the sqlite3 connection first."""
        result = await self._execute(  # type: ignore[no-untyped-call]
            function, self._conn, *args, **kwargs
        )
        return cast("_T", result)
