"""What an administrator configures, kept as JSON documents: clients, APIs and so on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from agentvault_tui.errors import ConflictError
from agentvault_tui.tenant.store import Store

Document = dict[str, Any]


class Objects:
    """The documents of one kind, each with an id and a name of its own."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind

    def add(self, key: str, name: str, doc: Document) -> None:
        """Keep *doc*.

        Raises:
            ConflictError: there is one of that id or name.
        """
        try:
            self._store.change(
                "INSERT INTO objects (kind, id, name, doc) VALUES (?, ?, ?, ?)",
                self._kind,
                key,
                name,
                json.dumps(doc),
            )
        except sqlite3.IntegrityError:
            raise ConflictError(f"there is a {self._kind} like that already") from None

    def get(self, key: str) -> Document | None:
        return self._one("id", key)

    def named(self, name: str) -> Document | None:
        return self._one("name", name)

    def replace(self, key: str, doc: Document) -> None:
        """Put *doc* in the place of what is there; its name stays."""
        self._store.change(
            "UPDATE objects SET doc = ? WHERE kind = ? AND id = ?",
            json.dumps(doc),
            self._kind,
            key,
        )

    def rename(self, key: str, name: str) -> None:
        """Give the document of that id another name, which no other one has."""
        self._store.change(
            "UPDATE objects SET name = ? WHERE kind = ? AND id = ?",
            *(name, self._kind, key),
        )

    def delete(self, key: str) -> bool:
        """Forget the document; tell whether there was one."""
        return bool(
            self._store.change(
                "DELETE FROM objects WHERE kind = ? AND id = ?", self._kind, key
            )
        )

    def all(self) -> list[Document]:
        rows = self._store.all(
            "SELECT doc FROM objects WHERE kind = ? ORDER BY seq", self._kind
        )
        return [json.loads(row["doc"]) for row in rows]

    def _one(self, column: str, value: str) -> Document | None:
        row = self._store.one(
            f"SELECT doc FROM objects WHERE kind = ? AND {column} = ?",  # noqa: S608 - id or name
            self._kind,
            value,
        )
        return None if row is None else json.loads(row["doc"])


def merged(doc: Mapping[str, Any], changes: Mapping[str, Any]) -> Document:
    """Return *doc* with *changes*; a null takes a member away (RFC 7396 section 2)."""
    both = {**doc, **changes}
    return {name: value for name, value in both.items() if value is not None}


def rebase(store: Store, issuer: str) -> None:
    """Give stored audiences the issuer's name of this start.

    The name has the port in it. When the port changed, ``<issuer>me/`` of a grant made
    before must go on meaning this tenant, and no other that may have taken the port.
    """
    before = store.fact("issuer")
    if before == issuer:
        return
    with store.transaction():
        if before is not None:
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
