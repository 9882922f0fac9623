"""A provider to connect to: an authorization server of its own, built into the tenant.

It stands in for Google and the like, so that everything about connected accounts can
be seen without one. Its tokens expire, refresh and can be revoked here, whatever the
vault does with its copies: deleting those leaves these alive, as at Auth0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import new_id, new_secret, sha256_hex
from agentvault_tui.tenant.connections import WORKSPACE
from agentvault_tui.tenant.oauth.wire import body_of, missing, refusal, reply
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.tokens import bearer_token

PATH: Final = "/agentvault/workspace"


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
        self._store = store
        self._clock = clock

    def grant(
        self, connection: str, account: str, scope: str, lifetime: float
    ) -> ProviderTokens:
        """Give tokens for what the owner of *account* has consented to."""
        key, refresh = new_id("pgr"), new_secret("av_pr")
        self._store.insert(
            "provider_grants",
            id=key,
            connection=connection,
            account=account,
            scope=scope,
            refresh_hash=sha256_hex(refresh),
            created_at=self._now(),
        )
        access, expires_at = self._token(key, scope, lifetime)
        return ProviderTokens(access, refresh, scope, expires_at)

    def refresh(self, refresh_token: str, lifetime: float) -> ProviderTokens | None:
        """Issue a new access token; None: refused."""
        digest = sha256_hex(refresh_token)
        row = self._store.find("provider_grants", refresh_hash=digest)
        if row is None:
            return None
        access, expires_at = self._token(row["id"], row["scope"], lifetime)
        return ProviderTokens(access, refresh_token, row["scope"], expires_at)

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
        row = self._store.find("provider_grants", refresh_hash=digest)
        if row is not None:
            with self._store.transaction():
                self._store.delete("provider_tokens", grant_id=row["id"])
                self._store.delete("provider_grants", id=row["id"])
        self._store.delete("provider_tokens", token_hash=digest)

    def _token(self, key: str, scope: str, lifetime: float) -> tuple[str, float]:
        now = self._now()
        self._store.change("DELETE FROM provider_tokens WHERE expires_at <= ?", now)
        access = new_secret("av_pa")
        self._store.insert(
            "provider_tokens",
            token_hash=sha256_hex(access),
            grant_id=key,
            scope=scope,
            expires_at=now + lifetime,
        )
        return access, now + lifetime

    def _now(self) -> float:
        return self._clock.now().timestamp()


def where(issuer: str) -> dict[str, dict[str, str]]:
    """Return the stand-in's endpoints by its connection's name, for who starts us.

    A provider at a fixed address is set in the broker's settings; this one's port
    is another in each home.
    """
    base = f"{issuer.rstrip('/')}{PATH}"
    return {
        WORKSPACE: {
            "revocation_endpoint": f"{base}/revoke",
            "userinfo_endpoint": f"{base}/tokeninfo",
        }
    }


class ProviderApi:
    """What a workspace asks of its provider, and what revokes there."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def token_info(self, request: Request) -> Response:
        """Say what the bearer's token is good for; who holds it may know.

        The token has 256 bits, so asking cannot be guessing (RFC 7662 section 4).
        """
        token = bearer_token(request.headers.get("authorization", ""))
        found = None if token is None else self._provider.info(token)
        if found is None:
            answer = reply(401, {"active": False})
            answer.headers["www-authenticate"] = 'Bearer error="invalid_token"'
            return answer
        return reply(200, found)

    async def revoke(self, request: Request) -> Response:
        """End a token; an unknown one gets the same 200 (RFC 7009 section 2.2)."""
        try:
            form = await body_of(request)
            if not form.get("token"):
                raise missing("token")
        except TenantRefusedError as error:
            return refusal(error)
        self._provider.revoke(form["token"])
        return Response(status_code=200, headers={"cache-control": "no-store"})
