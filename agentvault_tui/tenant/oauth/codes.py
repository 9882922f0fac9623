"""Authorization codes (RFC 6749 section 4.1): issued, and redeemed once with proof."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import Final

from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.oauth.grants import Exchange, Outcome
from agentvault_tui.tenant.oauth.wire import missing, refused
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.pkce import proven
from agentvault_tui.tenant.tokens import Login

_LIFETIME: Final = 60.0
"""Seconds; Auth0's live about as long."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a person granted to a client."""

    client: Client
    redirect_uri: str
    scope: str
    audience: str | None = None
    nonce: str | None = field(default=None, repr=False)
    challenge: str | None = field(default=None, repr=False)
    method: str | None = None


class CodeGrant:
    """The codes of one store, by their hashes."""

    def __init__(self, parts: Parts) -> None:
        """Issue and redeem over a tenant's *parts*."""
        self._store = parts.store
        self._clock = parts.clock
        self._apis = parts.apis
        self._tokens = parts.tokens
        self._refresh = parts.refresh

    def issue(self, granted: Authorization, login: Login) -> str:
        """Return a code for what *login* has granted."""
        code = secrets.token_urlsafe(32)
        now = self._now()
        # A spent one is kept for a while: used again, it ends what came of it.
        self._store.change(
            "DELETE FROM auth_codes WHERE expires_at < ?", now - 60 * _LIFETIME
        )
        self._store.change(
            "INSERT INTO auth_codes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL)",
            *(sha256_hex(code), granted.client.key, granted.redirect_uri),
            *(granted.challenge, granted.method, json.dumps(asdict(login))),
            *(granted.scope, granted.audience, granted.nonce, now + _LIFETIME),
        )
        return code

    def __call__(self, asked: Exchange) -> Outcome:
        """Give tokens for a code.

        Raises:
            TenantRefusedError: ``invalid_grant`` for all that may be wrong with it.
        """
        for name in ("code", "redirect_uri"):
            if not asked.form.get(name):
                raise missing(name)
        key = sha256_hex(asked.form["code"])
        row = self._store.one(
            "SELECT * FROM auth_codes WHERE code_hash = ? AND client_id = ?",
            *(key, asked.client.key),
        )
        unknown = refused("invalid_grant", "Invalid authorization code")
        if row is None:
            raise unknown
        verifier = asked.form.get("code_verifier")
        if row["redirect_uri"] != asked.form["redirect_uri"]:
            raise unknown
        if not proven(row["challenge"], row["method"] or "plain", verifier):
            raise refused("invalid_grant", "Failed to verify code verifier")
        # One statement looks and marks: of two that redeem it at once, one does.
        if not self._store.change(
            "UPDATE auth_codes SET spent = 1 WHERE code_hash = ? AND spent = 0", key
        ):
            if row["refresh_id"] is not None:
                # RFC 6749 section 4.1.2: used twice, it was stolen.
                self._refresh.revoke(row["refresh_id"], at_once=True)
            raise unknown
        if row["expires_at"] <= self._now():
            raise unknown
        issued = self._tokens.for_login(
            asked.client,
            Login(**json.loads(row["login"])),
            row["scope"],
            self._apis.asked(row["audience"]),
            row["nonce"],
        )
        self._store.change(
            "UPDATE auth_codes SET refresh_id = ? WHERE code_hash = ?",
            *(issued.refresh_id, key),
        )
        return Outcome.of(issued, row["audience"])

    def _now(self) -> float:
        return self._clock.now().timestamp()
