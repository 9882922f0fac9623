"""The self-signed certificate that stands beside each published key, as at Auth0."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from hashlib import sha1, sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateBuilder, Name, NameAttribute
from cryptography.x509.oid import NameOID

_LIFETIME: Final = timedelta(days=365 * 10)
_SERIAL_BYTES: Final = 8


def published(
    key: RSAPrivateKey, kid: str, domain: str, since: datetime
) -> dict[str, str | list[str]]:
    """Return ``x5c`` and ``x5t`` (RFC 7517 sections 4.7 and 4.8) for a private key.

    The same each time, since nothing in it is random: so it need not be stored. It
    vouches for nothing; clients that read no bare modulus find the key in it.
    """
    name = Name([NameAttribute(NameOID.COMMON_NAME, domain)])
    serial = int.from_bytes(sha256(kid.encode()).digest()[:_SERIAL_BYTES])
    der = (
        CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(since)
        .not_valid_after(since + _LIFETIME)
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )
    # SHA-1 is what x5t means, and nothing trusts it.
    thumbprint = sha1(der, usedforsecurity=False).digest()
    return {
        "x5c": [base64.b64encode(der).decode()],
        "x5t": base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode(),
    }
