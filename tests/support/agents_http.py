"""The agents' HTTP of a real broker on a real port, and agents that call it."""

from __future__ import annotations

import base64
import json
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from support.bench import OPERATOR, Bench
from support.patience import PATIENT

from agentvault_tui.broker.agents_api import AgentsApi
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.model import Agent, StepUpStatus
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.web import RequestGuard, Server
from agentvault_tui.web.guard import loopback_hosts
from agentvault_tui.web.sockets import tcp_socket
from agentvault_tui.web.tls import ServerTls

CIBA = "urn:openid:params:grant-type:ciba"
BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DETAIL = {
    "type": "agentvault:action",
    "action": "send:payment",
    "resource": "stripe:acct_42",
    "parameters": {"amount": 4200, "currency": "USD"},
    "reason": "Invoice 1881",
}
Key = OKPKey | ECKey | RSAKey


@dataclass
class Caller:
    """An agent as its own process would be: a client id, a secret, and HTTP."""

    http: httpx.AsyncClient
    agent: Agent
    secret: str

    async def post(self, path: str, **form: Any) -> httpx.Response:
        basic = (self.agent.client_id, self.secret)
        return await self.http.post(path, data=form, auth=basic)

    async def token(self, scope: str = "write:calendar", **form: Any) -> httpx.Response:
        form = {"grant_type": "client_credentials", "scope": scope, **form}
        return await self.post("/oauth/token", **form)

    async def payment(self) -> httpx.Response:
        """Ask for what needs a person."""
        details = json.dumps([DETAIL])
        return await self.token("send:payment", authorization_details=details)

    async def poll(self, auth_req_id: str) -> httpx.Response:
        form = {"grant_type": CIBA, "auth_req_id": auth_req_id}
        return await self.post("/oauth/token", **form)

    async def introspect(self, token: str) -> dict[str, Any]:
        answer = await self.post("/oauth/introspect", token=token)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


class Live:
    """A broker with its agents' HTTP."""

    def __init__(self, bench: Bench, http: httpx.AsyncClient) -> None:
        self.bench, self.http = bench, http
        self.url = str(http.base_url)

    async def caller(self, name: str, *scopes: str, **more: Any) -> Caller:
        scopes = scopes or ("send:payment", "write:calendar", "read:calendar")
        wanted = AgentRequest(
            name=name, owner="olga", purpose="tests", scopes=scopes, **more
        )
        registered = await register(self.bench.broker, wanted, OPERATOR)
        return Caller(self.http, registered.agent, registered.client_secret or "")

    async def approve(self, auth_req_id: str) -> None:
        """Be the person who says yes."""
        broker = self.bench.broker
        stepup = broker.stepups.get(auth_req_id)
        await begin_approval(broker, stepup.id, stepup.digest, OPERATOR)
        self.bench.tenant.approve()
        done = StepUpStatus.APPROVED
        await self.bench.until(lambda: broker.stepups.get(auth_req_id).status is done)

    def claims(self, client_id: str, **changes: Any) -> dict[str, Any]:
        """Return what a good assertion says; a change to `None` leaves it out."""
        now = int(self.bench.clock.now().timestamp())
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": f"{self.url}/oauth/token",
            "iat": now,
            "exp": now + 60,
            "jti": uuid.uuid4().hex,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    async def assertion(self, text: str, **form: Any) -> httpx.Response:
        """Ask for a token with an assertion alone."""
        form = {
            "grant_type": "client_credentials",
            "scope": "write:calendar",
            "client_assertion_type": BEARER,
            "client_assertion": text,
            **form,
        }
        return await self.http.post("/oauth/token", data=form)


@asynccontextmanager
async def live_broker(
    bench: Bench,
    issuer: str = "",
    tls: ServerTls | None = None,
    verify: ssl.SSLContext | bool = True,
) -> AsyncIterator[Live]:
    """Serve *bench* on a free port, as *issuer* or as the port says."""
    bound = tcp_socket("127.0.0.1", 0)
    port = bound.getsockname()[1]
    scheme = "https" if tls else "http"
    app = AgentsApi(bench.broker, issuer or f"{scheme}://127.0.0.1:{port}")
    async with Server(bench.clock) as server:
        guarded = RequestGuard(app, hosts=loopback_hosts(port))
        listener = await server.listen(guarded, bound, tls=tls)
        async with httpx.AsyncClient(
            base_url=listener.url, trust_env=False, timeout=PATIENT, verify=verify
        ) as http:
            yield Live(bench, http)


def sign(claims: dict[str, Any] | bytes, key: Any, alg: str, /, **header: Any) -> str:
    """Make a compact JWS of anything, by any algorithm, as a rogue would."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    head = json.dumps({"alg": alg, "typ": "JWT", **header}).encode()
    signed = b".".join(b64(part) for part in (head, payload))
    by = JWSRegistry.algorithms[alg]
    return b".".join((signed, b64(by.sign(signed, key)))).decode()


def b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def public(key: Key) -> str:
    """Return what an operator registers."""
    return json.dumps(key.as_dict(private=False))
