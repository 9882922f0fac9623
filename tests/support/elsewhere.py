"""An operator on another machine: their key, and a DPoP proof for each request."""

from __future__ import annotations

import hashlib
import json
import secrets
import ssl
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from joserfc.jwk import ECKey, Key
from joserfc.jws import JWSRegistry
from support.bench import Bench
from support.patience import PATIENT

from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.operators_api.remote import RemoteGuard
from agentvault_tui.web import Listener, RequestGuard, Server
from agentvault_tui.web.local_ca import CaFiles, renew
from agentvault_tui.web.places import Limits
from agentvault_tui.web.reply import problem
from agentvault_tui.web.sockets import tcp_socket
from agentvault_tui.web.tls import ServerName, ServerTls

HOST = "localhost"


def encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class Elsewhere:
    """Speaks to a broker over TLS, by a library of its own."""

    def __init__(self, stand: Stand) -> None:
        self.stand, self.url = stand, stand.url
        self.key: Key = ECKey.generate_key("P-256")
        self.token = self.nonce = ""
        self.http = httpx.AsyncClient(
            verify=stand.trust(), base_url=self.url, trust_env=False, timeout=PATIENT
        )

    def proof(self, method: str, path: str, **changes: Any) -> str:
        """Return a proof for a request, some of whose claims are changed."""
        claims: dict[str, Any] = {
            "htm": method,
            "htu": self.url + path,
            "iat": int(self.stand.bench.clock.now().timestamp()),
            "jti": secrets.token_urlsafe(12),
            "nonce": self.nonce,
        }
        if self.token:
            claims["ath"] = encoded(hashlib.sha256(self.token.encode()).digest())
        header = {
            "typ": "dpop+jwt",
            "alg": "ES256",
            "jwk": self.key.as_dict(private=False),
            **changes.pop("header", {}),
        }
        key, named = changes.pop("key", self.key), claims | changes
        kept = {name: value for name, value in named.items() if value is not None}
        # By the algorithm itself: joserfc writes no header that nobody should write.
        parts = (encoded(json.dumps(one).encode()) for one in (header, kept))
        signed = ".".join(parts)
        algorithm = JWSRegistry.algorithms[header["alg"]]
        return f"{signed}.{encoded(algorithm.sign(signed.encode(), key))}"

    async def ask(
        self, method: str, path: str, *, proof: str | None = None, **more: Any
    ) -> httpx.Response:
        """Send a request with that *proof*, or with one made for the nonce it takes."""
        added = more.pop("headers", {})
        while True:
            used = self.nonce
            headers = {"DPoP": proof or self.proof(method, path), **added}
            if self.token:
                headers["Authorization"] = f"DPoP {self.token}"
            answer = await self.http.request(method, path, headers=headers, **more)
            self.nonce = answer.headers.get("dpop-nonce", self.nonce)
            renewed = "use_dpop_nonce" in answer.headers.get("www-authenticate", "")
            if proof is not None or not renewed or self.nonce == used:
                return answer

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.ask("POST", path, json=body)

    async def begin(self) -> httpx.Response:
        """Begin a sign-in."""
        answer = await self.ask("POST", "/api/auth/session")
        if answer.status_code == 202:
            self.token = answer.json()["access_token"]
        return answer

    async def sign_in(self, *roles: str, name: str = "vera") -> None:
        """Begin, be the person who has *roles*, and wait until it is known."""
        assert (await self.begin()).status_code == 202
        who = {"sub": f"auth0|{name}", "roles": roles, "amr": ("mfa", "otp")}
        self.stand.bench.tenant.approve(who=who)
        while (me := (await self.get("/api/auth/me")).json())["pending"]:
            pass
        assert me["user"]["sub"] == f"auth0|{name}", me


class Stand:
    """A broker in process, with its listener for operators elsewhere."""

    def __init__(self, bench: Bench, sessions: Sessions, listener: Listener) -> None:
        self.bench, self.sessions, self.listener = bench, sessions, listener
        self.url = f"https://{HOST}:{listener.port}"
        self.people: list[Elsewhere] = []

    def operator(self) -> Elsewhere:
        """Return an operator with a new key."""
        self.people.append(Elsewhere(self))
        return self.people[-1]

    def trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=CaFiles.of(self.bench.home).ca)
        context.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME
        return context

    @classmethod
    @asynccontextmanager
    async def open(
        cls, bench: Bench, limits: Limits | None = None
    ) -> AsyncIterator[Stand]:
        now = bench.clock.now()
        renew(bench.home, [HOST], now=now)
        files = CaFiles.of(bench.home).leaf
        sessions = Sessions(bench.broker)
        bound = tcp_socket("127.0.0.1", 0)
        host = f"{HOST}:{bound.getsockname()[1]}"
        guarded = RequestGuard(
            operators_app(bench.broker, bench.feed, sessions),
            hosts=frozenset({host.encode()}),
            shape=problem,
        )
        most = (limits or Limits()).connections
        url = f"https://{host}/"
        guard = RemoteGuard(guarded, bench.broker, sessions, url, most)
        async with Server(bench.clock) as server:
            tls = ServerTls(files, ServerName(HOST, bench.clock))
            listener = await server.listen(
                guard, bound, tls=tls, shape=problem, limits=limits
            )
            stand = cls(bench, sessions, listener)
            try:
                yield stand
            finally:
                for person in stand.people:
                    await person.http.aclose()
