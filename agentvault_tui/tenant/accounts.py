"""Token Vault's connected accounts, connect requests, and the built-in provider."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import new_id, new_secret, sha256_hex
from agentvault_tui.tenant.apis import WORKSPACE, Connections
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.journal import of_epoch
from agentvault_tui.tenant.management.wire import ApiError
from agentvault_tui.tenant.oauth.wire import body_of, proven, refusal, reply, required
from agentvault_tui.tenant.store import Document, Row, Store, TenantSeal
from agentvault_tui.tenant.tokens import bearer_token
from agentvault_tui.tenant.users import User

TOKENS_KIND: Final = "provider tokens"
_ALMOST: Final = 5.0
"""A token that lives no longer is refreshed rather than given out."""


@dataclass(frozen=True, slots=True)
class VaultAccount:
    """One account at one provider, connected by one user."""

    id: str
    user_id: str
    connection: str
    account: str
    """Who the user is at the provider."""
    scopes: tuple[str, ...]
    created_at: float


class VaultAccounts:
    """The connected accounts of one store."""

    def __init__(
        self, store: Store, seal: TenantSeal, clock: Clock, provider: Provider
    ) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._provider = provider

    def connect(
        self, user_id: str, connection: Document, account: str, scope: str
    ) -> VaultAccount:
        """Get tokens from the provider, and store them.

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
                created_at=self._clock.now().timestamp(),
                version=0,
                sealed=b"",
                token_expires_at=0,
            )
            (row,) = self._store.rows("connected_accounts", **whose)
            self._keep(row["id"], row["version"], tokens)
            self._store.update("connected_accounts", {"scope": scope}, id=row["id"])
        return _read(self._store.rows("connected_accounts", **whose)[0])

    def list(self, user_id: str, connection: str | None = None) -> list[VaultAccount]:
        named = {} if connection is None else {"connection": connection}
        rows = self._store.rows("connected_accounts", user_id=user_id, **named)
        return list(map(_read, rows))

    def get(self, key: str) -> VaultAccount | None:
        row = self._store.find("connected_accounts", id=key)
        return None if row is None else _read(row)

    def delete(self, key: str) -> bool:
        """Delete an account and our copy of its tokens; the provider's stay."""
        return bool(self._store.delete("connected_accounts", id=key))

    def tokens(self, account: VaultAccount, lifetime: float) -> TokenPair | None:
        """Return valid tokens; None when the provider refuses to refresh.

        *lifetime* is how many seconds the provider's access tokens live.
        """
        (row,) = self._store.rows("connected_accounts", id=account.id)
        raw = self._seal.open(TOKENS_KIND, account.id, row["version"], row["sealed"])
        scope, expires_at = row["scope"], row["token_expires_at"]
        held = TokenPair(**json.loads(raw), scope=scope, expires_at=expires_at)
        if expires_at - self._clock.now().timestamp() > _ALMOST:
            return held
        fresh = self._provider.refresh(held.refresh_token, lifetime)
        if fresh is not None:
            self._keep(account.id, row["version"], fresh)
        return fresh

    def _keep(self, key: str, version: int, tokens: TokenPair) -> None:
        secret = {
            "access_token": tokens.access_token,
            "refresh_token": tokens.refresh_token,
        }
        # A version in the associated data: older tokens, put back, do not open.
        box = self._seal.close(
            TOKENS_KIND, key, version + 1, json.dumps(secret).encode()
        )
        fresh = {"version": version + 1, "sealed": box,
                 "token_expires_at": tokens.expires_at}  # fmt: skip
        self._store.update("connected_accounts", fresh, id=key, version=version)


def shape(account: VaultAccount) -> dict[str, object]:
    """Return an account as the My Account API shows it."""
    return {
        "id": account.id,
        "connection": account.connection,
        "access_type": "offline",
        "scopes": list(account.scopes),
        "created_at": of_epoch(account.created_at),
    }


def _read(row: Row) -> VaultAccount:
    names = ("id", "user_id", "connection", "account", "created_at")
    members = {name: row[name] for name in names}
    return VaultAccount(**members, scopes=tuple(row["scope"].split()))


PATH: Final = "/agentvault/workspace"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A provider's tokens (RFC 6749 section 5.1)."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scope: str
    expires_at: float


class Provider:
    """The built-in provider of one store, which holds hashes of its tokens alone."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def grant(
        self, connection: str, account: str, scope: str, lifetime: float
    ) -> TokenPair:
        """Issue tokens for the scopes that the owner of *account* has consented to."""
        key, refresh = new_id("pgr"), new_secret("av_pr")
        self._store.insert(
            "provider_grants",
            id=key,
            connection=connection,
            account=account,
            scope=scope,
            refresh_hash=sha256_hex(refresh),
            created_at=self._clock.now().timestamp(),
        )
        access, expires_at = self._token(key, scope, lifetime)
        return TokenPair(access, refresh, scope, expires_at)

    def refresh(self, refresh_token: str, lifetime: float) -> TokenPair | None:
        """Issue a new access token; None: refused."""
        digest = sha256_hex(refresh_token)
        row = self._store.find("provider_grants", refresh_hash=digest)
        if row is None:
            return None
        access, expires_at = self._token(row["id"], row["scope"], lifetime)
        return TokenPair(access, refresh_token, row["scope"], expires_at)

    def info(self, access_token: str) -> dict[str, object] | None:
        """Return the scope of a live access token; None if it is not one."""
        row = self._store.one(
            "SELECT t.scope, t.expires_at, g.account, g.connection"
            " FROM provider_tokens t JOIN provider_grants g ON g.id = t.grant_id"
            " WHERE t.token_hash = ? AND t.expires_at > ?",
            *(sha256_hex(access_token), self._clock.now().timestamp()),
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
        """Revoke a token; a refresh token ends its grant (RFC 7009 section 2.1)."""
        digest = sha256_hex(token)
        row = self._store.find("provider_grants", refresh_hash=digest)
        if row is not None:
            with self._store.transaction():
                self._store.delete("provider_tokens", grant_id=row["id"])
                self._store.delete("provider_grants", id=row["id"])
        self._store.delete("provider_tokens", token_hash=digest)

    def routes(self) -> list[BaseRoute]:
        """Return a workspace's routes: introspection and revocation."""
        return [
            Route(f"{PATH}/tokeninfo", self._token_info),
            Route(f"{PATH}/revoke", self._revoke, methods=["POST"]),
        ]

    async def _token_info(self, request: Request) -> Response:
        """Return the scope of the bearer's token: its holder may know."""
        token = bearer_token(request.headers.get("authorization", ""))
        info = None if token is None else self.info(token)
        if info is None:
            answer = reply(401, {"active": False})
            answer.headers["www-authenticate"] = 'Bearer error="invalid_token"'
            return answer
        return reply(200, info)

    async def _revoke(self, request: Request) -> Response:
        """End a token; an unknown one gets the same 200 (RFC 7009 section 2.2)."""
        try:
            (token,) = required(await body_of(request), "token")
        except TenantRefusedError as error:
            return refusal(error)
        self.revoke(token)
        return Response(status_code=200, headers={"cache-control": "no-store"})

    def _token(self, key: str, scope: str, lifetime: float) -> tuple[str, float]:
        now = self._clock.now().timestamp()
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


def where(issuer: str) -> dict[str, dict[str, str]]:
    """Return the built-in provider's endpoints by its connection's name."""
    base = f"{issuer.rstrip('/')}{PATH}"
    return {
        WORKSPACE: {
            "revocation_endpoint": f"{base}/revoke",
            "userinfo_endpoint": f"{base}/tokeninfo",
        }
    }


EXPIRES_IN: Final = 300
"""Seconds from the request to its completion."""
_WAITING: Final = 64
"""Requests one user may have open: each costs a row."""


@dataclass(frozen=True, slots=True)
class PendingConsent:
    """A consent request to a person."""

    key: str
    """SHA-256 of the session the client holds."""
    user_id: str
    client_id: str
    connection: str
    redirect_uri: str
    state: str | None
    scope: str
    expires_at: float


class Connecting:
    """Connect requests that wait for a person; their secrets are stored as hashes."""

    def __init__(self, store: Store, clock: Clock, issuer: str) -> None:
        self._store = store
        self._clock = clock
        self._issuer = issuer

    def start(
        self, user: User, client: Client, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Begin; return the data with which the client goes on.

        Raises:
            ApiError: 429: the user has too many open already.
        """
        now = self._now()
        self._store.change("DELETE FROM connect_requests WHERE expires_at <= ?", now)
        row = self._store.one(
            "SELECT count(*) AS n FROM connect_requests WHERE user_id = ?", user.sub
        )
        if row is not None and row["n"] >= _WAITING:
            raise ApiError(429, "Too many connect requests are waiting.", None)
        session, ticket = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._store.insert(
            "connect_requests",
            session_hash=sha256_hex(session),
            ticket_hash=sha256_hex(ticket),
            user_id=user.sub,
            client_id=client.client_id,
            connection=body["connection"],
            redirect_uri=body["redirect_uri"],
            state=body.get("state"),
            challenge=body.get("code_challenge"),
            scope=" ".join(body.get("scopes") or ()),
            expires_at=now + EXPIRES_IN,
        )
        return {
            "auth_session": session,
            "connect_uri": f"{self._issuer}connected-accounts/connect",
            "connect_params": {"ticket": ticket},
            "expires_in": EXPIRES_IN,
        }

    def by_ticket(self, ticket: str) -> PendingConsent | None:
        """Return the undecided request of a link."""
        return self._undecided(ticket_hash=sha256_hex(ticket))

    def by_key(self, key: str) -> PendingConsent | None:
        """Return an undecided request again."""
        return self._undecided(session_hash=key)

    def consent(self, consent: PendingConsent, account: str) -> str | None:
        """Record consent for *account*; return the code that proves it, once."""
        code = secrets.token_urlsafe(32)
        changed = self._store.change(
            "UPDATE connect_requests SET code_hash = ?, account = ?"
            " WHERE session_hash = ? AND code_hash IS NULL AND expires_at > ?",
            *(sha256_hex(code), account, consent.key, self._now()),
        )
        return code if changed else None

    def cancel(self, consent: PendingConsent) -> None:
        self._store.delete("connect_requests", session_hash=consent.key)

    def complete(
        self, user: User, client: Client, body: Mapping[str, Any]
    ) -> tuple[str, str, str]:
        """Take the code, once, from who began; return connection, account and scope.

        The code alone is worth nothing: it takes the session of the client that
        began, that user's token, the same redirect_uri, and the verifier (RFC 7636).

        Raises:
            ApiError: 400 if any of it is wrong.
        """
        key = sha256_hex(body["auth_session"])
        with self._store.transaction():
            row = self._store.find("connect_requests", session_hash=key)
            refused = ApiError(400, "The connect request cannot be completed.", None)
            if row is None or (row["user_id"], row["client_id"]) != (
                user.sub,
                client.client_id,
            ):
                raise refused
            right = (
                row["code_hash"] is not None
                and row["expires_at"] > self._now()
                and hmac.compare_digest(
                    row["code_hash"], sha256_hex(body["connect_code"])
                )
                and row["redirect_uri"] == body["redirect_uri"]
                and proven(row["challenge"], body.get("code_verifier"))
            )
            if not right:
                raise refused
            self._store.delete("connect_requests", session_hash=key)
        return row["connection"], row["account"], row["scope"]

    def _undecided(self, **column: str) -> PendingConsent | None:
        row = self._store.find("connect_requests", code_hash=None, **column)
        if row is None or row["expires_at"] <= self._now():
            return None
        members = [one.name for one in fields(PendingConsent) if one.name != "key"]
        return PendingConsent(row["session_hash"], *(row[name] for name in members))

    def _now(self) -> float:
        return self._clock.now().timestamp()
