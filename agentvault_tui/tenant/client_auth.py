"""Says which client sent a request: secret in body or header, or a signed assertion."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.clients import Client, Clients
from agentvault_tui.tenant.credentials import Credentials, Replays, issuer_of, number

JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONGEST: Final = 300.0
"""Seconds ahead that an assertion may expire at most (RFC 7523 section 3, number 4)."""
_LEEWAY: Final = 30.0
"""Seconds by which a client's clock may be off."""
_NONE: Final = sha256_hex("")


class ClientAuth:
    """Client authentication (RFC 6749 section 2.3, RFC 7523 section 2.2)."""

    def __init__(
        self,
        clients: Clients,
        credentials: Credentials,
        replays: Replays,
        clock: Clock,
        issuer: str,
    ) -> None:
        """Authenticate *clients*, who name *issuer* as their audience."""
        self._clients = clients
        self._credentials = credentials
        self._replays = replays
        self._clock = clock
        self._audiences = (issuer, f"{issuer}oauth/token")

    def client(self, form: Mapping[str, str], authorization: str) -> Client:
        """Return the client that sent *form*.

        Raises:
            TenantRefusedError: ``invalid_request`` if it does not say who it is, or
                says it in two ways; ``invalid_client`` if it does not prove it.
        """
        basic = _basic(authorization)
        if basic is not None and ("client_secret" in form or _signed(form)):
            # RFC 6749 section 2.3: one method a request.
            raise TenantRefusedError(
                "invalid_request", "Use one method of client authentication."
            )
        if _signed(form):
            return self._by_assertion(form)
        client_id, secret = basic or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        if not client_id:
            raise TenantRefusedError(
                "invalid_request", "Missing required parameter: client_id"
            )
        if form.get("client_id", client_id) != client_id:
            raise _refusal()
        return self._by_secret(client_id, secret)

    def _by_secret(self, client_id: str, secret: str) -> Client:
        client = self._clients.find(client_id)
        stored = None if client is None else client.secret_hash
        # T-16: hashes are compared, in constant time, also for a client there is not.
        # One that was public until now has no secret: nothing sent is the right one.
        right = hmac.compare_digest(sha256_hex(secret), stored or _NONE) and stored
        if client is None or client.key_ids:
            raise _refusal()
        if client.confidential and not right:
            raise _refusal()
        return client

    def _by_assertion(self, form: Mapping[str, str]) -> Client:
        token = form.get("client_assertion", "")
        if form.get("client_assertion_type") != JWT_BEARER:
            raise _refusal()
        client_id = form.get("client_id") or issuer_of(token)
        client = self._clients.find(client_id)
        if client is None or not client.key_ids:
            raise _refusal()
        claims = self._credentials.verified(client_id, client.key_ids, token)
        if claims is None or not self._fresh(client_id, claims):
            raise _refusal()
        return client

    def _fresh(self, client_id: str, claims: dict[str, Any]) -> bool:
        """Check what RFC 7523 section 3 demands, and that it is used once."""
        now = self._clock.now().timestamp()
        expires, jti = number(claims, "exp"), claims.get("jti")
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        begins = number(claims, "nbf") if "nbf" in claims else now
        return (
            claims.get("iss") == claims.get("sub") == client_id
            and any(name in self._audiences for name in named)
            and expires is not None
            and now - _LEEWAY < expires <= now + _LONGEST + _LEEWAY
            and begins is not None
            and begins <= now + _LEEWAY
            and isinstance(jti, str)
            and 0 < len(jti) <= 256
            and self._replays.first(client_id, jti, expires)
        )


def _signed(form: Mapping[str, str]) -> bool:
    return "client_assertion" in form or "client_assertion_type" in form


def _basic(authorization: str) -> tuple[str, str] | None:
    """Read HTTP Basic as RFC 6749 section 2.3.1 encodes it; None without any."""
    kind, _, encoded = authorization.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        raise _refusal() from None
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def _refusal() -> TenantRefusedError:
    """One answer for an unknown client and a wrong proof (T-16)."""
    return TenantRefusedError("invalid_client", "Unknown client, or wrong credentials.")
