"""Refresh tokens (RFC 6749 section 6): issued, exchanged, listed and revoked."""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import new_id, sha256_hex
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.store import Store

PER_USER_AND_CLIENT: Final = 200
"""Auth0's limit; beyond it the oldest goes without a word."""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token as the store holds it."""

    id: str
    user_id: str
    client_id: str
    session_id: str | None
    audience: str
    """What it was issued for; empty for /userinfo."""
    reach: dict[str, str]
    """Every audience it was used for so far, and the scopes there."""
    created_at: float
    last_exchanged_at: float | None
    gone_at: float | None
    """When it was revoked."""


class RefreshTokens:
    """The refresh tokens of one store; only hashes of them are kept."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def issue(
        self, client: Client, sub: str, sid: str | None, audience: str, scope: str
    ) -> tuple[str, str]:
        """Make a refresh token; return it and its id."""
        key, token = new_id("rt"), f"v1.{secrets.token_urlsafe(32)}"
        with self._store.transaction():
            self._store.insert(
                "refresh_tokens",
                id=key,
                user_id=sub,
                client_id=client.client_id,
                session_id=sid,
                audience=audience,
                reach=json.dumps({audience: scope}),
                created_at=self._now(),
            )
            self._store.insert("refresh_secrets", token_hash=sha256_hex(token), id=key)
            self._store.change(
                "DELETE FROM refresh_tokens WHERE id IN (SELECT id FROM refresh_tokens"
                " WHERE user_id = ? AND client_id = ? ORDER BY seq DESC"
                " LIMIT -1 OFFSET ?)",
                *(sub, client.client_id, PER_USER_AND_CLIENT),
            )
            self._forget_secrets()
        return token, key

    def find(self, token: str, client: Client) -> RefreshToken:
        """Return the live refresh token of *client*, and note that it was used.

        Raises:
            TenantRefusedError: ``invalid_grant``: unknown, foreign, or over.
        """
        held = self._of_secret(token, client)
        if held is None:
            raise TenantRefusedError(
                "invalid_grant", "Unknown or invalid refresh token."
            )
        used = {"last_exchanged_at": self._now()}
        self._store.update("refresh_tokens", used, id=held.id)
        return held

    def extend(self, held: RefreshToken, audience: str, scope: str) -> None:
        """Note that a token was also used for *audience*."""
        reach = json.dumps({**held.reach, audience: scope})
        self._store.update("refresh_tokens", {"reach": reach}, id=held.id)

    def get(self, key: str) -> RefreshToken | None:
        row = self._store.find("refresh_tokens", id=key)
        held = None if row is None else _read(row)
        return held if held is not None and self._live(held) else None

    def list(
        self,
        *,
        user_id: str | None = None,
        client_id: str | None = None,
        audience: str | None = None,
    ) -> list[RefreshToken]:
        """Return the live tokens that match every filter given, oldest first."""
        asked = {"user_id": user_id, "client_id": client_id, "audience": audience}
        given = {name: value for name, value in asked.items() if value is not None}
        rows = self._store.rows("refresh_tokens", **given)
        return [held for held in map(_read, rows) if self._live(held)]

    def revoke(self, key: str) -> None:
        self._end(key, self._now())

    def revoke_secret(self, token: str, client: Client) -> RefreshToken | None:
        """End what *token* names if it is *client*'s; return it (RFC 7009)."""
        held = self._of_secret(token, client)
        if held is not None:
            self._end(held.id, self._now())
        return held

    def _of_secret(self, token: str, client: Client) -> RefreshToken | None:
        """Find a live token by its secret; to a foreign client it is unknown."""
        row = self._store.find("refresh_secrets", token_hash=sha256_hex(token))
        held = None if row is None else self.get(row["id"])
        return held if held and held.client_id == client.client_id else None

    def _end(self, key: str, at: float) -> None:
        self._store.change(
            "UPDATE refresh_tokens SET gone_at = ? WHERE id = ?"
            " AND (gone_at IS NULL OR gone_at > ?)",
            *(at, key, at),
        )
        self._store.change("DELETE FROM refresh_tokens WHERE gone_at < ?", self._now())
        self._forget_secrets()

    def _live(self, held: RefreshToken) -> bool:
        return held.gone_at is None or held.gone_at > self._now()

    def _forget_secrets(self) -> None:
        self._store.change(
            "DELETE FROM refresh_secrets WHERE id NOT IN"
            " (SELECT id FROM refresh_tokens)"
        )

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _read(row: sqlite3.Row) -> RefreshToken:
    members: dict[str, Any] = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a Row iterates over values
    del members["seq"]
    members["reach"] = json.loads(row["reach"])
    return RefreshToken(**members)
