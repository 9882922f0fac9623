"""The tenant's store: what its SQLite file and a team's PostgreSQL have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final

from agentvault_tui import sealing

Row = Mapping[str, Any]
TABLES: Final = (
    *("facts", "signing_keys", "users", "lockouts", "device_codes", "access_tokens"),
    *("objects", "client_secrets", "refresh_tokens", "refresh_secrets", "auth_codes"),
    *("connected_accounts", "connect_requests", "provider_grants", "provider_tokens"),
    *("passkeys", "passkey_uses", "passkey_links", "page_sessions", "activations"),
    "journal",
)


class TenantSeal(sealing.Seal):
    """Seals the tenant's secrets at rest, with a key kept apart from its store."""

    WHOSE: ClassVar[str] = "tenant"
    LOST: ClassVar[str] = "one-time codes cannot be checked"


class Store(ABC):
    """The tenant's tables, read and written synchronously.

    Statements are written in what SQLite and PostgreSQL share, with ``?`` for values;
    text orders by bytes. Rules that must hold under concurrency are single conditional
    statements, or stand in `transaction`, in which nobody else writes.
    """

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Run the block in one transaction, during which nobody else writes."""

    @abstractmethod
    def check_may_move(self, issuer: str) -> None:
        """Refuse to serve as *issuer* what others serve as another.

        Raises:
            RefusedError: a broker of the team does.
        """

    @abstractmethod
    def run(self, sql: str, values: Sequence[object]) -> tuple[list[Row], int]:
        """Run one statement; return its rows, and how many it changed or found.

        Raises:
            LedgerUnwritableError: the team's store is away.
        """

    def change(self, sql: str, *values: object) -> int:
        """Run one statement and return how many rows it changed."""
        return self.run(sql, values)[1]

    def one(self, sql: str, *values: object) -> Row | None:
        return next(iter(self.all(sql, *values)), None)

    def all(self, sql: str, *values: object) -> list[Row]:
        return self.run(sql, values)[0]

    def find(self, table: str, **columns: object) -> Row | None:
        """Return the first row of *table* with these *columns*, None being NULL.

        Here as below, tables and columns are named by the code, never by a request.
        """
        where, values = _where(columns)
        return self.one(f"SELECT * FROM {table} WHERE {where}", *values)  # noqa: S608

    def rows(self, table: str, **columns: object) -> list[Row]:
        """Return every row of *table* with these *columns*, oldest first."""
        where, values = _where(columns)
        sql = f"SELECT * FROM {table} WHERE {where} ORDER BY seq"  # noqa: S608
        return self.all(sql, *values)

    def insert(self, table: str, **columns: object) -> int:
        """Add a row; return 0 if a row with its key is there already."""
        return self._insert(table, columns, "NOTHING")

    def put(self, table: str, key: Sequence[str], **columns: object) -> None:
        """Add a row, in place of the one with the same *key* columns."""
        sets = ", ".join(f"{one} = excluded.{one}" for one in columns if one not in key)
        self._insert(table, columns, f"UPDATE SET {sets}", f"({', '.join(key)})")

    def _insert(
        self, table: str, columns: Mapping[str, object], act: str, key: str = ""
    ) -> int:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
        return self.change(f"{sql} ON CONFLICT {key} DO {act}", *columns.values())

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

    def remember(self, name: str, value: object) -> None:
        """Keep a value over restarts."""
        self.put("facts", ("name",), name=name, value=str(value))


def _where(columns: Mapping[str, object]) -> tuple[str, list[object]]:
    terms = (
        f"{name} IS NULL" if value is None else f"{name} = ?"
        for name, value in columns.items()
    )
    values = [value for value in columns.values() if value is not None]
    return " AND ".join(terms) or "TRUE", values
