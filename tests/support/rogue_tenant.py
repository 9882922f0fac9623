"""A tenant on a real socket that answers whatever a test scripts, byte for byte."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc.jwk import RSAKey

CLIENT_ID = "avConsole01"
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"
DEVICE = "/oauth/device/code"
TOKEN = "/oauth/token"
EXTENSIONS = "/agentvault/metadata"


@dataclass
class Answer:
    """One scripted answer."""

    body: Any = b""
    """An object becomes JSON; bytes are sent as they are."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Sent instead of any HTTP at all."""
    drip: float | None = None
    """Seconds between single bytes."""
    hang: bool = False
    """Never answer."""
    after: asyncio.Event | None = None
    """Answer once this is set."""

    def encode(self) -> bytes:
        """Return the bytes to send."""
        if self.raw is not None:
            return self.raw
        body = self.body
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **self.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} X\r\n{lines}\r\n".encode() + body


@dataclass(frozen=True)
class Request:
    """What the client sent."""

    method: str
    path: str
    """Still quoted, without the query."""
    query: dict[str, str]
    headers: Mapping[str, str]
    form: dict[str, str]
    json: Any


Script = Answer | Callable[[Request], Answer]


class RogueTenant:
    """Well-behaved until scripted: queue answers by path; the last one stays."""

    def __init__(self) -> None:
        """Make a tenant that is not listening yet."""
        self.issuer = ""
        self.requests: list[Request] = []
        self.arrived = asyncio.Event()
        """Set by each request; a test that waits for one clears it first."""
        self.keys = {"kid-1": rsa_key(1)}
        self._scripts: dict[str, list[Script]] = defaultdict(list)
        self._issued = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, tls: ssl.SSLContext | None = None) -> int:
        """Listen on a port of the system's choosing, and return it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        host, port = self._server.sockets[0].getsockname()
        self.issuer = f"http://{host}:{port}/"
        return int(port)

    async def stop(self) -> None:
        """Go down, cutting whoever is still connected."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.close()
            await self._server.wait_closed()
            self._server = None

    def script(self, path: str, *answers: Script) -> None:
        """Answer *path* with each of *answers* in turn; the last one stays."""
        self._scripts[path] = list(answers)

    def asked(self, path: str) -> int:
        """Count the requests for *path*."""
        return len(self.sent(path))

    def sent(self, path: str) -> list[Request]:
        """Return the requests for *path*, in order."""
        return [request for request in self.requests if request.path == path]

    def discovery(self, **changes: Any) -> dict[str, Any]:
        """Return the discovery document, in Auth0's shape (a part of it)."""
        base = self.issuer
        document = {
            "issuer": base,
            "authorization_endpoint": f"{base}authorize",
            "token_endpoint": f"{base}oauth/token",
            "device_authorization_endpoint": f"{base}oauth/device/code",
            "userinfo_endpoint": f"{base}userinfo",
            "jwks_uri": f"{base}.well-known/jwks.json",
            "revocation_endpoint": f"{base}oauth/revoke",
            "id_token_signing_alg_values_supported": ["HS256", "RS256", "PS256"],
            "mtls_endpoint_aliases": {"token_endpoint": "https://mtls.x.test/token"},
        }
        return {**document, **changes}

    def jwks(self) -> dict[str, Any]:
        """Return the public keys."""
        return {"keys": [public_jwk(kid, key) for kid, key in self.keys.items()]}

    def device(self, **changes: Any) -> dict[str, Any]:
        """Return the answer to a device authorization request."""
        document = {
            "device_code": "Qm9zTu_4hX-and-more",
            "user_code": "KDRT-WZNB",
            "verification_uri": f"{self.issuer}activate",
            "verification_uri_complete": f"{self.issuer}activate?user_code=KDRT-WZNB",
            "expires_in": 900,
            "interval": 5,
        }
        document.update(changes)
        return {name: value for name, value in document.items() if value is not None}

    def access(self, **changes: Any) -> dict[str, Any]:
        """Return the answer to a request for an API's token; each is another."""
        self._issued += 1
        document = {
            "access_token": f"at-{self._issued}",
            "expires_in": 86_400,
            "scope": "read:clients update:clients",
            "token_type": "Bearer",
        }
        return {**document, **changes}

    def sign(self, claims: Any, kid: str = "kid-1", **header: Any) -> str:
        """Return *claims* signed with RS256 by the key *kid*."""
        head = {"alg": "RS256", "typ": "JWT", "kid": kid, **header}
        head = {name: value for name, value in head.items() if value is not None}
        return sign_raw(head, claims, self.keys.get(kid) or rsa_key(1))

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._writers.add(writer)
        try:
            request = await _read(reader)
            self.requests.append(request)
            answer = self._answer(request)
            self.arrived.set()
            if answer.hang:
                await reader.read()  # Until the client hangs up.
            else:
                if answer.after is not None:
                    await answer.after.wait()
                await _send(writer, answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, request: Request) -> Answer:
        scripts = self._scripts[request.path]
        if scripts:
            script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
            return script if isinstance(script, Answer) else script(request)
        match request.path:
            case "/.well-known/openid-configuration":
                return Answer(self.discovery())
            case "/.well-known/jwks.json":
                return Answer(self.jwks())
            case "/oauth/device/code":
                return Answer(self.device())
            case "/oauth/token" if request.form["grant_type"] == "client_credentials":
                return Answer(self.access())
        return Answer({"error": "not_found"}, 404)


@asynccontextmanager
async def rogue_tenant() -> AsyncIterator[RogueTenant]:
    """Run a tenant for the length of a test."""
    tenant = RogueTenant()
    await tenant.start()
    try:
        yield tenant
    finally:
        await tenant.stop()


@cache
def rsa_key(number: int) -> RSAKey:
    """Return a key, the same one for the same *number*."""
    return RSAKey.generate_key(2048, private=True, parameters={"kid": str(number)})


def public_jwk(kid: str, key: RSAKey) -> dict[str, Any]:
    """Return *key* as Auth0 publishes one."""
    public = key.as_dict(private=False)
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": kid,
        "n": public["n"],
        "e": public["e"],
        "x5c": ["MIIC"],
    }


def sign_raw(header: Any, claims: Any, key: RSAKey) -> str:
    """Sign by hand, whatever the header claims: libraries refuse to be this rogue."""
    signed = f"{encode_segment(header)}.{encode_segment(claims)}"
    signature = key.private_key.sign(
        signed.encode(), padding.PKCS1v15(), hashes.SHA256()
    )
    return f"{signed}.{encode_segment(signature)}"


def encode_segment(value: Any) -> str:
    """Return *value* as a segment of a compact token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {
        name.lower(): value for name, _, value in (one.partition(": ") for one in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    is_json = headers.get("content-type") == "application/json"
    path, _, query = target.partition("?")
    return Request(
        method,
        path,
        dict(parse_qsl(query)),
        headers,
        {} if is_json else dict(parse_qsl(body.decode())),
        json.loads(body) if is_json else None,
    )


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    content = answer.encode()
    if answer.drip is None:
        writer.write(content)
        await writer.drain()
        return
    for byte in content:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(answer.drip)
