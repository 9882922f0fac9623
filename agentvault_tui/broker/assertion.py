"""Client assertions as compact JWS: taken apart, verified, and their claims checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from agentvault_tui.broker.public_key import Verifier
from agentvault_tui.encoder import from_base64url, to_base64url
from agentvault_tui.web.forms import BodyError, parse_json

MAX_LIFE: Final = 300
SKEW: Final = 30
"""Seconds by which an agent's clock may differ from ours."""
TYPES: Final = frozenset({"jwt", "client-authentication+jwt"})


class UnprovenError(Exception):
    """The assertion proves nothing; why is told to nobody."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion taken apart, believed in nothing yet."""

    header: dict[str, object]
    claims: dict[str, object]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> Assertion:
        """Take a compact JWS apart; nothing is looked up on its behalf."""
        signed, _, signature = text.rpartition(".")
        head, _, payload = signed.partition(".")
        if not text.isascii():
            raise UnprovenError
        header = _table(head)
        # Of crit we understand nothing (RFC 7515 section 4.1.11).
        if {"crit", "b64"} & header.keys():
            raise UnprovenError
        return cls(header, _table(payload), signed.encode(), _decode(signature))

    def check_type(self, types: frozenset[str]) -> None:
        """Refuse any other ``typ`` than one of *types* (RFC 8725 section 3.11)."""
        kind = self.header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in types:
            raise UnprovenError

    def signed_by(self, key: Verifier) -> bool:
        """Tell whether *key* made the signature, by an algorithm that is the key's."""
        name = self.header.get("alg")
        if name not in key.algorithms:
            return False
        try:
            # Through the algorithm itself: joserfc's decoder warns on every EdDSA.
            return JWSRegistry.algorithms[name].verify(
                self.signed, self.signature, key.key
            )
        except (JoseError, ValueError):
            return False

    def stand_in(self) -> Verifier:
        """Return a key of nobody, so that an unknown client costs the same work."""
        return _STAND_INS.get(str(self.header.get("alg")), _STAND_INS["ES256"])

    def audience(self) -> str:
        """Return the one audience it is for.

        Another one could use it here (RFC 7523 section 3).
        """
        audience = self.claims.get("aud")
        if isinstance(audience, list) and len(audience) == 1:
            audience = audience[0]
        if not isinstance(audience, str):
            raise UnprovenError
        return audience

    def time(self, name: str, default: float | None = None) -> float:
        """Return a claim that is a NumericDate (RFC 7519 section 2)."""
        value = self.claims.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnprovenError
        return value


def check_claims(
    assertion: Assertion, client_id: str, audiences: frozenset[str], now: float
) -> float:
    """Check everything but the ``jti`` (RFC 7523 section 3); return the ``exp``."""
    claims = assertion.claims
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        raise UnprovenError
    if assertion.audience() not in audiences:
        raise UnprovenError
    expires = assertion.time("exp")
    if not now - SKEW < expires <= now + MAX_LIFE:
        raise UnprovenError
    issued = assertion.time("iat", min(now, expires))
    if issued > now + SKEW or expires - issued > MAX_LIFE:
        raise UnprovenError
    if assertion.time("nbf", now) > now + SKEW:
        raise UnprovenError
    return expires


def _table(segment: str) -> dict[str, object]:
    try:
        table = parse_json(_decode(segment).decode())
    except (BodyError, UnicodeDecodeError):
        raise UnprovenError from None
    if not isinstance(table, dict):
        raise UnprovenError
    return table


def _decode(segment: str) -> bytes:
    try:
        raw = from_base64url(segment)
    except ValueError:
        raise UnprovenError from None
    if to_base64url(raw) != segment or not raw:  # one token has one spelling
        raise UnprovenError
    return raw


def _stand_ins() -> dict[str, Verifier]:
    edwards = Verifier(OKPKey.generate_key("Ed25519"), ("EdDSA", "Ed25519"))
    # Verifying needs a number of the right size, not one with known factors.
    nobody = rsa.RSAPublicNumbers(65_537, (1 << 2047) + (1 << 1023) + 1).public_key()
    return {
        "EdDSA": edwards,
        "Ed25519": edwards,
        "ES256": Verifier(ECKey.generate_key("P-256"), ("ES256",)),
        "RS256": Verifier(RSAKey(nobody, nobody), ("RS256",)),
    }


_STAND_INS: Final = _stand_ins()
