"""ID, access and refresh tokens: issued, and read."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import new_id, new_secret, sha256_hex
from agentvault_tui.model.claims import MFA_AT, ROLES, STEPUP
from agentvault_tui.tenant.apis import OFFLINE, Apis, ResourceServer
from agentvault_tui.tenant.clients import REFRESH_TOKEN, Client
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.store import Row, Store
from agentvault_tui.tenant.users import People, User

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
    amr: tuple[str, ...] = ("mfa", "pwd", "otp")
    """RFC 8176, where there was a second factor."""
    stepup: dict[str, Any] | None = None
    """The decision about a step-up."""


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """The members of a token answer (RFC 6749 section 5.1), and its row in the log."""

    answer: dict[str, object] = field(repr=False)
    user: User | None = None
    refresh_id: str | None = None


@dataclass(frozen=True, slots=True)
class TokenService:
    """Issues tokens in the name of one issuer."""

    store: Store
    keys: SigningKeys
    clock: Clock
    issuer: str
    apis: Apis
    people: People
    refresh: RefreshTokens

    def for_login(
        self,
        client: Client,
        login: Login,
        scope: str,
        api: ResourceServer | None,
        nonce: str | None = None,
    ) -> IssuedTokens:
        """Make the tokens of a sign-in; *api* is whom the access token is for.

        Raises:
            TenantRefusedError: ``access_denied``: the user is gone or blocked.
        """
        user, words = self.able(login.sub), scope.split()
        answer = self._access(client, user, scope, api)
        if "openid" in words:
            answer["id_token"] = self._id_token(client, user, words, login, nonce)
        key = None
        if OFFLINE in words:
            audience = "" if api is None else api.identifier
            answer["refresh_token"], key = self.refresh.issue(
                client, user.sub, login.sid, audience, scope
            )
        return IssuedTokens(answer, user, key)

    def for_refresh(
        self,
        client: Client,
        user: User,
        scope: str,
        api: ResourceServer | None,
        sid: str | None,
    ) -> IssuedTokens:
        """Issue the tokens of a refresh, which prove no factor."""
        answer = self._access(client, user, scope, api, REFRESH_TOKEN)
        words = scope.split()
        if "openid" in words:
            login = Login(user.sub, sid or "", 0, mfa=False)
            answer["id_token"] = self._id_token(client, user, words, login, None)
        return IssuedTokens(answer, user)

    def for_denial(self, client: Client, login: Login, scope: str) -> str:
        """Return the ID token that says who denied a step-up, and proves no factor."""
        user = self.able(login.sub)
        return self._id_token(client, user, scope.split(), login, None)

    def for_machine(
        self, client: Client, scope: str, api: ResourceServer
    ) -> IssuedTokens:
        """Make a client's own access token (RFC 6749 section 4.4)."""
        sub = f"{client.client_id}@clients"
        return IssuedTokens(self._signed(client, sub, scope, api, "client-credentials"))

    def userinfo(self, access_token: str) -> dict[str, object] | None:
        """Return the claims an access token opens (OpenID Connect Core 5.3)."""
        row = self.store.find("access_tokens", token_hash=sha256_hex(access_token))
        if row is None or row["expires_at"] <= self.clock.now().timestamp():
            return None
        user = self.people.find(row["sub"])
        live = user is not None and not user.blocked
        return person(user, row["scope"].split()) if user and live else None

    def revoke(self, token: str, client: Client) -> None:
        """Revoke a token for /userinfo if it is *client*'s (RFC 7009 section 2).

        One for an API is signed, and lives until it expires: as at Auth0.
        """
        self.store.delete(
            "access_tokens", token_hash=sha256_hex(token), client_id=client.key
        )

    def able(self, sub: str | None) -> User:
        """Return the user *sub*, who may have tokens.

        Raises:
            TenantRefusedError: ``access_denied``: the user is gone or blocked.
        """
        user = self.people.find(sub)
        if user is None:
            raise TenantRefusedError(
                "access_denied", "The user does not exist any more."
            )
        if user.blocked:
            raise TenantRefusedError("access_denied", "user is blocked")
        return user

    def _access(
        self,
        client: Client,
        user: User,
        scope: str,
        api: ResourceServer | None,
        grant: str | None = None,
    ) -> dict[str, object]:
        if api is not None:
            return self._signed(client, user.sub, scope, api, grant)
        now = self.clock.now().timestamp()
        token = new_secret("av_u")
        self.store.change("DELETE FROM access_tokens WHERE expires_at <= ?", now)
        self.store.insert(
            "access_tokens",
            token_hash=sha256_hex(token),
            client_id=client.key,
            sub=user.sub,
            scope=scope,
            expires_at=now + LIFETIME,
        )
        return _answer(token, scope, LIFETIME)

    def _signed(
        self,
        client: Client,
        sub: str,
        scope: str,
        api: ResourceServer,
        grant: str | None,
    ) -> dict[str, object]:
        """Make a JWT access token, with the claims of Auth0's default profile."""
        now = int(self.clock.now().timestamp())
        oidc = "openid" in scope.split()
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": sub,
            "aud": [api.identifier, self.apis.userinfo] if oidc else api.identifier,
            "iat": now,
            "exp": now + api.lifetime,
            "scope": scope,
            "azp": client.client_id,
        }
        if grant is not None:
            claims["gty"] = grant
        return _answer(self.keys.sign(claims), scope, api.lifetime)

    def _id_token(
        self,
        client: Client,
        user: User,
        scopes: list[str],
        login: Login,
        nonce: str | None,
    ) -> str:
        now = int(self.clock.now().timestamp())
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": client.client_id,
            "iat": now,
            "exp": now + client.id_token_lifetime,
            ROLES: list(user.roles),
            **person(user, scopes),
        }
        if login.sid:
            claims["sid"] = login.sid
        if nonce is not None:
            claims["nonce"] = nonce
        if login.at:
            claims["auth_time"] = login.at
        if login.mfa:
            claims |= {"amr": list(login.amr), "acr": MFA_ACR, MFA_AT: login.at}
        if login.stepup is not None:
            claims[STEPUP] = login.stepup
        return self.keys.sign(claims)


@dataclass(frozen=True, slots=True)
class VerifiedAccess:
    """The claims of a valid access token."""

    sub: str
    client_id: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class AccessTokens:
    """Reads the access tokens that one issuer signed."""

    keys: SigningKeys
    clock: Clock
    issuer: str

    def read(self, token: str, audience: str) -> VerifiedAccess | None:
        """Return the claims of *token* if it is ours, in time, and for *audience*.

        An ID token is none: it has neither ``scope`` nor ``azp`` (RFC 8725 section
        3.12).
        """
        verified = self.keys.verified(token)
        if verified is None:
            return None
        header, claims = verified
        listed, expires = claims.get("aud"), claims.get("exp")
        sub, client, scope = (claims.get(name) for name in ("sub", "azp", "scope"))
        if (
            header.get("typ") != "JWT"
            or claims.get("iss") != self.issuer
            or not isinstance(client, str)
            or not isinstance(sub, str)
            or not isinstance(scope, str)
            or type(expires) is not int
            or expires <= self.clock.now().timestamp()
            or audience not in (listed if isinstance(listed, list) else [listed])
        ):
            return None
        return VerifiedAccess(sub, client, frozenset(scope.split()))

    def bearer(self, authorization: str, audience: str) -> VerifiedAccess | None:
        token = bearer_token(authorization)
        return None if token is None else self.read(token, audience)


def bearer_token(authorization: str) -> str | None:
    """Return the token of an ``Authorization`` header (RFC 6750 section 2.1).

    The scheme's case does not count (RFC 9110 section 11.1).
    """
    kind, _, token = authorization.partition(" ")
    return token if kind.lower() == "bearer" and token else None


def person(user: User, scopes: list[str]) -> dict[str, object]:
    """Return the claims of OpenID Connect Core section 5.4 for *scopes*."""
    claims: dict[str, object] = {"sub": user.sub}
    if "profile" in scopes:
        name = str(user.profile.get("name", user.name))
        nickname = str(user.profile.get("nickname", user.name.partition("@")[0]))
        claims |= {"name": name, "nickname": nickname}
    if "email" in scopes and user.email is not None:
        claims |= {"email": user.email, "email_verified": user.email_verified}
    return claims


def _answer(token: str, scope: str, lifetime: int) -> dict[str, object]:
    rest = {"scope": scope, "expires_in": lifetime, "token_type": "Bearer"}
    return {"access_token": token, **rest}


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
    """Its audience; empty for /userinfo."""
    reach: dict[str, str]
    """Every audience it was used for so far, and the scopes there."""
    created_at: float
    last_exchanged_at: float | None


class RefreshTokens:
    """The refresh tokens of one store, which has hashes alone."""

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
        return next(iter(self._rows(id=key)), None)

    def _rows(self, **columns: str) -> list[RefreshToken]:
        rows = self._store.rows("refresh_tokens", gone_at=None, **columns)
        return [read_refresh_token(row) for row in rows]

    def list(
        self,
        *,
        user_id: str | None = None,
        client_id: str | None = None,
        audience: str | None = None,
    ) -> list[RefreshToken]:
        """Return the live tokens that match every filter given, oldest first."""
        filters = {"user_id": user_id, "client_id": client_id, "audience": audience}
        given = {name: value for name, value in filters.items() if value is not None}
        return self._rows(**given)

    def revoke(self, key: str) -> None:
        self._store.delete("refresh_tokens", id=key)
        self._forget_secrets()

    def revoke_secret(self, token: str, client: Client) -> RefreshToken | None:
        """Revoke *token* if it is *client*'s; return it (RFC 7009)."""
        held = self._of_secret(token, client)
        if held is not None:
            RefreshTokens.revoke(self, held.id)  # at once, also where deletions lag
        return held

    def _of_secret(self, token: str, client: Client) -> RefreshToken | None:
        """Find a live token by its secret; to a foreign client it is unknown."""
        row = self._store.find("refresh_secrets", token_hash=sha256_hex(token))
        held = None if row is None else self.get(row["id"])
        return held if held and held.client_id == client.client_id else None

    def _forget_secrets(self) -> None:
        self._store.change(
            "DELETE FROM refresh_secrets WHERE id NOT IN"
            " (SELECT id FROM refresh_tokens)"
        )

    def _now(self) -> float:
        return self._clock.now().timestamp()


def read_refresh_token(row: Row) -> RefreshToken:
    """Read a refresh token from its row."""
    names = ("id", "user_id", "client_id", "session_id", "audience", "created_at")
    members = {name: row[name] for name in (*names, "last_exchanged_at")}
    return RefreshToken(**members, reach=json.loads(row["reach"]))
