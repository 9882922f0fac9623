"""What the device is given in the end: a signed ID token and a token for /userinfo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.model import new_secret, sha256_hex
from agentvault_tui.model.claims import MFA_AT, ROLES
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.codes import DeviceCode
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.users import User, user_of

SCOPES: Final = ("openid", "profile", "email")
LIFETIME: Final = 300
MFA_ACR: Final = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"


@dataclass(frozen=True, slots=True)
class Tokens:
    """The answer to a spent code."""

    access_token: str = field(repr=False)
    id_token: str | None = field(repr=False)
    scope: str


class TokenService:
    """Makes tokens of approved codes, and knows the access tokens again."""

    def __init__(
        self,
        store: Store,
        keys: SigningKeys,
        clock: Clock,
        issuer: str,
        client: Client,
    ) -> None:
        """Issue as *issuer*, for *client*."""
        self._client = client
        self._store = store
        self._keys = keys
        self._clock = clock
        self._issuer = issuer

    def issue(self, code: DeviceCode) -> Tokens | None:
        """Make the tokens of an approved *code*; None if its user is gone."""
        user = self._user(code.sub)
        if user is None:
            return None
        now = self._clock.now().timestamp()
        access = new_secret("av_u")
        self._store.change("DELETE FROM access_tokens WHERE expires_at <= ?", now)
        self._store.change(
            "INSERT INTO access_tokens VALUES (?, ?, ?, ?, ?)",
            sha256_hex(access),
            code.client,
            user.sub,
            code.scope,
            now + LIFETIME,
        )
        granted = code.scope.split()
        signed = (
            self._keys.sign(self._claims(code, user)) if "openid" in granted else None
        )
        return Tokens(access, signed, code.scope)

    def userinfo(self, access_token: str) -> dict[str, Any] | None:
        """Return the claims an access token opens (OpenID Connect Core 5.3)."""
        row = self._store.one(
            "SELECT sub, scope FROM access_tokens WHERE token_hash = ?"
            " AND expires_at > ?",
            sha256_hex(access_token),
            self._clock.now().timestamp(),
        )
        user = None if row is None else self._user(row["sub"])
        if row is None or user is None:
            return None
        return _person(user, row["scope"].split())

    def revoke(self, token: str, client_id: str) -> None:
        """End *token* if it is this client's; else do nothing (RFC 7009 section 2)."""
        self._store.change(
            "DELETE FROM access_tokens WHERE token_hash = ? AND client_id = ?",
            sha256_hex(token),
            sha256_hex(client_id),
        )

    def _user(self, sub: str | None) -> User | None:
        row = self._store.one("SELECT * FROM users WHERE sub = ?", sub)
        return None if row is None else user_of(row)

    def _claims(self, code: DeviceCode, user: User) -> dict[str, Any]:
        now = int(self._clock.now().timestamp())
        return {
            "iss": self._issuer,
            "aud": self._client.client_id,
            "iat": now,
            "exp": now + LIFETIME,
            "auth_time": code.authenticated_at,
            # RFC 8176: a password and a one-time code, and so more than one factor.
            "amr": ["mfa", "pwd", "otp"],
            "acr": MFA_ACR,
            "sid": code.sid,
            MFA_AT: code.authenticated_at,
            ROLES: ["approver"] if user.approver else [],
            **_person(user, code.scope.split()),
        }


def _person(user: User, scopes: list[str]) -> dict[str, Any]:
    """Return the claims of OpenID Connect Core section 5.4 for *scopes*."""
    claims: dict[str, Any] = {"sub": user.sub}
    if "profile" in scopes:
        claims |= {"name": user.name, "nickname": user.name.partition("@")[0]}
    if "email" in scopes and "@" in user.name:
        # Verified by the trust framework of this issuer: the owner of the home typed
        # it, and the same person writes the list of approvers it is compared with.
        claims |= {"email": user.name, "email_verified": True}
    return claims
