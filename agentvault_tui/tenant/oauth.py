"""The OAuth endpoints: device authorization, token, revocation, userinfo, discovery.

Why not Authlib's server side (rfc8628, rfc7009): its grants are synchronous and raise
`invalid_request` and 400 where Auth0 answers `invalid_grant`, 403 and 429; it knows
neither `expired_token` exactly once nor a code that is spent by one statement; it logs
the issued token. Every method that decides something would be overridden, so what
would be left is a dispatch on `grant_type`. Signing is joserfc's, as everywhere.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant import details
from agentvault_tui.tenant.clients import DEVICE_GRANT, Client
from agentvault_tui.tenant.codes import DeviceCode, DeviceCodes
from agentvault_tui.tenant.tokens import LIFETIME, SCOPES, TokenService
from agentvault_tui.text import visible
from agentvault_tui.web import BodyError, parse_body, read_body

INTERVAL: Final = 1
"""Seconds between polls. Auth0 says 5; here both ends are on one machine, and an
approval should be felt at once."""
SLOWER: Final = 5
"""RFC 8628 section 3.5: each slow_down makes the interval that much longer."""
_EARLY: Final = 0.1
"""Timers fire a little early, and both sides measure a little differently."""
_MAX_INTERVAL: Final = 60
_PACED: Final = 1024
_GRANTS_DOC: Final = "https://auth0.com/docs/clients/client-grant-types"
_KNOWN_GRANTS: Final = frozenset(
    (
        "authorization_code",
        "client_credentials",
        "implicit",
        "password",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:openid:params:grant-type:ciba",
    )
)
_log = logging.getLogger("agentvault.tenant")


@dataclass(slots=True)
class _Pace:
    """How fast one device may poll."""

    interval: int
    answered: float
    """When it was last answered: the interval counts from there (Auth0)."""


class OAuth:
    """The endpoints over one store; answers have Auth0's statuses and texts."""

    def __init__(
        self,
        client: Client,
        codes: DeviceCodes,
        tokens: TokenService,
        clock: Clock,
        issuer: str,
        *,
        lifetime: int,
    ) -> None:
        """Serve device codes that live *lifetime* seconds."""
        self._client = client
        self._codes = codes
        self._tokens = tokens
        self._clock = clock
        self._issuer = issuer
        self._lifetime = lifetime
        self._paces: dict[str, _Pace] = {}

    async def device_code(self, request: Request) -> Response:
        """Start a device flow (RFC 8628 section 3.1)."""
        try:
            form = _device_form(request, await read_body(request.receive))
            self._check_client(form, DEVICE_GRANT)
            self._check_audience(form)
            sent = form.get("authorization_details")
            what = None if sent is None else details.read(sent)
            asked = form.get("scope", "").split()
            scope = " ".join(word for word in SCOPES if word in asked)
            pair = self._codes.issue(self._client.key, scope, what, self._lifetime)
        except TenantRefusedError as error:
            return _refusal(error)
        _log.info("device code issued")
        uri = f"{self._issuer}activate"
        return reply(
            200,
            {
                "device_code": pair.device_code,
                "user_code": pair.user_code,
                "verification_uri": uri,
                "verification_uri_complete": f"{uri}?user_code={pair.user_code}",
                "expires_in": self._lifetime,
                "interval": INTERVAL,
            },
        )

    async def token(self, request: Request) -> Response:
        """Answer a poll (RFC 8628 section 3.4)."""
        try:
            form = _body(request, await read_body(request.receive))
            grant = form.get("grant_type")
            if not grant:
                raise _error(
                    "invalid_request", "Missing required parameter: grant_type"
                )
            if grant != DEVICE_GRANT and grant not in _KNOWN_GRANTS:
                raise _error(
                    "unsupported_grant_type",
                    f"Unsupported grant type: {visible(grant, 80)}",
                )
            self._check_client(form, grant)
            device_code = form.get("device_code")
            if not device_code:
                raise _error(
                    "invalid_request", "Missing required parameter: device_code"
                )
            return reply(200, self._poll(device_code))
        except TenantRefusedError as error:
            return _refusal(error)

    async def revoke(self, request: Request) -> Response:
        """Revoke an access token; an unknown one gets the same 200 (RFC 7009)."""
        try:
            form = _body(request, await read_body(request.receive))
            if not form.get("token"):
                raise _error("invalid_request", "Missing required parameter: token")
        except TenantRefusedError as error:
            return _refusal(error)
        self._tokens.revoke(form["token"], form.get("client_id", ""))
        return Response(status_code=200, headers={"cache-control": "no-store"})

    async def userinfo(self, request: Request) -> Response:
        """Say who an access token is about (OpenID Connect Core section 5.3)."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        person = self._tokens.userinfo(token) if kind.lower() == "bearer" else None
        if person is None:
            answer = reply(401, {"error": "invalid_token"})
            answer.headers["www-authenticate"] = 'Bearer error="invalid_token"'
            return answer
        return reply(200, person)

    def _poll(self, device_code: str) -> dict[str, Any]:
        code = self._codes.by_device_code(device_code)
        # A foreign client learns nothing: to it the code is unknown.
        if code is None or code.client != self._client.key or code.state == "spent":
            raise _error("invalid_grant", "Invalid or expired device code.")
        if code.state == "pending" and not code.expires.passed(self._clock):
            raise self._still_pending(code)
        self._paces.pop(code.key, None)
        # From here on the code is over. Of several polls at once one spends it, and
        # only that one hears how it ended (T-11).
        if not self._codes.spend(code):
            raise _error("invalid_grant", "Invalid or expired device code.")
        if code.state == "denied":
            why = "User cancelled the confirmation prompt."
            raise _error(
                "access_denied",
                "Too many failed sign-ins." if code.exhausted else why,
            )
        if code.expires.passed(self._clock):
            raise _error("expired_token", "The device code has expired.")
        issued = self._tokens.issue(code)
        if issued is None:
            raise _error("access_denied", "The user does not exist any more.")
        _log.info("device code redeemed", extra={"sub": code.sub})
        answer = {
            "access_token": issued.access_token,
            "id_token": issued.id_token,
            "scope": issued.scope,
            "expires_in": LIFETIME,
            "token_type": "Bearer",
        }
        return {name: value for name, value in answer.items() if value is not None}

    def _still_pending(self, code: DeviceCode) -> TenantRefusedError:
        now = self._clock.boot()
        pace = self._paces.get(code.key)
        if pace is None:
            # The first poll may come at once; a forgotten pace is a lenient one.
            while len(self._paces) >= _PACED:
                del self._paces[next(iter(self._paces))]
            self._paces[code.key] = _Pace(INTERVAL, now)
        elif now - pace.answered < pace.interval - _EARLY:
            told = pace.interval
            pace.interval = min(pace.interval + SLOWER, _MAX_INTERVAL)
            pace.answered = now
            return _error(
                "slow_down",
                "You are polling faster than the specified interval of "
                f"{told} second{'' if told == 1 else 's'}.",
            )
        else:
            pace.answered = now
        return _error("authorization_pending", "User has yet to authorize device code.")

    def _check_client(self, form: Mapping[str, str], grant: str) -> None:
        client_id = form.get("client_id")
        if not client_id:
            raise _error("invalid_request", "Missing required parameter: client_id")
        if not self._client.known_as(client_id):
            raise _error("invalid_client", "Unknown client.")
        if grant not in self._client.grants:
            raise _error(
                "unauthorized_client",
                f"Grant type '{grant}' not allowed for the client.",
            )

    def _check_audience(self, form: Mapping[str, str]) -> None:
        """There are no APIs here: an ID assertion is all that is given (T-08)."""
        audience = form.get("audience", form.get("resource"))
        if audience not in {None, f"{self._issuer}userinfo"}:
            raise _error("access_denied", f"Service not found: {visible(audience, 80)}")


def discovery(issuer: str) -> dict[str, Any]:
    """Return the metadata, in Auth0's shape, and only what is true here.

    Like Auth0's it lists no `none` among the authentication methods, although native
    clients have no secret, and no introspection.
    """
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}oauth/token",
        "device_authorization_endpoint": f"{issuer}oauth/device/code",
        "userinfo_endpoint": f"{issuer}userinfo",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        "scopes_supported": list(SCOPES),
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "authorization_details_types_supported": [details.TYPE],
        "claims_supported": [
            "acr", "amr", "aud", "auth_time", "email", "email_verified", "exp", "iat",
            "iss", "name", "nickname", "sid", "sub",
        ],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }  # fmt: skip


def reply(status: int, body: Mapping[str, Any]) -> Response:
    """Write a JSON answer that no cache keeps (RFC 6749 section 5.1)."""
    return Response(
        json.dumps(body),
        status,
        headers={"cache-control": "no-store", "pragma": "no-cache"},
        media_type="application/json",
    )


_STATUS: Final = {
    # Auth0's own, where RFC 8628 section 3.5 has 400 (facts measured on its traffic).
    "authorization_pending": 403,
    "slow_down": 429,
    "expired_token": 403,
    "access_denied": 403,
    "invalid_grant": 403,
    "unauthorized_client": 403,
    "too_many_requests": 429,
    "invalid_client": 401,
    "unsupported_media_type": 415,
}


def _error(error: str, description: str) -> TenantRefusedError:
    return TenantRefusedError(error, description)


def _refusal(error: TenantRefusedError) -> Response:
    body = {"error": error.error, "error_description": error.what}
    if error.error == "unauthorized_client":
        body["error_uri"] = _GRANTS_DOC
    return reply(_STATUS.get(error.error, 400), body)


def _body(request: Request, body: bytes) -> dict[str, str]:
    """Read a form or JSON, of which Auth0 takes both."""
    try:
        kind = request.headers.get("content-type", "").encode("latin-1")
        found = parse_body(kind, body)
    except BodyError as error:
        code = "unsupported_media_type" if error.status == 415 else "invalid_request"
        raise _error(code, error.text) from None
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _device_form(request: Request, body: bytes) -> dict[str, str]:
    """Read the device request's form; its details may be as long as the body's cap."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise _error("unsupported_media_type", "send application/x-www-form-urlencoded")
    pairs: list[tuple[str, str]] | None = None
    with contextlib.suppress(ValueError):
        pairs = parse_qsl(
            body.decode(), strict_parsing=True, errors="strict", max_num_fields=16
        )
    if pairs is None or len(dict(pairs)) != len(pairs):
        raise _error("invalid_request", "malformed form, or a parameter stands twice")
    return dict(pairs)
