"""The tenant's store: the common part of its SQLite file and a team's PostgreSQL.

`Objects` are an administrator's configuration, stored as JSON documents.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Final

from agentvault_tui import sealing
from agentvault_tui.errors import ConflictError

Row = Mapping[str, Any]
TABLES: Final = (
    *("facts", "signing_keys", "users", "lockouts", "device_codes", "access_tokens"),
    *("objects", "client_secrets", "refresh_tokens", "refresh_secrets", "auth_codes"),
    *("connected_accounts", "connect_requests", "provider_grants", "provider_tokens"),
    *("passkeys", "passkey_uses", "passkey_links", "page_sessions", "activations"),
    "journal",
)


class TenantSeal(sealing.Seal):
    """Encrypts the tenant's secrets at rest, with a key apart from its store."""

    WHOSE: ClassVar[str] = "tenant"
    LOST: ClassVar[str] = "one-time codes cannot be checked"


class Store(ABC):
    """The tenant's tables, read and written synchronously.

    Statements use the common SQL of SQLite and PostgreSQL, with ``?`` for values; text
    orders by bytes. Rules that must hold under concurrency are single conditional
    statements, or stand in `transaction`, in which no other party writes.
    """

    has_own_time: ClassVar[bool] = False
    """Whether its time counts for all that use it, and not a machine's clock."""
    before_close: list[Callable[[], None]]
    """Called before it is closed, for deferred writes."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Run the block in one transaction, during which no other party writes."""

    def unflushed(self) -> AbstractContextManager[None]:
        """Run a block whose writes need not survive a power cut.

        For writes that a stranger can cause: the event loop waits for no flush of the
        disk.
        """
        return nullcontext()

    @abstractmethod
    def check_may_move(self, issuer: str) -> None:
        """Refuse to serve as *issuer* if others serve as another.

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
        """Store a value over restarts."""
        self.put("facts", ("name",), name=name, value=str(value))


def _where(columns: Mapping[str, object]) -> tuple[str, list[object]]:
    terms = (
        f"{name} IS NULL" if value is None else f"{name} = ?"
        for name, value in columns.items()
    )
    values = [value for value in columns.values() if value is not None]
    return " AND ".join(terms) or "TRUE", values


Document = dict[str, Any]


class Objects:
    """The documents of one kind, each with a unique id and a unique name."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind

    def add(self, key: str, name: str, doc: Document) -> None:
        """Insert *doc*.

        Raises:
            ConflictError: there is one of that id or name.
        """
        row = {"kind": self._kind, "id": key, "name": name, "doc": json.dumps(doc)}
        if not self._store.insert("objects", **row):
            raise ConflictError(f"there is a {self._kind} like that already")

    def get(self, key: str) -> Document | None:
        return self._one(id=key)

    def named(self, name: str) -> Document | None:
        return self._one(name=name)

    def replace(self, key: str, doc: Document) -> None:
        """Replace a document; its name stays."""
        changes: Document = {"doc": json.dumps(doc)}
        self._store.update("objects", changes, kind=self._kind, id=key)

    def delete(self, key: str) -> bool:
        """Delete a document; return whether it existed."""
        return bool(self._store.delete("objects", kind=self._kind, id=key))

    def all(self) -> list[Document]:
        rows = self._store.rows("objects", kind=self._kind)
        return [json.loads(row["doc"]) for row in rows]

    def _one(self, **column: str) -> Document | None:
        row = self._store.find("objects", kind=self._kind, **column)
        return None if row is None else json.loads(row["doc"])


def merged(doc: Mapping[str, object], changes: Mapping[str, object]) -> Document:
    """Return *doc* with *changes*; a null takes a member away (RFC 7396 section 2)."""
    both = {**doc, **changes}
    return {name: value for name, value in both.items() if value is not None}


def rebase(store: Store, issuer: str) -> None:
    """Rewrite the audiences of the store for the issuer of this start.

    The issuer has the port in it: when that changed, ``<issuer>me/`` of an earlier
    grant must go on meaning this tenant, and none that may have taken the port.

    Raises:
        RefusedError: other brokers of the team serve it as another issuer.
    """
    with store.transaction():
        before = store.fact("issuer")
        if before == issuer:
            return
        if before is not None:
            store.check_may_move(issuer)
            store.change("UPDATE objects SET doc = replace(doc, ?, ?)", before, issuer)
            store.change(
                "UPDATE objects SET name = replace(name, ?, ?)", before, issuer
            )
            store.change(
                "UPDATE refresh_tokens SET audience = replace(audience, ?, ?),"
                " reach = replace(reach, ?, ?)",
                *(before, issuer, before, issuer),
            )
        store.remember("issuer", issuer)
