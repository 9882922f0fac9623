"""A provider to connect to: an authorization server of its own, built into the tenant.

It stands in for Google and the like, so that everything about connected accounts can
be seen without one. Its tokens expire, refresh and can be revoked here, whatever the
vault does with its copies: deleting those leaves these alive, as at Auth0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentvault_tui.clock import Clock
from agentvault_tui.model import new_id, new_secret, sha256_hex
from agentvault_tui.tenant.store import Store


@dataclass(frozen=True, slots=True)
class ProviderTokens:
    """What a provider hands out (RFC 6749 section 5.1)."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scope: str
    expires_at: float


class Provider:
    """The stand-in over one store, which holds hashes of its tokens alone."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Keep grants in *store*."""
        self._store = store
        self._clock = clock

    def grant(
        self, connection: str, account: str, scope: str, lifetime: float
    ) -> ProviderTokens:
        """Give tokens for what the owner of *account* has consented to."""
        key, refresh = new_id("pgr"), new_secret("av_pr")
        self._store.change(
            "INSERT INTO provider_grants VALUES (?, ?, ?, ?, ?, ?)",
            *(key, connection, account, scope, sha256_hex(refresh), self._now()),
        )
        access, expires_at = self._token(key, scope, lifetime)
        return ProviderTokens(access, refresh, scope, expires_at)

    def refresh(
        self, refresh_token: str, lifetime: float, scope: str | None = None
    ) -> ProviderTokens | None:
        """Give a new access token, of *scope* if that is narrower; None: refused."""
        row = self._store.one(
            "SELECT id, scope FROM provider_grants WHERE refresh_hash = ?",
            sha256_hex(refresh_token),
        )
        if row is None:
            return None
        held = row["scope"].split()
        wanted = held if scope is None else scope.split()
        # RFC 6749 section 6: nothing beyond what the owner granted.
        if not set(wanted) <= set(held):
            return None
        narrowed = " ".join(wanted)
        access, expires_at = self._token(row["id"], narrowed, lifetime)
        return ProviderTokens(access, refresh_token, narrowed, expires_at)

    def info(self, access_token: str) -> dict[str, Any] | None:
        """Say what a live access token is good for; None if it is not one."""
        row = self._store.one(
            "SELECT t.scope, t.expires_at, g.account, g.connection"
            " FROM provider_tokens t JOIN provider_grants g ON g.id = t.grant_id"
            " WHERE t.token_hash = ? AND t.expires_at > ?",
            *(sha256_hex(access_token), self._now()),
        )
        if row is None:
            return None
        return {
            "active": True,
            "sub": row["account"],
            "connection": row["connection"],
            "scope": row["scope"],
            "exp": int(row["expires_at"]),
            "token_type": "Bearer",
        }

    def revoke(self, token: str) -> None:
        """End a token; a refresh token ends all that came of it (RFC 7009)."""
        digest = sha256_hex(token)
        row = self._store.one(
            "SELECT id FROM provider_grants WHERE refresh_hash = ?", digest
        )
        if row is not None:
            with self._store.transaction():
                self._store.change(
                    "DELETE FROM provider_tokens WHERE grant_id = ?", row["id"]
                )
                self._store.change(
                    "DELETE FROM provider_grants WHERE id = ?", row["id"]
                )
        self._store.change("DELETE FROM provider_tokens WHERE token_hash = ?", digest)

    def _token(self, key: str, scope: str, lifetime: float) -> tuple[str, float]:
        now = self._now()
        self._store.change("DELETE FROM provider_tokens WHERE expires_at <= ?", now)
        access = new_secret("av_pa")
        self._store.change(
            "INSERT INTO provider_tokens VALUES (?, ?, ?, ?)",
            *(sha256_hex(access), key, scope, now + lifetime),
        )
        return access, now + lifetime

    def _now(self) -> float:
        return self._clock.now().timestamp()
