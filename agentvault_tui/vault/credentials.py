"""Client authentication at the tenant (RFC 6749 section 2.3, RFC 7523), and secrets."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn
from urllib.parse import parse_qsl

from authlib.oauth2 import ClientAuth, OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc7523.assertion import sign_jwt_bearer_assertion
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from agentvault_tui.errors import SettingsError


class Secret:
    """A secret, or a function that reads one; no repr, log, error or pickle has it."""

    __slots__ = ("_source",)

    def __init__(self, source: str | Callable[[], str]) -> None:
        """Hold the value itself, or a function that reads it from its place."""
        self._source = source

    def reveal(self) -> str:
        """Return the value: call this where it is sent, and nowhere else."""
        return self._source if isinstance(self._source, str) else self._source()

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


ALGORITHMS: Final = ("RS256", "RS384", "PS256")
"""The algorithms that Auth0 takes for client assertions."""
_LIFE: Final = 60
"""Seconds that an assertion lives: it is made for one request."""


def new_jti() -> str:
    """Return an identifier that no token had before."""
    return secrets.token_urlsafe(24)


class OAuthRequests(OAuth2Client):  # type: ignore[misc] # authlib is not typed
    """authlib's OAuth client without a transport.

    `fetch_token` and `revoke_token` return the fields of the form to send, the client's
    authentication among them; `Tenant.send` sends it. authlib's own transport hides
    statuses, and bounds neither size nor time.
    """

    def _fetch_token(
        self, url: str, body: str = "", *, auth: ClientAuth, **_: object
    ) -> dict[str, str]:
        _, _, body = auth.prepare("POST", url, {}, body)
        fields = parse_qsl(body, keep_blank_values=True)
        # RFC 7521 section 4.2 leaves it out beside an assertion; Auth0 wants it.
        return {"client_id": self.client_id, **dict(fields)}

    _http_post = _fetch_token


class _Assertion(PrivateKeyJWT):  # type: ignore[misc] # authlib is not typed
    """``private_key_jwt`` with an assertion made by the caller's clock."""

    def __init__(self, assertion: str) -> None:
        super().__init__()
        self._assertion = assertion

    def sign(self, auth: ClientAuth, token_endpoint: str) -> str:  # noqa: ARG002
        return self._assertion


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key of a client's, read from its file each time it signs."""

    pem: Secret
    kid: str = ""
    alg: str = "RS256"

    def __post_init__(self) -> None:
        if self.alg not in ALGORITHMS:
            raise SettingsError(
                f"{self.alg} signs no client assertion",
                f"use {' or '.join(ALGORITHMS)}",
            )

    def sign(self, client_id: str, audience: str, now: datetime, jti: str) -> str:
        """Return a client assertion that lives a minute (RFC 7523 section 3).

        Raises:
            SettingsError: the key cannot be read.
        """
        header = {"alg": self.alg, **({"kid": self.kid} if self.kid else {})}
        try:
            signed: str = sign_jwt_bearer_assertion(
                RSAKey.import_key(self.pem.reveal()),
                client_id,
                audience,
                client_id,
                issued_at=int(now.timestamp()),
                expires_in=_LIFE,
                header=header,
                claims={"jti": jti},
            )
        except (JoseError, ValueError, TypeError):
            # Without its cause: what a library says of a key may quote it.
            raise SettingsError(
                "the client's private key cannot be used",
                "it is an RSA key in PEM, PKCS 8, without a passphrase",
            ) from None
        return signed


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client of the tenant; a native one has no secret (``none``)."""

    client_id: str

    def requests(self, issuer: str, now: datetime) -> OAuthRequests:  # noqa: ARG002
        """Return the auth of one request to *issuer*, as this client."""
        return OAuthRequests(None, self.client_id)


@dataclass(frozen=True, slots=True)
class ClientSecret(RegisteredClient):
    """A confidential client with a secret (``client_secret_post``)."""

    secret: Secret

    def requests(self, issuer: str, now: datetime) -> OAuthRequests:  # noqa: ARG002
        """Return the auth of one request, with the secret in it."""
        method = "client_secret_post"
        return OAuthRequests(None, self.client_id, self.secret.reveal(), method, method)


@dataclass(frozen=True, slots=True)
class PrivateKey(RegisteredClient):
    """A confidential client with a key (``private_key_jwt``, RFC 7523 section 3)."""

    key: SigningKey
    jti: Callable[[], str] = new_jti

    def requests(self, issuer: str, now: datetime) -> OAuthRequests:
        """Return the auth of one request, with an assertion for it alone."""
        signed = self.key.sign(self.client_id, issuer, now, self.jti())
        method = _Assertion(signed)
        return OAuthRequests(None, self.client_id, None, method, method)


DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
"""RFC 8628 section 3.4."""
VAULT_GRANT: Final = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)
"""Token Vault: a token of the user's for another provider's API."""
TYPE_REFRESH: Final = "urn:ietf:params:oauth:token-type:refresh_token"
"""RFC 8693 section 3."""
TYPE_PROVIDER: Final = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"
)
"""The result of an exchange; http, for it is a name and no address."""
