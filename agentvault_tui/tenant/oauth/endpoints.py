"""The endpoints every grant shares: token, revocation, userinfo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.oauth.grants import GrantType, TokenRequest
from agentvault_tui.tenant.oauth.wire import (
    ExchangeError,
    body_of,
    refusal,
    refused,
    reply,
    required,
)
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.tokens import bearer_token, person
from agentvault_tui.text import visible

_NOT_YET: Final = frozenset({"authorization_pending", "slow_down"})


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
                told = error.reason if isinstance(error, ExchangeError) else error.error
                self._parts.journal.write(
                    grant.failed,
                    request,
                    description=error.what,
                    client=client,
                    details={"error": error.error, "failure_reason": told},
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
