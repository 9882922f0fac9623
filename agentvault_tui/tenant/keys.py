"""The tenant's signing keys: RSA, sealed at rest, one in use and the next published."""

from __future__ import annotations

from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import RSAKey

from agentvault_tui.clock import Clock, iso
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.tenant.store import Store

_BITS: Final = 2048
_KIND: Final = "signing key"


class SigningKeys:
    """Signs ID tokens with RS256, the one algorithm Auth0 offers every client.

    Two keys are published, like Auth0's current and next, so that a client which
    cached the set already knows the key that a rotation brings into use.
    """

    def __init__(self, store: Store, seal: Seal, clock: Clock) -> None:
        """Read the keys, and make them at the first start."""
        self._keys = {
            use: _read(store, seal, use) or _make(store, seal, clock, use)
            for use in ("current", "next")
        }

    def __repr__(self) -> str:
        """Name the keys, not what they are."""
        return f"SigningKeys({', '.join(str(key.kid) for key in self._keys.values())})"

    def sign(self, claims: dict[str, Any]) -> str:
        """Return *claims* as a signed JWT (RFC 7519)."""
        key = self._keys["current"]
        header = {"alg": "RS256", "typ": "JWT", "kid": key.kid}
        return jwt.encode(header, claims, key, algorithms=["RS256"])

    def public(self) -> dict[str, Any]:
        """Return the JWK Set (RFC 7517 section 5): public parts only."""
        return {"keys": [key.as_dict(private=False) for key in self._keys.values()]}


def _read(store: Store, seal: Seal, use: str) -> RSAKey | None:
    row = store.one("SELECT kid, sealed FROM signing_keys WHERE use = ?", use)
    if row is None:
        return None
    pem = seal.open(_KIND, row["kid"], 1, row["sealed"])
    return _load(pem, row["kid"])


def _make(store: Store, seal: Seal, clock: Clock, use: str) -> RSAKey:
    key = RSAKey.generate_key(_BITS, private=True)
    kid = key.thumbprint()
    box = seal.close(_KIND, kid, 1, key.as_pem(private=True))
    store.change(
        "INSERT OR IGNORE INTO signing_keys VALUES (?, ?, ?, ?)",
        use,
        kid,
        box,
        iso(clock.now()),
    )
    # Another process may have been first: what the store holds is the key.
    return _read(store, seal, use) or key


def _load(pem: bytes, kid: str) -> RSAKey:
    return RSAKey.import_key(pem, {"use": "sig", "alg": "RS256", "kid": kid})
