"""Refresh tokens: issued, exchanged, rotated, caught when reused, and revoked."""

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
from agentvault_tui.tenant.faults import FaultSwitch
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
    rotating: bool
    created_at: float
    idle_expires_at: float | None
    expires_at: float | None
    last_exchanged_at: float | None
    gone_at: float | None


class ReusedError(TenantRefusedError):
    """A rotated refresh token came again, so all of its line are revoked."""


class RefreshTokens:
    """The refresh tokens of one store; only hashes of them are kept."""

    def __init__(self, store: Store, clock: Clock, faults: FaultSwitch) -> None:
        """Keep them in *store*."""
        self._store = store
        self._clock = clock
        self._faults = faults

    def issue(
        self, client: Client, sub: str, sid: str | None, audience: str, scope: str
    ) -> tuple[str, str]:
        """Make a refresh token; return it and its id."""
        now, rules = self._now(), client.refresh
        key, token = new_id("rt"), _new_token()
        with self._store.transaction():
            self._store.change(
                "INSERT INTO refresh_tokens (id, user_id, client_id, session_id,"
                " audience, reach, rotating, created_at, idle_expires_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(key, sub, client.client_id, sid, audience),
                json.dumps({audience: scope}),
                int(rules.rotating),
                now,
                None if rules.idle is None else now + rules.idle,
                None if rules.lifetime is None else now + rules.lifetime,
            )
            self._store.change(
                "INSERT INTO refresh_secrets VALUES (?, ?, NULL)",
                *(sha256_hex(token), key),
            )
            self._drop_oldest(sub, client.client_id)
        return token, key

    def find(self, token: str, client: Client) -> RefreshToken:
        """Return the live refresh token of *client*, and note that it was used.

        Raises:
            ReusedError: it was rotated before, longer ago than the leeway.
            TenantRefusedError: ``invalid_grant``: unknown, foreign, or over.
        """
        secret = self._store.one(
            "SELECT * FROM refresh_secrets WHERE token_hash = ?", sha256_hex(token)
        )
        held = None if secret is None else self.get(secret["id"])
        # To a foreign client it is unknown, and its use revokes nothing.
        if secret is None or held is None or held.client_id != client.client_id:
            raise _unknown()
        rotated = secret["rotated_at"]
        if rotated is not None and self._now() - rotated > client.refresh.leeway:
            # RFC 9700 section 4.14.2: one of the two who hold it stole it.
            self.revoke(held.id, at_once=True)
            raise ReusedError("invalid_grant", "Unknown or invalid refresh token.")
        idle = client.refresh.idle
        self._store.change(
            "UPDATE refresh_tokens SET last_exchanged_at = ?, idle_expires_at = ?"
            " WHERE id = ?",
            self._now(),
            None if idle is None else self._now() + idle,
            held.id,
        )
        return held

    def rotate(self, token: str, held: RefreshToken) -> str:
        """Return the successor of *token*, which may not be used again."""
        successor = _new_token()
        with self._store.transaction():
            self._store.change(
                "UPDATE refresh_secrets SET rotated_at = ?"
                " WHERE token_hash = ? AND rotated_at IS NULL",
                *(self._now(), sha256_hex(token)),
            )
            self._store.change(
                "INSERT INTO refresh_secrets VALUES (?, ?, NULL)",
                *(sha256_hex(successor), held.id),
            )
        return successor

    def extend(self, held: RefreshToken, audience: str, scope: str) -> None:
        """Note that a token was also used for *audience*."""
        reach = json.dumps({**held.reach, audience: scope})
        self._store.change(
            "UPDATE refresh_tokens SET reach = ? WHERE id = ?", reach, held.id
        )

    def get(self, key: str) -> RefreshToken | None:
        """Return the live refresh token of that id."""
        row = self._store.one("SELECT * FROM refresh_tokens WHERE id = ?", key)
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
        where, values = self._store.where(
            user_id=user_id, client_id=client_id, audience=audience
        )
        rows = self._store.all(
            f"SELECT * FROM refresh_tokens WHERE {where} ORDER BY seq",  # noqa: S608 - columns of ours
            *values,
        )
        return [held for held in map(_read, rows) if self._live(held)]

    def revoke(self, key: str, *, at_once: bool = False) -> None:
        """End a token: now, or when the switch says that deletions become true."""
        lag = 0.0 if at_once else self._faults.now.deletion_lag
        self._store.change(
            "UPDATE refresh_tokens SET gone_at = ? WHERE id = ?"
            " AND (gone_at IS NULL OR gone_at > ?)",
            *(self._now() + lag, key, self._now() + lag),
        )
        self._sweep()

    def revoke_secret(self, token: str, client: Client) -> RefreshToken | None:
        """End what *token* names if it is *client*'s; return it (RFC 7009)."""
        row = self._store.one(
            "SELECT id FROM refresh_secrets WHERE token_hash = ?", sha256_hex(token)
        )
        held = None if row is None else self.get(row["id"])
        if held is None or held.client_id != client.client_id:
            return None
        self.revoke(held.id, at_once=True)
        return held

    def _live(self, held: RefreshToken) -> bool:
        ends = (held.gone_at, held.expires_at, held.idle_expires_at)
        return all(end is None or end > self._now() for end in ends)

    def _drop_oldest(self, sub: str, client_id: str) -> None:
        self._store.change(
            "DELETE FROM refresh_tokens WHERE id IN (SELECT id FROM refresh_tokens"
            " WHERE user_id = ? AND client_id = ? ORDER BY seq DESC"
            " LIMIT -1 OFFSET ?)",
            *(sub, client_id, PER_USER_AND_CLIENT),
        )
        self._forget_secrets()

    def _sweep(self) -> None:
        """Drop what has long been over, and the secrets that named it."""
        now = self._now()
        self._store.change(
            "DELETE FROM refresh_tokens WHERE gone_at < ? OR expires_at < ?"
            " OR idle_expires_at < ?",
            *(now, now, now),
        )
        self._forget_secrets()

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
    members["rotating"] = bool(row["rotating"])
    return RefreshToken(**members)


def _new_token() -> str:
    """Return a refresh token as Auth0's look: ``v1.`` and 256 random bits."""
    return f"v1.{secrets.token_urlsafe(32)}"


def _unknown() -> TenantRefusedError:
    return TenantRefusedError("invalid_grant", "Unknown or invalid refresh token.")
