"""How a client of ours proves to the tenant who it is (RFC 6749 2.3, RFC 7523)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, runtime_checkable

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from agentvault_tui.errors import SettingsError
from agentvault_tui.vault.secret import Secret

ALGORITHMS: Final = ("RS256", "RS384", "PS256")
"""What Auth0 takes for client assertions."""
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFE: Final = 60
"""Seconds that an assertion lives: it is made for one request."""


def new_jti() -> str:
    """Return an identifier that no token had before."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key of a client's, read from where it is kept each time it signs."""

    pem: Secret
    kid: str = ""
    alg: str = "RS256"

    def __post_init__(self) -> None:
        if self.alg not in ALGORITHMS:
            raise SettingsError(
                f"{self.alg} signs no client assertion",
                f"use {' or '.join(ALGORITHMS)}",
            )

    def sign(self, typ: str, claims: dict[str, Any]) -> str:
        """Return *claims* as a compact JWT of type *typ*.

        Raises:
            SettingsError: the key cannot be read.
        """
        header = {"alg": self.alg, "typ": typ}
        if self.kid:
            header["kid"] = self.kid
        try:
            key = RSAKey.import_key(self.pem.reveal())
            return jws.serialize_compact(
                header, json.dumps(claims), key, algorithms=[self.alg]
            )
        except (JoseError, ValueError, TypeError):
            # Without its cause: what a library says of a key may quote it.
            raise SettingsError(
                "the client's private key cannot be used",
                "it is an RSA key in PEM, PKCS 8, without a passphrase",
            ) from None


@runtime_checkable
class Credential(Protocol):
    """A client's own way of authenticating at the token endpoint."""

    @property
    def client_id(self) -> str:
        """Name the client."""
        ...

    def fields(self, issuer: str, now: datetime) -> dict[str, str]:
        """Return what goes into a form for the token endpoint of *issuer*."""
        ...


@dataclass(frozen=True, slots=True)
class PublicClient:
    """A native application, which has no secret (``none``)."""

    client_id: str

    def fields(self, issuer: str, now: datetime) -> dict[str, str]:  # noqa: ARG002
        """Return the client's name alone."""
        return {"client_id": self.client_id}


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A confidential client with a secret (``client_secret_post``)."""

    client_id: str
    secret: Secret

    def fields(self, issuer: str, now: datetime) -> dict[str, str]:  # noqa: ARG002
        """Return name and secret."""
        return {"client_id": self.client_id, "client_secret": self.secret.reveal()}


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A confidential client with a key (``private_key_jwt``, RFC 7523 section 3)."""

    client_id: str
    key: SigningKey
    jti: Callable[[], str] = new_jti

    def fields(self, issuer: str, now: datetime) -> dict[str, str]:
        """Return a fresh assertion; each is good for one request."""
        issued = int(now.timestamp())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": issuer,
            "iat": issued,
            "exp": issued + _LIFE,
            "jti": self.jti(),
        }
        return {
            "client_id": self.client_id,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.key.sign("JWT", claims),
        }
