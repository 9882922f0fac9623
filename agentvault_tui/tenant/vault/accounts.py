"""Connected accounts: a user's provider tokens, sealed, and kept fresh."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.model import new_id
from agentvault_tui.tenant.connections import Connections
from agentvault_tui.tenant.objects import Document
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.times import of_epoch
from agentvault_tui.tenant.vault.provider import Provider, ProviderTokens

_KIND: Final = "provider tokens"
_UNUSED: Final = 365 * 86_400.0
"""Auth0 drops what was not exchanged for a year."""
_ALMOST: Final = 5.0
"""A token that lives no longer is refreshed rather than given out."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account at one provider, connected by one user."""

    id: str
    user_id: str
    connection: str
    account: str
    """Who the user is at the provider."""
    scopes: tuple[str, ...]
    created_at: float
    version: int
    token_expires_at: float
    last_used_at: float | None


class Accounts:
    """The connected accounts of one store."""

    def __init__(
        self, store: Store, seal: Seal, clock: Clock, provider: Provider
    ) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._provider = provider

    def connect(self, user_id: str, connection: Document, account: str, scope: str) -> (
        Account
    ):  # fmt: skip
        """Have the provider give tokens, and keep them.

        Connected again, an account keeps its id, and gets the scopes of this time.
        """
        lifetime = Connections.token_lifetime(connection)
        name = str(connection["name"])
        tokens = self._provider.grant(name, account, scope, lifetime)
        with self._store.transaction():
            row = self._store.one(
                "SELECT id, version FROM connected_accounts"
                " WHERE user_id = ? AND connection = ? AND account = ?",
                *(user_id, name, account),
            )
            key = new_id("cac") if row is None else str(row["id"])
            if row is None:
                self._store.change(
                    "INSERT INTO connected_accounts (id, user_id, connection, account,"
                    " scope, created_at, version, sealed, token_expires_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, 0, x'', 0)",
                    *(key, user_id, name, account, scope, self._now()),
                )
            self._keep(key, 0 if row is None else int(row["version"]), tokens)
            self._store.change(
                "UPDATE connected_accounts SET scope = ? WHERE id = ?", scope, key
            )
        found = self.get(key)
        assert found is not None  # noqa: S101 - it was just kept
        return found

    def list(self, user_id: str, connection: str | None = None) -> list[Account]:
        rows = self._store.all(
            "SELECT * FROM connected_accounts WHERE user_id = ?"
            " AND (? IS NULL OR connection = ?) ORDER BY seq",
            *(user_id, connection, connection),
        )
        return [account for account in map(_read, rows) if self._kept(account)]

    def get(self, key: str) -> Account | None:
        row = self._store.one("SELECT * FROM connected_accounts WHERE id = ?", key)
        account = None if row is None else _read(row)
        return account if account is not None and self._kept(account) else None

    def delete(self, key: str) -> bool:
        """Forget an account and our copy of its tokens, and no more than that."""
        return bool(
            self._store.change("DELETE FROM connected_accounts WHERE id = ?", key)
        )

    def tokens(self, account: Account, lifetime: float) -> ProviderTokens | None:
        """Return tokens that work now; None when the provider refuses to refresh.

        Args:
            account: whose.
            lifetime: seconds that the provider's access tokens live.
        """
        held = self._open(account)
        now = self._now()
        self._store.change(
            "UPDATE connected_accounts SET last_used_at = ? WHERE id = ?",
            *(now, account.id),
        )
        if account.token_expires_at - now > _ALMOST:
            return ProviderTokens(
                held["access_token"],
                held["refresh_token"],
                " ".join(account.scopes),
                account.token_expires_at,
            )
        fresh = self._provider.refresh(held["refresh_token"], lifetime)
        if fresh is not None:
            self._keep(account.id, account.version, fresh)
        return fresh

    def _keep(self, key: str, version: int, tokens: ProviderTokens) -> None:
        secret = {
            "access_token": tokens.access_token,
            "refresh_token": tokens.refresh_token,
        }
        # A version in the associated data: older tokens, put back, do not open.
        box = self._seal.close(_KIND, key, version + 1, json.dumps(secret).encode())
        self._store.change(
            "UPDATE connected_accounts SET version = ?, sealed = ?,"
            " token_expires_at = ? WHERE id = ?",
            *(version + 1, box, tokens.expires_at, key),
        )

    def _open(self, account: Account) -> dict[str, str]:
        row = self._store.all(
            "SELECT version, sealed FROM connected_accounts WHERE id = ?", account.id
        )[0]
        raw = self._seal.open(_KIND, account.id, row["version"], row["sealed"])
        held: dict[str, str] = json.loads(raw)
        return held

    def _kept(self, account: Account) -> bool:
        used = account.last_used_at or account.created_at
        return self._now() - used < _UNUSED

    def _now(self) -> float:
        return self._clock.now().timestamp()


def shape(account: Account) -> dict[str, Any]:
    """Return an account as the My Account API shows it."""
    return {
        "id": account.id,
        "connection": account.connection,
        "access_type": "offline",
        "scopes": list(account.scopes),
        "created_at": of_epoch(account.created_at),
    }


def _read(row: sqlite3.Row) -> Account:
    return Account(
        row["id"],
        row["user_id"],
        row["connection"],
        row["account"],
        tuple(row["scope"].split()),
        row["created_at"],
        row["version"],
        row["token_expires_at"],
        row["last_used_at"],
    )
