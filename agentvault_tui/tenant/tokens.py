"""Tokens made: ID tokens, access tokens in each API's dialect, refresh tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import new_id, new_secret, sha256_hex
from agentvault_tui.model.claims import MFA_AT, ROLES
from agentvault_tui.tenant.apis import OFFLINE, OIDC_SCOPES, Api, Apis
from agentvault_tui.tenant.clients import CLIENT_CREDENTIALS, REFRESH_TOKEN, Client
from agentvault_tui.tenant.consents import Consents
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.people import People, User
from agentvault_tui.tenant.refresh import RefreshTokens
from agentvault_tui.tenant.store import Store

LIFETIME: Final = 300
"""Seconds a token for /userinfo lives."""
MFA_ACR: Final = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"


@dataclass(frozen=True, slots=True)
class Login:
    """Who signed in, when, and whether with a second factor."""

    sub: str
    sid: str
    at: int
    mfa: bool


@dataclass(frozen=True, slots=True)
class Issued:
    """The members of a token answer (RFC 6749 section 5.1), and what the log tells."""

    answer: dict[str, Any] = field(repr=False)
    user: User | None = None
    jti: str | None = None
    refresh_id: str | None = None


class TokenService:
    """Makes tokens in the name of one issuer."""

    def __init__(
        self,
        store: Store,
        *,
        keys: SigningKeys,
        clock: Clock,
        issuer: str,
        apis: Apis,
        people: People,
        refresh: RefreshTokens,
        consents: Consents,
    ) -> None:
        """Issue as *issuer*."""
        self._store = store
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._apis = apis
        self._people = people
        self._refresh = refresh
        self._consents = consents

    def for_login(
        self,
        client: Client,
        login: Login,
        scope: str,
        api: Api | None,
        nonce: str | None = None,
        *,
        details: list[dict[str, Any]] | None = None,
        remember: bool = True,
    ) -> Issued:
        """Make the tokens of a sign-in.

        Args:
            client: who gets them.
            login: who signed in.
            scope: what was asked for.
            api: whom the access token is for.
            nonce: the ID token's.
            details: ``authorization_details`` that were granted (RFC 9396).
            remember: keep it as a grant that the user gave the client.

        Raises:
            TenantRefusedError: ``access_denied``: the user is gone or blocked.
        """
        user = self.able(login.sub)
        scope = self.bounded(user, scope, api)
        audience = "" if api is None else api.identifier
        if remember:
            self._consents.record(
                client, user.sub, audience or self._apis.userinfo, scope
            )
        answer, jti = self._access(client, user, scope, api, details=details)
        if "openid" in scope.split():
            answer["id_token"] = self._id_token(client, user, scope, login, nonce)
        key = None
        if OFFLINE in scope.split():
            token, key = self._refresh.issue(
                client, user.sub, login.sid, audience, scope
            )
            answer["refresh_token"] = token
        return Issued(answer, user, jti, key)

    def for_refresh(
        self, client: Client, user: User, scope: str, api: Api | None, sid: str | None
    ) -> Issued:
        """Make the tokens of a refresh: nothing in them says anything of a factor."""
        scope = self.bounded(user, scope, api)
        answer, jti = self._access(client, user, scope, api, grant=REFRESH_TOKEN)
        if "openid" in scope.split():
            login = Login(user.sub, sid or "", 0, mfa=False)
            answer["id_token"] = self._id_token(client, user, scope, login, None)
        return Issued(answer, user, jti)

    def for_machine(self, client: Client, scope: str, api: Api) -> Issued:
        """Make a client's own access token (RFC 6749 section 4.4)."""
        answer, jti = self._signed(
            client,
            f"{client.client_id}@clients",
            scope,
            api,
            grant=CLIENT_CREDENTIALS,
        )
        return Issued(answer, None, jti)

    def userinfo(self, access_token: str) -> dict[str, Any] | None:
        """Return the claims an access token opens (OpenID Connect Core 5.3)."""
        row = self._store.one(
            "SELECT sub, scope FROM access_tokens WHERE token_hash = ?"
            " AND expires_at > ?",
            sha256_hex(access_token),
            self._clock.now().timestamp(),
        )
        user = None if row is None else self._people.find(row["sub"])
        if row is None or user is None or user.blocked:
            return None
        return person(user, row["scope"].split())

    def revoke(self, token: str, client: Client) -> None:
        """End a token for /userinfo if it is *client*'s (RFC 7009 section 2).

        One for an API is signed, and nothing ends it early: as at Auth0.
        """
        self._store.change(
            "DELETE FROM access_tokens WHERE token_hash = ? AND client_id = ?",
            sha256_hex(token),
            client.key,
        )

    def able(self, sub: str | None) -> User:
        """Return the user *sub*, who may have tokens.

        Raises:
            TenantRefusedError: ``access_denied``: the user is gone or blocked.
        """
        user = self._people.find(sub)
        if user is None:
            raise TenantRefusedError(
                "access_denied", "The user does not exist any more."
            )
        if user.blocked:
            raise TenantRefusedError("access_denied", "user is blocked")
        return user

    def bounded(self, user: User, scope: str, api: Api | None) -> str:
        """Return *scope* without what RBAC does not give this user."""
        if api is None or not api.rbac:
            return scope
        held = {*api.permissions(user), *OIDC_SCOPES, OFFLINE}
        return " ".join(word for word in scope.split() if word in held)

    def _access(
        self,
        client: Client,
        user: User,
        scope: str,
        api: Api | None,
        *,
        grant: str | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> tuple[dict[str, Any], str | None]:
        if api is not None:
            return self._signed(
                client, user.sub, scope, api, grant=grant, user=user, details=details
            )
        now = self._clock.now().timestamp()
        token = new_secret("av_u")
        self._store.change("DELETE FROM access_tokens WHERE expires_at <= ?", now)
        self._store.change(
            "INSERT INTO access_tokens VALUES (?, ?, ?, ?, ?)",
            *(sha256_hex(token), client.key, user.sub, scope, now + LIFETIME),
        )
        return _answer(token, scope, LIFETIME), None

    def _signed(
        self,
        client: Client,
        sub: str,
        scope: str,
        api: Api,
        *,
        grant: str | None,
        user: User | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> tuple[dict[str, Any], str]:
        """Make a JWT access token: Auth0's dialect, or that of RFC 9068."""
        now, jti = int(self._clock.now().timestamp()), new_id("jti")
        profiled = api.dialect.startswith("rfc9068_profile")
        oidc = user is not None and "openid" in scope.split()
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": sub,
            "aud": [api.identifier, self._apis.userinfo] if oidc else api.identifier,
            "iat": now,
            "exp": now + api.lifetime,
            "scope": scope,
        }
        if profiled:
            claims |= {"client_id": client.client_id, "jti": jti}
        else:
            claims["azp"] = client.client_id
            if grant is not None:
                claims["gty"] = grant.replace("client_c", "client-c")
        if api.rbac and api.dialect.endswith("_authz"):
            held = scope.split() if user is None else api.permissions(user)
            claims["permissions"] = list(held)
        # RFC 9396 sections 7 and 9.1: in the answer, and in the token.
        granted = {"authorization_details": details} if details else {}
        token = self._keys.sign(claims | granted, "at+jwt" if profiled else "JWT")
        return _answer(token, scope, api.lifetime) | granted, jti

    def _id_token(
        self, client: Client, user: User, scope: str, login: Login, nonce: str | None
    ) -> str:
        now = int(self._clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": client.client_id,
            "iat": now,
            "exp": now + client.id_token_lifetime,
            ROLES: list(user.roles),
            **person(user, scope.split()),
        }
        if login.sid:
            claims["sid"] = login.sid
        if nonce is not None:
            claims["nonce"] = nonce
        if login.at:
            claims["auth_time"] = login.at
        if login.mfa:
            # RFC 8176: a password and a one-time code, and so more than one factor.
            claims |= {"amr": ["mfa", "pwd", "otp"], "acr": MFA_ACR, MFA_AT: login.at}
        return self._keys.sign(claims)


def person(user: User, scopes: list[str]) -> dict[str, Any]:
    """Return the claims of OpenID Connect Core section 5.4 for *scopes*."""
    claims: dict[str, Any] = {"sub": user.sub}
    if "profile" in scopes:
        name = str(user.profile.get("name", user.name))
        nickname = str(user.profile.get("nickname", user.name.partition("@")[0]))
        claims |= {"name": name, "nickname": nickname}
    if "email" in scopes and user.email is not None:
        claims |= {"email": user.email, "email_verified": user.email_verified}
    return claims


def _answer(token: str, scope: str, lifetime: int) -> dict[str, Any]:
    return {
        "access_token": token,
        "scope": scope,
        "expires_in": lifetime,
        "token_type": "Bearer",
    }
