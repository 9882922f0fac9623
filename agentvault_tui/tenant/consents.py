"""What users have granted to clients: the grants an operator can take back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from agentvault_tui.model import new_id
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.store import Store


@dataclass(frozen=True, slots=True)
class Consent:
    """One user's grant to one client, for one audience."""

    id: str
    user_id: str
    client_id: str
    audience: str
    scope: tuple[str, ...]


class Consents:
    """The user grants of one store."""

    def __init__(self, store: Store) -> None:
        """Keep them in *store*."""
        self._store = store

    def record(self, client: Client, sub: str, audience: str, scope: str) -> str | None:
        """Note that a user granted *scope*; return the grant's id.

        A client of the broker's run has none: it ends with the run.
        """
        if client.of_run:
            return None
        with self._store.transaction():
            row = self._store.one(
                "SELECT id, scope FROM user_grants"
                " WHERE user_id = ? AND client_id = ? AND audience = ?",
                *(sub, client.client_id, audience),
            )
            held = [] if row is None else json.loads(row["scope"])
            merged = json.dumps(list(dict.fromkeys([*held, *scope.split()])))
            if row is not None:
                self._store.change(
                    "UPDATE user_grants SET scope = ? WHERE id = ?", merged, row["id"]
                )
                return str(row["id"])
            key = new_id("grt")
            self._store.change(
                "INSERT INTO user_grants (id, user_id, client_id, audience, scope)"
                " VALUES (?, ?, ?, ?, ?)",
                *(key, sub, client.client_id, audience, merged),
            )
            return key

    def list(
        self,
        *,
        user_id: str | None = None,
        client_id: str | None = None,
        audience: str | None = None,
    ) -> list[Consent]:
        """Return the grants that match every filter given, oldest first."""
        where, values = self._store.where(
            user_id=user_id, client_id=client_id, audience=audience
        )
        rows = self._store.all(
            f"SELECT * FROM user_grants WHERE {where} ORDER BY seq",  # noqa: S608 - columns of ours
            *values,
        )
        return [
            Consent(
                row["id"],
                row["user_id"],
                row["client_id"],
                row["audience"],
                tuple(json.loads(row["scope"])),
            )
            for row in rows
        ]

    def delete(self, key: str) -> Consent | None:
        """Take a grant back; return what it was."""
        found = [grant for grant in self.list() if grant.id == key]
        self._store.change("DELETE FROM user_grants WHERE id = ?", key)
        return found[0] if found else None

    def delete_client(self, client_id: str) -> None:
        """Take back whatever users granted to a client that is no more."""
        self._store.change("DELETE FROM user_grants WHERE client_id = ?", client_id)
