"""The tenant's SQLite file: its version, its modes, and short transactions on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from agentvault_tui.errors import TenantError
from agentvault_tui.home import Home, private_file, private_folder
from agentvault_tui.tenant.schema import MIGRATIONS

_BUSY_SECONDS: Final = 5.0


class Store:
    """One connection to the tenant's file.

    Plain sqlite3, called from the event loop: each statement touches a few rows of a
    file that holds a handful of users, and the only other writer is a person adding
    one. Rules that must hold under concurrency are single conditional statements.
    """

    def __init__(self, home: Home, *, checkpoints: bool) -> None:
        """Open the store of *home* and make what is missing.

        Args:
            home: its tenant folder holds the file, 0600 under any umask.
            checkpoints: True for the server alone. SQLite before 3.51.3 can lose a
                race when two connections reset the write-ahead log.

        Raises:
            TenantError: the file cannot be used, or is not such a store.
        """
        for folder in (home.data, home.tenant, home.keys):
            private_folder(folder)
        self._path = home.tenant / "tenant.db"
        try:
            private_file(self._path)
            self._db = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            self._prepare(checkpoints=checkpoints)
        except sqlite3.Error as error:
            self._db.close()
            raise self._unusable(error) from error
        except TenantError:
            self._db.close()
            raise

    def _prepare(self, *, checkpoints: bool) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("PRAGMA trusted_schema = OFF")
        if not checkpoints:
            self._db.execute("PRAGMA wal_autocheckpoint = 0")
        with self.transaction():
            self._migrate()

    def _migrate(self) -> None:
        """Bring the tables to our version, keeping what they hold.

        Raises:
            TenantError: a later release has brought them further.
        """
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise TenantError(
                f"the tenant's store {self._path} is of a later release",
                "use that release, or restore the store from a backup",
            )
        for migration in MIGRATIONS[version:]:
            for statement in migration.split(";\n"):
                self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the statements inside one: all of them, or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def change(self, sql: str, *values: object) -> int:
        """Run one statement and return how many rows it changed."""
        return self._db.execute(sql, values).rowcount

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        return self._db.execute(sql, values).fetchall()

    def find(self, table: str, **columns: object) -> sqlite3.Row | None:
        """Return the first row of *table* with these *columns*, None being NULL.

        Here as below, tables and columns are named by the code, never by a request.
        """
        where, values = _where(columns)
        return self.one(f"SELECT * FROM {table} WHERE {where}", *values)  # noqa: S608

    def rows(self, table: str, **columns: object) -> list[sqlite3.Row]:
        """Return every row of *table* with these *columns*, oldest first."""
        where, values = _where(columns)
        sql = f"SELECT * FROM {table} WHERE {where} ORDER BY seq"  # noqa: S608
        return self.all(sql, *values)

    def insert(self, table: str, **columns: object) -> int:
        """Add a row; return 0 if a row with its key is there already."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
        return self.change(f"{sql} ON CONFLICT DO NOTHING", *columns.values())

    def update(
        self, table: str, changes: Mapping[str, object], **columns: object
    ) -> int:
        """Change the rows with these *columns*; return how many there were."""
        where, values = _where(columns)
        sets = ", ".join(f"{name} = ?" for name in changes)
        sql = f"UPDATE {table} SET {sets} WHERE {where}"  # noqa: S608
        return self.change(sql, *changes.values(), *values)

    def delete(self, table: str, **columns: object) -> int:
        """Delete the rows with these *columns*; return how many there were."""
        where, values = _where(columns)
        return self.change(f"DELETE FROM {table} WHERE {where}", *values)  # noqa: S608

    def fact(self, name: str) -> str | None:
        row = self.find("facts", name=name)
        return None if row is None else str(row["value"])

    def remember(self, name: str, value: Any) -> None:
        """Keep a value over restarts."""
        self.change("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, str(value))

    def _unusable(self, error: Exception) -> TenantError:
        return TenantError(
            f"the tenant's store {self._path} cannot be used ({error})",
            "check its owner and the disk, or restore it from a backup",
        )


def _where(columns: Mapping[str, object]) -> tuple[str, list[object]]:
    terms = " AND ".join(f"{name} IS ?" for name in columns)
    return terms or "1", list(columns.values())
