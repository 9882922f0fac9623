"""Public keys of agents and of issuers: anything weak is refused.

An agent's is PEM or JWK, and becomes canonical JWK; an issuer's are in a JWK Set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import ECKey, OKPKey, RSAKey

from agentvault_tui import strict_json
from agentvault_tui.encoder import from_base64url, to_base64url
from agentvault_tui.errors import UsageError
from agentvault_tui.web.forms import BodyError, parse_json

_RSA_BITS: Final = (2048, 8192)
_RSA_EXPONENT: Final = 65_537
_LONGEST: Final = 8_000
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES: Final[dict[str, Any]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}
_ECDSA: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_EDDSA: Final = ("EdDSA", "Ed25519")
"""RFC 9864 gives EdDSA with this curve a name of its own."""
_ALGORITHMS: Final = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "OKP": _EDDSA,
}
_MOST_KEYS: Final = 100
"""In a set: of a larger one nothing is believed."""
_LONGEST_KID: Final = 256
_USES: Final = ("sig", "jwt-svid")
"""RFC 7517 section 4.2; SPIFFE JWT-SVID section 4.1."""
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_REMEDY: Final = (
    "give an Ed25519, P-256 or RSA (2048 bits or more) public key, as PEM or JWK"
)

_AGENTS: Final = {"OKP": _EDDSA, "EC": ("ES256",), "RSA": ("RS256",)}

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class Verifier:
    """A key with the only algorithms it may be used for (RFC 8725 section 3.1)."""

    key: OKPKey | ECKey | RSAKey
    algorithms: tuple[str, ...]


def parse_public_key(text: str) -> str:
    """Read a PEM (SPKI) or JWK public key; return it as canonical JWK text.

    Raises:
        UsageError: it is not a public key we use, is weak, or is a private key.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        raise _unusable("the key is too long")
    key = _from_jwk(text) if text.startswith("{") else _from_pem(text)
    return json.dumps(_members(key), separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=1024)
def verifier(jwk: str) -> Verifier:
    """Return the verifier of signatures of the canonical *jwk*."""
    members = json.loads(jwk)
    return Verifier(_imported(members), _AGENTS[members["kty"]])


def _imported(members: dict[str, Any]) -> OKPKey | ECKey | RSAKey:
    match members["kty"]:
        case "OKP":
            return OKPKey.import_key(members)
        case "EC":
            return ECKey.import_key(members)
        case _:
            return RSAKey.import_key(members)


class KeySet:
    """The signing keys of an issuer."""

    def __init__(self, keys: Iterable[tuple[object, Verifier]], total: int) -> None:
        """Index *keys* by ``kid``, of a set of *total*; drop duplicates."""
        self._total = total
        self._keys: dict[object, Verifier | None] = {}
        for kid, key in keys:
            self._keys[kid] = None if kid in self._keys else key

    def __contains__(self, kid: object) -> bool:
        """Check whether the set has a key of that name, or needs none to be named."""
        return kid in self._keys or (kid is None and self._total > 0)

    def get(self, kid: str | None) -> Verifier | None:
        """Return the key that *kid* names; without one the only key of the set."""
        if kid is None and self._total == 1:
            return next(iter(self._keys.values()), None)
        return self._keys.get(kid) if kid is not None else None


def read_key_set(text: str) -> KeySet:
    """Read a JWK Set (RFC 7517 section 5); keys that are no use here are passed over.

    Raises:
        ValueError: it is not one, is too large, or gives away a secret key.
    """
    document = strict_json.loads(text)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not all(isinstance(k, dict) for k in listed):
        raise ValueError("it is no JWK Set")
    if len(listed) > _MOST_KEYS:
        raise ValueError(f"it has more than {_MOST_KEYS} keys")
    if any(_PRIVATE & jwk.keys() or jwk.get("kty") == "oct" for jwk in listed):
        # Whoever reads it can sign: none of it is believed.
        raise ValueError("it gives away a secret key")
    return KeySet(filter(None, map(_issuers_key, listed)), len(listed))


def _issuers_key(jwk: dict[str, object]) -> tuple[object, Verifier] | None:
    """Return the name of a key, and its verifier, if it is for that algorithm."""
    kid, alg = jwk.get("kid"), jwk.get("alg")
    if not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= _LONGEST_KID)):
        return None
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") not in _USES or operations != ["verify"]:
        return None
    try:
        members = _members(_strong(_load(jwk)))
    except (UsageError, ValueError):
        return None
    kind = members["kty"]
    names = _ALGORITHMS.get(kind) or (_ECDSA[members["crv"]],)
    # RFC 8725 section 3.1: a key is for one algorithm. PSS is for those that say so.
    if alg is None:
        names = names[:3] if kind == "RSA" else names
    elif kind != "OKP" or alg not in names:
        names = tuple(name for name in names if name == alg)
    return kid, Verifier(_imported(members), names)


def _from_pem(text: str) -> PublicKey:
    if "PRIVATE KEY" in text:
        raise _private()
    if not text.startswith("-----BEGIN PUBLIC KEY-----"):
        raise _unusable("this is neither a PEM public key nor a JWK")
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unusable("the PEM cannot be read") from None
    return _accepted(key)


def _from_jwk(text: str) -> PublicKey:
    try:
        jwk = parse_json(text)
    except BodyError as error:
        raise _unusable(f"the JWK cannot be read: {error.text}") from None
    if not isinstance(jwk, dict):
        raise _unusable("the JWK is not an object")
    if jwk.get("kty") == "oct":
        raise _unusable("this is a symmetric key")
    if _PRIVATE & jwk.keys():
        raise _private()
    if jwk.get("use", "sig") != "sig":
        raise _unusable("the JWK is not for signatures")
    try:
        return _accepted(_load(jwk))
    except ValueError:
        raise _unusable("the JWK does not hold a valid key") from None


def _load(jwk: dict[str, object]) -> PublicKey:
    match jwk.get("kty"), jwk.get("crv"):
        case "OKP", "Ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(_bytes(jwk.get("x")))
        case "EC", str(curve) if curve in _CURVES:
            x, y = _number(jwk.get("x")), _number(jwk.get("y"))
            return ec.EllipticCurvePublicNumbers(x, y, _CURVES[curve]()).public_key()
        case "RSA", None:
            n, e = _number(jwk.get("n")), _number(jwk.get("e"))
            return rsa.RSAPublicNumbers(e, n).public_key()
        case _:
            raise _unusable("this kind of key is not used here")


def _accepted(key: object) -> PublicKey:
    """Return a key that an agent may have."""
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(
        key.curve, ec.SECP256R1
    ):
        raise _unusable("of elliptic curves only P-256 and Ed25519 are used here")
    return _strong(key)


def _strong(key: object) -> PublicKey:
    """Return a key that is strong enough, of a kind that is used."""
    if isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey):
        return key
    if isinstance(key, rsa.RSAPublicKey):
        least, most = _RSA_BITS
        if not least <= key.key_size <= most:
            raise _unusable(f"an RSA key of {key.key_size} bits is not used here")
        numbers = key.public_numbers()
        if numbers.e < _RSA_EXPONENT or numbers.n % 2 == 0:
            raise _unusable("the RSA key is weak")
        return key
    raise _unusable("this kind of key is not used here")


def _members(key: PublicKey) -> dict[str, str]:
    """Return the members RFC 7638 names, and no other."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": to_base64url(key.public_bytes_raw()),
        }
    if isinstance(key, ec.EllipticCurvePublicKey):
        point, size = key.public_numbers(), (key.key_size + 7) // 8
        x, y = (to_base64url(number.to_bytes(size)) for number in (point.x, point.y))
        names = (name for name, one in _CURVES.items() if isinstance(key.curve, one))
        return {"kty": "EC", "crv": next(names), "x": x, "y": y}
    numbers = key.public_numbers()
    n, e = (
        to_base64url(i.to_bytes((i.bit_length() + 7) // 8))
        for i in (numbers.n, numbers.e)
    )
    return {"kty": "RSA", "n": n, "e": e}


def _bytes(value: object) -> bytes:
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise ValueError
    return from_base64url(value)


def _number(value: object) -> int:
    return int.from_bytes(_bytes(value))


def _private() -> UsageError:
    return UsageError(
        "this is a private key", "keep it with the agent; give its public half"
    )


def _unusable(what: str) -> UsageError:
    return UsageError(what, _REMEDY)
