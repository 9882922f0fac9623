"""Connections to a team's PostgreSQL: each examined before use, each call bounded.

A server that is stopped answers nothing, so every call gives up by itself. One that is
a replica, an earlier timeline, or confirms before a commit is on disk is never used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection

from agentvault_tui.errors import (
    LedgerUnwritableError,
    RefusedError,
    SettingsError,
    StoreAwayError,
)
from agentvault_tui.store_url import password_file, store_parameters
from agentvault_tui.trusted_files import check_named_file

Connection = AsyncConnection[tuple[Any, ...]]
_T = TypeVar("_T")
_FILES: Final = {"sslrootcert", "sslcrl", "sslcert", "sslkey", "passfile"}
"""Parameters of a store's URL that name files."""
VERSION: Final = 1
"""Of the schema; a broker of version N works on N and N + 1, which only added."""
CALL_SECONDS: Final = 1.8
"""How long one call may take: others write again within 2 s whatever one does."""
_CONNECT_SECONDS: Final = 2
_OLDEST: Final = 150_000
RESTORE: Final = "SET statement_timeout = 1500"
_SESSION: Final = (
    f"{RESTORE}; SET lock_timeout = 1000;"
    " SET idle_in_transaction_session_timeout = 1000;"
    " SET client_connection_check_interval = 500; SET search_path = pg_catalog"
)
LOCAL_ONLY: Final = "01000"
"""PostgreSQL's warning that a commit waits for its replicas no more."""
_UNKNOWN: Final = ("08", "57P", "40003")
"""SQLSTATEs after which a commit may have happened: the connection or server ended."""
_EXAMINE: Final = """
SELECT pg_is_in_recovery(), current_setting('synchronous_commit'),
  current_setting('transaction_read_only'), pg_backend_pid(),
  (SELECT system_identifier FROM pg_control_system()),
  CASE WHEN pg_is_in_recovery() THEN '0'
    ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
  to_regclass('agentvault.head') IS NOT NULL
"""


class Connector:
    """Connects to one store, and remembers which servers answered.

    Attributes:
        team: the team the store must be prepared for.
        systems: system identifier and timeline of each server that was used, the
            latest last; none before it is used again.
    """

    def __init__(self, url: str, team: str) -> None:
        """Connect to the store at *url*, which was checked, for *team*."""
        self.team = team
        self.systems: list[tuple[str, int]] = []
        self._parameters = store_parameters(url)

    @property
    def database(self) -> str:
        """The database's name."""
        return str(self._parameters.get("dbname") or self.user)

    @property
    def user(self) -> str:
        """Return whom PostgreSQL knows this broker as."""
        return self._parameters["user"]

    async def connect(self) -> Connection:
        """Return a connection to the primary, with the team's schema.

        Raises:
            RefusedError: the server is not this team's store, and never will be.
            StoreAwayError: nothing usable answers now.
        """
        db = await self.open()
        try:
            await self._examine(db)
        except LedgerUnwritableError as error:
            await close(db)
            raise StoreAwayError(error.what, error.remedy) from None
        except BaseException:
            await close(db)
            raise
        return db

    async def open(self) -> Connection:
        """Return a connection to whatever answers, not examined yet.

        Raises:
            StoreAwayError: nothing does.
        """
        parameters: dict[str, Any] = dict(self._parameters)
        await asyncio.to_thread(_check_files, parameters)
        if (path := password_file()) is not None:
            parameters["password"] = await asyncio.to_thread(_password, path)
        if "," in parameters["host"]:
            parameters.setdefault("target_session_attrs", "read-write")
            # In order, an old primary that is back would hide the promoted one.
            parameters.setdefault("load_balance_hosts", "random")
        try:
            async with asyncio.timeout(2 * _CONNECT_SECONDS):
                db = await AsyncConnection.connect(
                    **parameters,
                    autocommit=True,
                    application_name="agentvault",
                    connect_timeout=_CONNECT_SECONDS,
                    tcp_user_timeout=2000,
                    keepalives_idle=2,
                    keepalives_interval=1,
                    keepalives_count=2,
                )
            # From here on `ask` closes it, whatever happens.
            await ask(db, _SESSION)
        except (psycopg.Error, OSError, LedgerUnwritableError) as error:
            raise StoreAwayError(
                f"the store cannot be reached ({_line(error)})",
                "nothing is granted until it answers",
            ) from None
        return db

    async def _examine(self, db: Connection) -> None:
        ((replica, confirms, read_only, pid, system, timeline, there),) = await ask(
            db, _EXAMINE
        )
        self.check_server(db)
        if pid != db.info.backend_pid:
            await self._refuse_pooling(db)
        if replica:
            raise LedgerUnwritableError(
                "the store is a replica, not the primary",
                "name the primary, or all of them with target_session_attrs=read-write",
            )
        if read_only == "on":
            raise LedgerUnwritableError("the store is read-only", "let it be written")
        if confirms not in {"on", "remote_apply"}:
            raise RefusedError(
                "the store confirms commits before they are durable"
                f" (synchronous_commit = {confirms})",
                "set it to on, for the role, the database or the server",
            )
        if not there:
            raise RefusedError(
                "the store has no schema of AgentVault", "agentvault store prepare"
            )
        await self.check_schema(db)
        self._know(str(system), int(timeline, 16))

    def check_server(self, db: Connection) -> None:
        """Refuse a PostgreSQL that is too old.

        Raises:
            RefusedError: it is.
        """
        version = db.info.server_version
        if version < _OLDEST:
            raise RefusedError(
                f"the store is PostgreSQL {version // 10_000}",
                "AgentVault needs 15 or later",
            )

    async def check_schema(self, db: Connection) -> None:
        """Refuse the schema of another team, or of a version that is not ours.

        Raises:
            RefusedError: it is.
        """
        sql = "SELECT version, team FROM agentvault.head"
        ((version, team),) = await ask(db, sql)
        if team != self.team:
            raise RefusedError(
                f"the store is the one of the team '{team:.80}',"
                f" and team.name is '{self.team:.80}'",
                "correct team.name, or use another database",
            )
        if version not in {VERSION, VERSION + 1}:
            raise RefusedError(
                f"the store has schema {version}, and this AgentVault works on"
                f" {VERSION} and {VERSION + 1}",
                "agentvault store prepare"
                if version < VERSION
                else "upgrade AgentVault on this machine",
            )

    def _know(self, system: str, timeline: int) -> None:
        """Remember the server, unless a later one was seen."""
        seen = dict(self.systems)
        last = self.systems[-1] if self.systems else (system, 0)
        if (system in seen and system != last[0]) or timeline < seen.get(system, 0):
            raise LedgerUnwritableError(
                f"the store answers from timeline {timeline} of {system}, and a later"
                f" one was seen: {last[1]} of {last[0]}",
                "point store.url at the promoted server; keep the old one stopped",
            )
        if last != (system, timeline):
            others = [one for one in self.systems if one[0] != system]
            self.systems = [*others, (system, timeline)]

    async def _refuse_pooling(self, db: Connection) -> None:
        """Refuse a proxy that gives each transaction another server connection.

        In session mode two clients of PgBouncer hold two servers; in transaction mode
        an idle one goes to the next client (pgbouncer.org, ``pool_mode``).
        """
        other = await self.open()
        sql, seen = "SELECT pg_backend_pid()", []
        try:
            for each in (db, other) * 4:
                seen += await ask(each, sql)
        finally:
            await close(other)
        if len({*seen[::2]}) > 1 or not {*seen[::2]}.isdisjoint(seen[1::2]):
            raise RefusedError(
                "the store is behind a proxy that pools transactions",
                "let it pool sessions: pool_mode = session",
            )


async def ask(
    db: Connection, sql: str, values: Any = None, seconds: float = CALL_SECONDS
) -> list[tuple[Any, ...]]:
    """Run one statement, and give up on a server that does not answer.

    Args:
        db: the connection; closed unless this succeeds.
        sql: the statement, with placeholders.
        values: theirs.
        seconds: how long it may take.

    Returns:
        the rows, if it has any.

    Raises:
        StoreAwayError: the server refused it, and nothing of it was done.
        LedgerUnwritableError: it had no answer: its outcome is unknown.
    """
    return await bounded(db, _run(db, sql, values), seconds)


async def bounded(
    db: Connection, work: Coroutine[Any, Any, _T], seconds: float = CALL_SECONDS
) -> _T:
    """Await *work* on a connection, and give up on a server that does not answer.

    Cancelling would first ask the server to cancel, which one that is stopped never
    does: the socket is shut instead.

    Args:
        db: the connection; closed unless this succeeds.
        work: the function that runs a statement there.
        seconds: how long it may take.

    Raises:
        StoreAwayError: the server refused it, and nothing of it was done.
        LedgerUnwritableError: it had no answer: its outcome is unknown.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        shut(db)
        await asyncio.wait({task})
        task.exception()
        await close(db)
        raise
    if not done:
        shut(db)
        await asyncio.wait({task})
    try:
        return task.result()
    except (psycopg.Error, OSError) as error:
        await close(db)
        state = getattr(error, "sqlstate", None)
        refused = state is not None and not state.startswith(_UNKNOWN)
        raise (StoreAwayError if refused else LedgerUnwritableError)(
            f"the store does not answer ({_line(error)})",
            "nothing is granted until it does",
        ) from None


async def _run(db: Connection, sql: str, values: Any) -> list[tuple[Any, ...]]:
    cursor = await db.execute(sql, values)
    return await cursor.fetchall() if cursor.description else []


def shut(db: Connection) -> None:
    """End the connection's socket, so that its waiters wake."""
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(db.fileno())) as same,
    ):
        same.shutdown(socket.SHUT_RDWR)


async def close(db: Connection) -> None:
    """Close a connection, whatever state it is in."""
    with contextlib.suppress(psycopg.Error, OSError):
        await db.close()


def _check_files(parameters: Mapping[str, str]) -> None:
    """Refuse files of the URL that others could write: they say whom libpq trusts.

    Raises:
        StoreAwayError: names one and its remedy.
    """
    try:
        for name in _FILES & parameters.keys():
            if parameters[name] != "system":  # the system's authorities (libpq 34.19)
                check_named_file(Path(parameters[name]).expanduser())
    except SettingsError as error:
        raise StoreAwayError(error.what, error.remedy) from None


def _password(path: Path) -> str:
    """Read the file that PGPASSWORD_FILE names; only its owner may read it.

    The mode of a file that systemd hands over shows the permissions of its access list,
    to this service alone (systemd.exec(5), LoadCredential).
    """
    handed = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY", os.devnull))
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and not handed:
            raise SettingsError(f"others can read {path}", f"chmod 600 {path}")
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise SettingsError(f"PGPASSWORD_FILE cannot be read ({error})") from None


def _line(error: BaseException) -> str:
    """Return the first line of an error; psycopg's never quote a password."""
    if isinstance(error, LedgerUnwritableError):
        return error.what
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
