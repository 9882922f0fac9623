"""An agent's public key: PEM or JWK in, canonical JWK out, anything weak refused."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import ECKey, OKPKey, RSAKey

from agentvault_tui.errors import UsageError
from agentvault_tui.web.forms import BodyError, parse_json

_RSA_BITS: Final = (2048, 8192)
_RSA_EXPONENT: Final = 65_537
_LONGEST: Final = 8_000
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_REMEDY: Final = (
    "give an Ed25519, P-256 or RSA (2048 bits or more) public key, as PEM or JWK"
)

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
    """Return what checks signatures of the canonical *jwk*."""
    members = json.loads(jwk)
    match members["kty"]:
        case "OKP":
            # RFC 9864 gives EdDSA with this curve a name of its own.
            return Verifier(OKPKey.import_key(members), ("EdDSA", "Ed25519"))
        case "EC":
            return Verifier(ECKey.import_key(members), ("ES256",))
        case _:
            return Verifier(RSAKey.import_key(members), ("RS256",))


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
        case "EC", "P-256":
            x, y = _number(jwk.get("x")), _number(jwk.get("y"))
            return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        case "RSA", None:
            n, e = _number(jwk.get("n")), _number(jwk.get("e"))
            return rsa.RSAPublicNumbers(e, n).public_key()
        case _:
            raise _unusable("this kind of key is not used here")


def _accepted(key: object) -> PublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise _unusable("of elliptic curves only P-256 and Ed25519 are used here")
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
        return {"kty": "OKP", "crv": "Ed25519", "x": _encode(key.public_bytes_raw())}
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        x, y = (_encode(number.to_bytes(32)) for number in (point.x, point.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    numbers = key.public_numbers()
    n, e = (
        _encode(i.to_bytes((i.bit_length() + 7) // 8)) for i in (numbers.n, numbers.e)
    )
    return {"kty": "RSA", "n": n, "e": e}


def _bytes(value: object) -> bytes:
    if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
        raise ValueError
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except binascii.Error:
        raise ValueError from None


def _number(value: object) -> int:
    return int.from_bytes(_bytes(value))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _private() -> UsageError:
    return UsageError(
        "this is a private key", "keep it with the agent; give its public half"
    )


def _unusable(what: str) -> UsageError:
    return UsageError(what, _REMEDY)
