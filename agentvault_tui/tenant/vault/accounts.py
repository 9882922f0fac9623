"""Connected accounts: a user's provider tokens, sealed, and kept fresh."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, fields
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
            whose = {"user_id": user_id, "connection": name, "account": account}
            # Left as it is, if it was connected before.
            self._store.insert(
                "connected_accounts",
                **whose,
                id=new_id("cac"),
                scope=scope,
                created_at=self._now(),
                version=0,
                sealed=b"",
                token_expires_at=0,
            )
            row = self._store.find("connected_accounts", **whose)
            assert row is not None  # noqa: S101 - it was just kept
            key = str(row["id"])
            self._keep(key, int(row["version"]), tokens)
            self._store.update("connected_accounts", {"scope": scope}, id=key)
        found = self.get(key)
        assert found is not None  # noqa: S101 - it was just kept
        return found

    def list(self, user_id: str, connection: str | None = None) -> list[Account]:
        named = {} if connection is None else {"connection": connection}
        rows = self._store.rows("connected_accounts", user_id=user_id, **named)
        return [account for account in map(_read, rows) if self._kept(account)]

    def get(self, key: str) -> Account | None:
        row = self._store.find("connected_accounts", id=key)
        account = None if row is None else _read(row)
        return account if account is not None and self._kept(account) else None

    def delete(self, key: str) -> bool:
        """Forget an account and our copy of its tokens, and no more than that."""
        return bool(self._store.delete("connected_accounts", id=key))

    def tokens(self, account: Account, lifetime: float) -> ProviderTokens | None:
        """Return tokens that work now; None when the provider refuses to refresh.

        Args:
            account: whose.
            lifetime: seconds that the provider's access tokens live.
        """
        held = self._open(account)
        now = self._now()
        self._store.update("connected_accounts", {"last_used_at": now}, id=account.id)
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
        fresh = {"version": version + 1, "sealed": box,
                 "token_expires_at": tokens.expires_at}  # fmt: skip
        self._store.update("connected_accounts", fresh, id=key)

    def _open(self, account: Account) -> dict[str, str]:
        row = self._store.find("connected_accounts", id=account.id)
        assert row is not None  # noqa: S101 - it was just read
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
    names = [one.name for one in fields(Account)]
    members = {name: row[name] for name in names if name != "scopes"}
    return Account(**members, scopes=tuple(row["scope"].split()))
