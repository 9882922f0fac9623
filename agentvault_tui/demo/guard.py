"""The workspace's door: who holds this token, and does it name exactly this request.

The workspace is an ordinary resource server (RFC 7662): it holds no key and trusts no
token by itself, but asks who gave it about each one, every time: the broker about its
own, the provider about those of a person's account.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request is about to do."""

    scope: str
    resource: str
    parameters: dict[str, Any]


class TokenGuard:
    """Asks the broker about tokens, with the workspace's own client credentials."""

    def __init__(
        self, broker: str, client_id: str, client_secret: str, http: httpx.AsyncClient
    ) -> None:
        """Introspect at the broker's base URL *broker* through *http*."""
        self._url = f"{broker}/oauth/introspect"
        self._auth = httpx.BasicAuth(client_id, client_secret)
        self._http = http

    async def refusal(self, request: Request, demand: Demand) -> Response | None:
        """Return why the request may not do what *demand* says, or None if it may."""
        token = _bearer(request)
        if not token:
            return _challenge(401, None, "a bearer token is needed")
        try:
            reply = await self._http.post(
                self._url, data={"token": token}, auth=self._auth
            )
            claims = reply.json() if reply.status_code == 200 else None
        except (httpx.TransportError, ValueError):
            claims = None
        if not isinstance(claims, dict):
            return _unknown()
        if claims.get("active") is not True:
            return _challenge(401, "invalid_token", "expired, revoked or spent")
        return _judge(claims, demand)


class OwnersGuard:
    """Asks the provider whose account a token is of, and what its owner allowed."""

    def __init__(self, provider: str, http: httpx.AsyncClient) -> None:
        """Ask at the provider's base URL through *http*."""
        self._url = f"{provider}/tokeninfo"
        self._http = http

    async def owner(self, request: Request, scope: str) -> str | Response:
        """Return whose token it is, or why the request may not have *scope*."""
        token = _bearer(request)
        if not token:
            return _challenge(401, None, "a bearer token is needed")
        try:
            reply = await self._http.get(
                self._url, headers={"Authorization": f"Bearer {token}"}
            )
            claims = reply.json()
        except (httpx.TransportError, ValueError):
            return _unknown()
        if not isinstance(claims, dict) or reply.is_server_error:
            return _unknown()
        if claims.get("active") is not True:
            return _challenge(401, "invalid_token", "expired or revoked")
        if scope not in str(claims.get("scope", "")).split():
            return _challenge(403, "insufficient_scope", f"needs {scope}")
        return str(claims.get("sub", ""))


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _unknown() -> Response:
    """Refuse where nobody says what the token is (RFC 7662 section 4)."""
    return JSONResponse({"error": "temporarily_unavailable"}, 503, {"Retry-After": "1"})


def _judge(claims: dict[str, Any], demand: Demand) -> Response | None:
    """Compare an active token's claims with what is about to be done."""
    if demand.scope not in str(claims.get("scope", "")).split():
        return _challenge(403, "insufficient_scope", f"needs {demand.scope}")
    if not permits(claims, demand.scope, demand.resource, demand.parameters):
        return _challenge(
            403, "insufficient_scope", "the token was given for another action"
        )
    return None


def permits(
    claims: dict[str, Any], scope: str, resource: str, parameters: dict[str, Any]
) -> bool:
    """Compare what a token is good for with what is about to be done.

    RFC 9396 section 9.2: the resource server enforces what was consented to. A person
    approved one exact action; one cent more is another action. The lines are those of
    docs/protect-your-api.md.
    """
    if claims.get("active") is not True or scope not in claims["scope"].split():
        return False
    details = claims.get("authorization_details") or []
    if not details:  # it names no action: good enough to read, and for nothing else
        return scope.startswith("read:") and claims.get("aud", resource) == resource
    named = [
        [one["type"], one.get("action"), one.get("resource"), one.get("parameters", {})]
        for one in details
    ]
    wanted = [["agentvault:action", scope, resource, parameters]]
    return json.dumps(named, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def _challenge(status: int, error: str | None, description: str) -> Response:
    """Refuse as RFC 6750 section 3 says."""
    challenge = 'Bearer realm="workspace"'
    if error:
        challenge += f', error="{error}", error_description="{description}"'
    return JSONResponse(
        {"error": error or "unauthorized", "error_description": description},
        status,
        {"WWW-Authenticate": challenge},
    )
