"""Clients' public keys: read from PEM, and kept."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from cryptography.x509 import load_pem_x509_certificate
from joserfc.jwk import RSAKey

from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import UsageError
from agentvault_tui.model import new_id
from agentvault_tui.tenant.objects import Document, Objects
from agentvault_tui.tenant.store import Store

ALGORITHMS: Final = ("RS256", "RS384", "PS256")
"""What Auth0's discovery document lists; so neither ``none`` nor a MAC."""
_BITS: Final = (2048, 8192)
_PEM_CAP: Final = 8000
"""Characters; a certificate of an 8192-bit key has fewer."""
_LEEWAY: Final = 30.0
"""Seconds by which a client's clock may be off: its ``jti`` counts that much longer."""


class Credentials:
    """The public keys of one store's clients."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Keep them in *store*."""
        self._store = store
        self._clock = clock
        self._objects = Objects(store, "credential")

    def add(
        self, client_id: str, name: str, pem: str, alg: str, expires_at: str | None
    ) -> Document:
        """Keep a public key for a client.

        Raises:
            UsageError: it is not an RSA public key, or the algorithm is not offered.
            ConflictError: the client has that key already.
        """
        if alg not in ALGORITHMS:
            raise UsageError(f"alg must be one of {', '.join(ALGORITHMS)}")
        key = RSAKey.import_key(_normal_pem(pem))
        now = iso(self._clock.now())
        doc: Document = {
            "id": new_id("cred"),
            "name": name,
            "kid": key.thumbprint(),
            "alg": alg,
            "credential_type": "public_key",
            "created_at": now,
            "updated_at": now,
            "expires_at": expires_at,
            "client_id": client_id,
            "pem": key.as_pem(private=False).decode(),
        }
        self._objects.add(doc["id"], f"{client_id} {doc['kid']}", doc)
        return doc

    def of_client(self, client_id: str) -> list[Document]:
        """Return a client's keys, oldest first."""
        return [doc for doc in self._objects.all() if doc["client_id"] == client_id]

    def find(self, client_id: str, key: str) -> Document | None:
        """Return one key of a client."""
        doc = self._objects.get(key)
        return doc if doc is not None and doc["client_id"] == client_id else None

    def delete(self, client_id: str, key: str) -> bool:
        """Forget a key; tell whether there was one."""
        return self.find(client_id, key) is not None and self._objects.delete(key)


def _normal_pem(pem: str) -> bytes:
    """Return *pem*, a key or a certificate, as the PEM of an RSA public key.

    Raises:
        UsageError: it is neither, or of a size nobody should use.
    """
    refused = UsageError("pem must hold an RSA public key of 2048 to 8192 bits")
    if len(pem) > _PEM_CAP:
        raise refused
    try:
        raw = pem.encode()
        key = (
            load_pem_x509_certificate(raw).public_key()
            if b"BEGIN CERTIFICATE" in raw
            else load_pem_public_key(raw)
        )
    except (ValueError, UnicodeEncodeError):
        raise refused from None
    if not isinstance(key, RSAPublicKey) or not _BITS[0] <= key.key_size <= _BITS[1]:
        raise refused
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
