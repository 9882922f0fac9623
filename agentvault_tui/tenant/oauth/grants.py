"""The grants of the token endpoint but the device flow's."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Final

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.apis import Connections
from agentvault_tui.tenant.clients import TOKEN_VAULT, Client
from agentvault_tui.tenant.journal import LogCode, LogPeer
from agentvault_tui.tenant.oauth.wire import ExchangeError, missing, proven, refused
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.times import of_epoch
from agentvault_tui.tenant.tokens import IssuedTokens, Login, RefreshToken
from agentvault_tui.tenant.users import User
from agentvault_tui.tenant.vault.accounts import TokenPair, VaultAccount

_CODE_LIFETIME: Final = 60.0
"""Seconds; Auth0's live about as long."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token request whose client is authenticated and may use the grant."""

    form: Mapping[str, str] = field(repr=False)
    client: Client
    peer: LogPeer


@dataclass(frozen=True, slots=True)
class GrantResult:
    """The answer to a token request, and what the log tells of it."""

    body: dict[str, Any] = field(repr=False)
    user: User | None = None
    details: dict[str, Any] = field(default_factory=dict)
    connection: str | None = None
    audience: str | None = None


@dataclass(frozen=True, slots=True)
class GrantType:
    """One ``grant_type``: what it does, and the log's codes for how it ends."""

    act: Callable[[TokenRequest], GrantResult]
    succeeded: LogCode
    failed: LogCode


class MachineGrant:
    """Client credentials (RFC 6749 section 4.4)."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __call__(self, asked: TokenRequest) -> GrantResult:
        """Issue a client a token of its own.

        Raises:
            TenantRefusedError: ``access_denied``: no such API, or no client grant.
        """
        audience = asked.form.get("audience", asked.form.get("resource"))
        if audience is None:
            raise refused(
                "access_denied",
                "No audience parameter was provided, and no default audience has been"
                " configured",
            )
        api = self._parts.apis.asked(audience)
        granted = None
        if api is not None and asked.client.confidential:
            granted = self._parts.apis.granted(asked.client, api, "client")
        if api is None or granted is None:
            raise refused(
                "access_denied",
                f'Client is not authorized to access "{audience}". You need to create a'
                ' "client-grant" associated to this API. See:'
                " https://auth0.com/docs/api/v2#!/Client_Grants/post_client_grants",
            )
        wanted = asked.form.get("scope", "").split() or sorted(granted)
        scope = " ".join(word for word in dict.fromkeys(wanted) if word in granted)
        issued = self._parts.tokens.for_machine(asked.client, scope, api)
        return _answer(issued, audience)


class RefreshGrant:
    """Refresh tokens (RFC 6749 section 6), also for another API."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __call__(self, asked: TokenRequest) -> GrantResult:
        """Issue new tokens for a refresh token.

        Raises:
            TenantRefusedError: ``invalid_grant`` for the token; ``access_denied`` for
                its user, or for an audience it does not reach.
        """
        token = asked.form.get("refresh_token")
        if not token:
            raise missing("refresh_token")
        held = self._parts.refresh.find(token, asked.client)
        if self._parts.people.find(held.user_id) is None:
            raise refused(
                "invalid_grant",
                "The refresh_token was generated for a user who doesn't exist anymore.",
            )
        user = self._parts.tokens.able(held.user_id)
        audience = asked.form.get("audience") or held.audience
        if audience == self._parts.apis.userinfo:
            audience = ""
        allowed = self._reach(asked.client, held, audience)
        api = self._parts.apis.asked(audience or None)
        wanted = asked.form.get("scope", "").split() or allowed
        scope = " ".join(word for word in dict.fromkeys(wanted) if word in allowed)
        # Also where it was issued for: a client grant may have been taken back since.
        scope = self._parts.apis.for_user(asked.client, api, scope)
        issued = self._parts.tokens.for_refresh(
            asked.client, user, scope, api, held.session_id
        )
        if audience not in held.reach:
            self._parts.refresh.extend(held, audience, scope)
        return _answer(issued, audience or None)

    def _reach(self, client: Client, held: RefreshToken, audience: str) -> list[str]:
        """Return the scopes a token has at *audience*."""
        own = held.reach[held.audience].split()
        if audience == held.audience:
            return own
        policy = client.refresh_policies.get(audience)
        if policy is None:
            api = self._parts.apis.asked(audience or None)
            if api is None:
                raise refused("access_denied", "No policy reaches this audience.")
            raise self._parts.apis.no_access(client, api)
        return [*own, *policy]


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a person granted to a client."""

    client: Client
    redirect_uri: str
    scope: str
    audience: str | None = None
    nonce: str | None = field(default=None, repr=False)
    challenge: str | None = field(default=None, repr=False)


class CodeGrant:
    """Authorization codes (RFC 6749 section 4.1); the store has their hashes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def issue(self, granted: Authorization, login: Login) -> str:
        """Return a code for what *login* has granted."""
        code = secrets.token_urlsafe(32)
        now = self._now()
        # A spent one is kept for a while: used again, it ends what came of it.
        self._parts.store.change(
            "DELETE FROM auth_codes WHERE expires_at < ?", now - 60 * _CODE_LIFETIME
        )
        self._parts.store.insert(
            "auth_codes",
            code_hash=sha256_hex(code),
            client_id=granted.client.key,
            redirect_uri=granted.redirect_uri,
            challenge=granted.challenge,
            login=json.dumps(asdict(login)),
            scope=granted.scope,
            audience=granted.audience,
            nonce=granted.nonce,
            expires_at=now + _CODE_LIFETIME,
            spent=0,
        )
        return code

    def __call__(self, asked: TokenRequest) -> GrantResult:
        """Issue tokens for a code.

        Raises:
            TenantRefusedError: ``invalid_grant`` for all that may be wrong with it.
        """
        for name in ("code", "redirect_uri"):
            if not asked.form.get(name):
                raise missing(name)
        key = sha256_hex(asked.form["code"])
        row = self._parts.store.find(
            "auth_codes", code_hash=key, client_id=asked.client.key
        )
        unknown = refused("invalid_grant", "Invalid authorization code")
        if row is None:
            raise unknown
        verifier = asked.form.get("code_verifier")
        if row["redirect_uri"] != asked.form["redirect_uri"]:
            raise unknown
        if not proven(row["challenge"], verifier):
            raise refused("invalid_grant", "Failed to verify code verifier")
        # One statement looks and marks: of two that redeem it at once, one does.
        if not self._parts.store.update(
            "auth_codes", {"spent": 1}, code_hash=key, spent=0
        ):
            if row["refresh_id"] is not None:
                # RFC 6749 section 4.1.2: used twice, it was stolen.
                self._parts.refresh.revoke(row["refresh_id"])
            raise unknown
        if row["expires_at"] <= self._now():
            raise unknown
        issued = self._parts.tokens.for_login(
            asked.client,
            Login(**json.loads(row["login"])),
            row["scope"],
            self._parts.apis.asked(row["audience"]),
            row["nonce"],
        )
        came_of_it = {"refresh_id": issued.refresh_id}
        self._parts.store.update("auth_codes", came_of_it, code_hash=key)
        return _answer(issued, row["audience"])

    def _now(self) -> float:
        return self._parts.clock.now().timestamp()


def _answer(issued: IssuedTokens, audience: str | None) -> GrantResult:
    return GrantResult(issued.answer, issued.user, audience=audience)


_TYPES: Final = "urn:ietf:params:oauth:token-type:"
FROM_REFRESH: Final = f"{_TYPES}refresh_token"
TO_CONNECTION: Final = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"
)


class VaultGrant:
    """Token exchange (RFC 8693) as Auth0 has it; the log has each refusal's reason."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __call__(self, asked: TokenRequest) -> GrantResult:
        """Give the provider's access token.

        Raises:
            TenantRefusedError: with Auth0's word for what is missing.
        """
        form, client = asked.form, asked.client
        for name in ("subject_token_type", "subject_token", "requested_token_type"):
            if not form.get(name):
                raise missing(name)
        if not form.get("connection"):
            raise missing("connection")
        if not client.token_vault:
            raise refused(
                "unauthorized_client",
                f"Grant type '{TOKEN_VAULT}' not allowed for the client.",
            )
        user = self._subject(asked)
        account, lifetime = self._account(asked, user)
        tokens = self._parts.accounts.tokens(account, lifetime)
        if tokens is None:
            raise ExchangeError(
                "federated_connection_refresh_token_flow_failed",
                "Federated connection Refresh Token flow failed.",
                "provider_refused",
            )
        return self._outcome(asked, user, account, tokens)

    def _subject(self, asked: TokenRequest) -> User:
        if asked.form["subject_token_type"] != FROM_REFRESH:
            raise refused("invalid_request", "Unsupported subject_token_type.")
        if asked.form["requested_token_type"] != TO_CONNECTION:
            raise refused("invalid_request", "Unsupported requested_token_type.")
        try:
            held = self._parts.refresh.find(asked.form["subject_token"], asked.client)
        except TenantRefusedError:
            raise ExchangeError(
                "invalid_grant", "Unknown or invalid refresh token.", "invalid_token"
            ) from None
        user = self._parts.people.find(held.user_id)
        if user is None:
            raise ExchangeError(
                "invalid_token", "Invalid or expired subject token.", "user_is_gone"
            )
        if user.blocked:
            raise ExchangeError("access_denied", "user is blocked", "user_is_blocked")
        return user

    def _account(self, asked: TokenRequest, user: User) -> tuple[VaultAccount, float]:
        """Find the account; whatever is missing has one name, as at Auth0."""
        name = asked.form["connection"]
        connection = self._parts.connections.for_vault(name, asked.client)
        if connection is None:
            raise _not_found("connection_not_enabled")
        found = self._parts.accounts.list(user.sub, name)
        if not found:
            raise _not_found("tokenset_not_found")
        # Of several, the one connected last.
        return found[-1], Connections.token_lifetime(connection)

    def _outcome(
        self,
        asked: TokenRequest,
        user: User,
        account: VaultAccount,
        tokens: TokenPair,
    ) -> GrantResult:
        left = int(tokens.expires_at - self._parts.clock.now().timestamp())
        kind = asked.form["requested_token_type"]
        answer: dict[str, object] = {
            "access_token": tokens.access_token,
            "scope": tokens.scope,
            "expires_in": max(left, 0),
            "issued_token_type": kind,
            "token_type": "Bearer",
        }
        details = {
            "subject_token_type": asked.form["subject_token_type"],
            "issued_token_type": kind,
            "scope": tokens.scope,
            "expires_at": of_epoch(tokens.expires_at),
            "token_thumbprint": sha256(tokens.access_token.encode()).hexdigest(),
            "token_broker": "token_vault",
            "connected_account": {"id": account.id, "idp_user_id": account.account},
            "is_privileged_worker": False,
        }
        return GrantResult(answer, user, details, account.connection)


def _not_found(reason: str) -> ExchangeError:
    return ExchangeError(
        "federated_connection_refresh_token_not_found",
        "Federated connection Refresh Token not found.",
        reason,
    )
