"""What an administrator configures, kept as JSON documents: clients, APIs and so on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentvault_tui.errors import ConflictError
from agentvault_tui.tenant.store import Store

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
        """Delete a document; tell whether there was one."""
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
