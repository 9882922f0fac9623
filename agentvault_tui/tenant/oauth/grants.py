"""The endpoints every grant shares, and the grants, all but the device flow's."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.apis import Connections
from agentvault_tui.tenant.clients import TOKEN_VAULT, Client
from agentvault_tui.tenant.journal import LogCode, of_epoch
from agentvault_tui.tenant.oauth.wire import (
    ExchangeError,
    body_of,
    proven,
    refusal,
    refused,
    reply,
    required,
)
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.tokens import (
    IssuedTokens,
    Login,
    RefreshToken,
    bearer_token,
    person,
)
from agentvault_tui.tenant.users import User
from agentvault_tui.text import visible

_NOT_YET: Final = frozenset({"authorization_pending", "slow_down"})
_CODE_LIFETIME: Final = 60.0
"""Seconds; Auth0's live about as long."""
_FROM_REFRESH: Final = "urn:ietf:params:oauth:token-type:refresh_token"
_TO_CONNECTION: Final = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"
)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token request whose client is authenticated and may use the grant."""

    form: Mapping[str, str] = field(repr=False)
    client: Client


@dataclass(frozen=True, slots=True)
class GrantResult:
    """The answer to a token request, and its row in the log."""

    body: dict[str, Any] = field(repr=False)
    user: User | None = None
    details: dict[str, Any] = field(default_factory=dict)
    connection: str | None = None
    audience: str | None = None


@dataclass(frozen=True, slots=True)
class GrantType:
    """One ``grant_type``: its function, and the log's codes for its results."""

    act: Callable[[Parts, TokenRequest], GrantResult]
    succeeded: LogCode
    failed: LogCode


class OAuthEndpoints:
    """``POST /oauth/token``, ``POST /oauth/revoke`` and ``/userinfo``."""

    def __init__(self, parts: Parts, grants: Mapping[str, GrantType]) -> None:
        self._parts = parts
        self._grants = grants

    async def token(self, request: Request) -> Response:
        """Answer a token request (RFC 6749 section 3.2)."""
        client: Client | None = None
        grant: GrantType | None = None
        form: dict[str, str] = {}
        try:
            form = await body_of(request)
            (kind,) = required(form, "grant_type")
            grant = self._grants.get(kind)
            if grant is None:
                raise refused(
                    "unsupported_grant_type",
                    f"Unsupported grant type: {visible(kind, 80)}",
                )
            client = self._client(request, form)
            if kind not in client.grants:
                raise refused(
                    "unauthorized_client",
                    f"Grant type '{kind}' not allowed for the client.",
                )
            outcome = grant.act(self._parts, TokenRequest(form, client))
        except TenantRefusedError as error:
            if grant is not None and error.error not in _NOT_YET:
                reason = (
                    error.reason if isinstance(error, ExchangeError) else error.error
                )
                self._parts.journal.write(
                    grant.failed,
                    request,
                    description=error.what,
                    client=client,
                    details={"error": error.error, "failure_reason": reason},
                    connection=None if client is None else form.get("connection"),
                )
            return refusal(error)
        self._parts.journal.write(
            grant.succeeded,
            request,
            client=client,
            user=outcome.user,
            details=outcome.details,
            connection=outcome.connection,
            audience=outcome.audience,
            scope=outcome.body.get("scope"),
        )
        return reply(200, outcome.body)

    async def revoke(self, request: Request) -> Response:
        """End a token; an unknown one gets the same 200 (RFC 7009 section 2.2)."""
        try:
            form = await body_of(request)
            (token,) = required(form, "token")
            client = self._client(request, form)
        except TenantRefusedError as error:
            return refusal(error)
        self._parts.tokens.revoke(token, client)
        held = self._parts.refresh.revoke_secret(token, client)
        if held is not None:
            self._parts.journal.write(
                "srrt",
                request,
                client=client,
                details={"credential_id": held.id, "user_id": held.user_id},
            )
        return Response(status_code=200, headers={"cache-control": "no-store"})

    def _client(self, request: Request, form: Mapping[str, str]) -> Client:
        header = request.headers.get("authorization", "")
        return self._parts.clients.authenticate(form, header)

    async def user_info(self, request: Request) -> Response:
        """Answer ``/userinfo`` (OpenID Connect Core section 5.3)."""
        parts = self._parts
        token = bearer_token(request.headers.get("authorization", ""))
        claims = None if token is None else parts.tokens.userinfo(token)
        if claims is None and token is not None:
            access = parts.access.read(token, parts.apis.userinfo)
            user = None if access is None else parts.people.find(access.sub)
            if access is not None and user is not None and not user.blocked:
                claims = person(user, sorted(access.scopes))
        if claims is None:
            answer = reply(401, {"error": "invalid_token"})
            answer.headers["www-authenticate"] = 'Bearer error="invalid_token"'
            return answer
        return reply(200, claims)


def client_credentials(parts: Parts, request: TokenRequest) -> GrantResult:
    """Issue a client an access token of its own (RFC 6749 section 4.4).

    Raises:
        TenantRefusedError: ``access_denied``: no such API, or no client grant.
    """
    audience = request.form.get("audience", request.form.get("resource"))
    if audience is None:
        raise refused(
            "access_denied",
            "No audience parameter was provided, and no default audience has been"
            " configured",
        )
    api = parts.apis.requested(audience)
    granted = None
    if api is not None and request.client.confidential:
        granted = parts.apis.granted(request.client, api, "client")
    if api is None or granted is None:
        raise refused(
            "access_denied",
            f'Client is not authorized to access "{audience}". You need to create a'
            ' "client-grant" associated to this API. See:'
            " https://auth0.com/docs/api/v2#!/Client_Grants/post_client_grants",
        )
    scope = _among(request.form.get("scope", "").split() or sorted(granted), granted)
    return _answer(parts.tokens.for_machine(request.client, scope, api), audience)


def refresh_token(parts: Parts, request: TokenRequest) -> GrantResult:
    """Issue new tokens for a refresh token (RFC 6749 section 6), also for another API.

    Raises:
        TenantRefusedError: ``invalid_grant`` for the token; ``access_denied`` for its
            user, or for an audience it does not reach.
    """
    (token,) = required(request.form, "refresh_token")
    held = parts.refresh.find(token, request.client)
    if parts.people.find(held.user_id) is None:
        raise refused(
            "invalid_grant",
            "The refresh_token was generated for a user who doesn't exist anymore.",
        )
    user = parts.tokens.able(held.user_id)
    audience = request.form.get("audience") or held.audience
    if audience == parts.apis.userinfo:
        audience = ""
    allowed = _scopes_at(parts, request.client, held, audience)
    api = parts.apis.requested(audience or None)
    scope = _among(request.form.get("scope", "").split() or allowed, allowed)
    # Also where it was issued for: a client grant may have been taken back since.
    scope = parts.apis.for_user(request.client, api, scope)
    issued = parts.tokens.for_refresh(request.client, user, scope, api, held.session_id)
    if audience not in held.reach:
        parts.refresh.extend(held, audience, scope)
    return _answer(issued, audience or None)


def _scopes_at(
    parts: Parts, client: Client, held: RefreshToken, audience: str
) -> list[str]:
    """Return the scopes a refresh token has at *audience*."""
    own = held.reach[held.audience].split()
    if audience == held.audience:
        return own
    policy = client.refresh_policies.get(audience)
    if policy is None:
        api = parts.apis.requested(audience or None)
        if api is None:
            raise refused("access_denied", "No policy reaches this audience.")
        raise parts.apis.no_access(client, api)
    return [*own, *policy]


def issue_code(
    parts: Parts,
    client: Client,
    login: Login,
    *,
    redirect_uri: str,
    scope: str,
    audience: str | None,
    nonce: str | None,
    challenge: str | None,
) -> str:
    """Return an authorization code for the scopes that *login* granted to *client*.

    The store has its hash alone.
    """
    code = secrets.token_urlsafe(32)
    now = parts.clock.now().timestamp()
    # A spent one is kept for a while: used again, it ends what came of it.
    parts.store.change(
        "DELETE FROM auth_codes WHERE expires_at < ?", now - 60 * _CODE_LIFETIME
    )
    parts.store.insert(
        "auth_codes",
        code_hash=sha256_hex(code),
        client_id=client.key,
        redirect_uri=redirect_uri,
        challenge=challenge,
        login=json.dumps(asdict(login)),
        scope=scope,
        audience=audience,
        nonce=nonce,
        expires_at=now + _CODE_LIFETIME,
        spent=0,
    )
    return code


def authorization_code(parts: Parts, request: TokenRequest) -> GrantResult:
    """Issue tokens for an authorization code (RFC 6749 section 4.1.3).

    Raises:
        TenantRefusedError: ``invalid_grant`` for all that may be wrong with it.
    """
    code, redirect_uri = required(request.form, "code", "redirect_uri")
    key = sha256_hex(code)
    unknown = refused("invalid_grant", "Invalid authorization code")
    row = parts.store.find("auth_codes", code_hash=key, client_id=request.client.key)
    if row is None or row["redirect_uri"] != redirect_uri:
        raise unknown
    if not proven(row["challenge"], request.form.get("code_verifier")):
        raise refused("invalid_grant", "Failed to verify code verifier")
    # One statement looks and marks: of two that redeem it at once, one does.
    if not parts.store.update("auth_codes", {"spent": 1}, code_hash=key, spent=0):
        # RFC 6749 section 4.1.2: used twice, it was stolen, and what came of it ends,
        # also where another broker is about to give that out.
        parts.store.update("auth_codes", {"spent": 2}, code_hash=key)
        row = parts.store.find("auth_codes", code_hash=key)
        if row is not None and row["refresh_id"] is not None:
            parts.refresh.revoke(row["refresh_id"])
        raise unknown
    if row["expires_at"] <= parts.clock.now().timestamp():
        raise unknown
    issued = parts.tokens.for_login(
        request.client,
        Login(**json.loads(row["login"])),
        row["scope"],
        parts.apis.requested(row["audience"]),
        row["nonce"],
    )
    came = {"refresh_id": issued.refresh_id}
    if not parts.store.update("auth_codes", came, code_hash=key, spent=1):
        if issued.refresh_id is not None:
            parts.refresh.revoke(issued.refresh_id)
        raise unknown
    return _answer(issued, row["audience"])


def token_vault(parts: Parts, request: TokenRequest) -> GrantResult:
    """Exchange a refresh token for the provider's access token, as Auth0 does.

    RFC 8693. Whatever is missing has one name in the answer; the log has the reason.

    Raises:
        TenantRefusedError: with Auth0's word for the missing part.
    """
    subject_type, subject, requested, name = required(
        request.form,
        *("subject_token_type", "subject_token", "requested_token_type", "connection"),
    )
    client = request.client
    if not client.token_vault:
        raise refused(
            "unauthorized_client",
            f"Grant type '{TOKEN_VAULT}' not allowed for the client.",
        )
    if subject_type != _FROM_REFRESH:
        raise refused("invalid_request", "Unsupported subject_token_type.")
    if requested != _TO_CONNECTION:
        raise refused("invalid_request", "Unsupported requested_token_type.")
    user = _subject(parts, subject, client)
    connection = parts.connections.for_vault(name, client)
    if connection is None:
        raise _not_found("connection_not_enabled")
    accounts = parts.accounts.list(user.sub, name)
    if not accounts:
        raise _not_found("tokenset_not_found")
    # Of several, the one connected last.
    account, lifetime = accounts[-1], Connections.token_lifetime(connection)
    tokens = parts.accounts.tokens(account, lifetime)
    if tokens is None:
        raise ExchangeError(
            "federated_connection_refresh_token_flow_failed",
            "Federated connection Refresh Token flow failed.",
            "provider_refused",
        )
    left = int(tokens.expires_at - parts.clock.now().timestamp())
    answer: dict[str, object] = {
        "access_token": tokens.access_token,
        "scope": tokens.scope,
        "expires_in": max(left, 0),
        "issued_token_type": requested,
        "token_type": "Bearer",
    }
    details = {
        "subject_token_type": subject_type,
        "issued_token_type": requested,
        "scope": tokens.scope,
        "expires_at": of_epoch(tokens.expires_at),
        "token_thumbprint": sha256(tokens.access_token.encode()).hexdigest(),
        "token_broker": "token_vault",
        "connected_account": {"id": account.id, "idp_user_id": account.account},
        "is_privileged_worker": False,
    }
    return GrantResult(answer, user, details, account.connection)


def _subject(parts: Parts, token: str, client: Client) -> User:
    try:
        held = parts.refresh.find(token, client)
    except TenantRefusedError as error:
        raise ExchangeError(error.error, error.what, "invalid_token") from None
    user = parts.people.find(held.user_id)
    if user is None:
        raise ExchangeError(
            "invalid_token", "Invalid or expired subject token.", "user_is_gone"
        )
    if user.blocked:
        raise ExchangeError("access_denied", "user is blocked", "user_is_blocked")
    return user


def _not_found(reason: str) -> ExchangeError:
    return ExchangeError(
        "federated_connection_refresh_token_not_found",
        "Federated connection Refresh Token not found.",
        reason,
    )


def _among(wanted: list[str], allowed: list[str] | frozenset[str]) -> str:
    """Return the *wanted* scopes that are *allowed*, each once."""
    return " ".join(word for word in dict.fromkeys(wanted) if word in allowed)


def _answer(issued: IssuedTokens, audience: str | None) -> GrantResult:
    return GrantResult(issued.answer, issued.user, audience=audience)
