"""A platform that vouches for its workloads: a key set over HTTP, and tokens.

Signatures are made by `cryptography` itself, not by the library that verifies them.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}
RSA = rsa.generate_private_key(65_537, 2048)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_for(alg: str) -> PrivateKey:
    """Return a new key for *alg*; RSA keys are one, since they take long to make."""
    if alg[:2] in {"RS", "PS"}:
        return RSA
    if alg.startswith("ES"):
        return ec.generate_private_key(_CURVES[alg[2:]])
    return ed25519.Ed25519PrivateKey.generate()


def jwk(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """Return the public half as a JWK; a member that is None is left out."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        own = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256)), "e": "AQAB"}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        point, size = public.public_numbers(), (public.key_size + 7) // 8
        crv = f"P-{public.key_size}"
        x, y = b64(point.x.to_bytes(size)), b64(point.y.to_bytes(size))
        own = {"kty": "EC", "crv": crv, "x": x, "y": y}
    else:
        own = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
    return {**own, **{n: v for n, v in members.items() if v is not None}}


def signature(key: PrivateKey, alg: str, signed: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    digest = _HASHES[alg[2:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        size = (key.key_size + 7) // 8
        return r.to_bytes(size) + s.to_bytes(size)
    if alg.startswith("PS"):
        return key.sign(
            signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest
        )
    return key.sign(signed, padding.PKCS1v15(), digest)


def token(
    key: PrivateKey, alg: str, claims: dict[str, Any] | str, **header: Any
) -> str:
    """Sign *claims*; a header member that is None is left out."""
    head = {"alg": alg, "typ": "JWT", **header}
    head = {name: value for name, value in head.items() if value is not None}
    payload = claims if isinstance(claims, str) else json.dumps(claims)
    signed = f"{b64(json.dumps(head).encode())}.{b64(payload.encode())}"
    return f"{signed}.{b64(signature(key, alg, signed.encode()))}"


class Platform:
    """Serves a key set at `url`, and counts who asks."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[dict[str, Any]] = []
        self.asked = 0
        self.answer: bytes | None = None
        """Sent in place of the key set: a whole answer of HTTP."""
        self.gate: asyncio.Event | None = None
        """Answers wait until it is set."""

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.gate is not None:
                await self.gate.wait()
            body = json.dumps({"keys": self.keys}).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            writer.write(self.answer or head + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def platform() -> AsyncIterator[Platform]:
    found = Platform()
    server = await asyncio.start_server(found._serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found.url = f"http://127.0.0.1:{port}/keys"
    async with server:
        yield found
