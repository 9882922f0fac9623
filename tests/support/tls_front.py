"""TLS for programs that insist on it: a certificate they trust, and a proxy with it."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support.patience import PATIENT

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.web import Server
from agentvault_tui.web.local_ca import CaFiles, renew
from agentvault_tui.web.sockets import tcp_socket
from agentvault_tui.web.tls import ServerTls

_DISCOVERY = "/.well-known/openid-configuration"
_HOP = {"host", "connection", "content-length", "transfer-encoding"}
_METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


def trusted(home: Home) -> tuple[ServerTls, ssl.SSLContext, dict[str, str]]:
    """Return *home*'s certificate, and what makes us and other programs trust it."""
    renew(home, now=datetime.now(UTC))
    files = CaFiles.of(home)
    ca = str(files.ca)
    variables = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
    trust = ssl.create_default_context(cafile=ca)
    return ServerTls(files.leaf), trust, dict.fromkeys(variables, ca)


@asynccontextmanager
async def tls_front(home: Home, url: str) -> AsyncIterator[str]:
    """Put TLS before *url*; yield its host and port, for which *home*'s CA vouches."""
    tls, _, _ = trusted(home)
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENT) as behind,
        Server(SystemClock()) as server,
    ):

        async def forward(request: Request) -> Response:
            sent = [pair for pair in request.headers.items() if pair[0] not in _HOP]
            query = f"?{request.url.query}" if request.url.query else ""
            here = f"https://{request.url.netloc}/"
            answer = await behind.request(
                request.method,
                request.scope["raw_path"].decode() + query,
                headers=sent,
                content=_renamed(await request.body(), here, url),
            )
            kept = {
                name: text for name, text in answer.headers.items() if name not in _HOP
            }
            content = answer.content
            if request.url.path == _DISCOVERY:
                content = _led_here(answer.json(), url, here)
            return Response(content, answer.status_code, kept)

        app = Starlette(routes=[Route("/{path:path}", forward, methods=_METHODS)])
        listener = await server.listen(app, tcp_socket("127.0.0.1", 0), tls=tls)
        yield f"127.0.0.1:{listener.port}"


def _renamed(content: bytes, here: str, there: str) -> bytes:
    """Name APIs as the one behind does: SDKs make the names of the domain they have."""
    for names in ((here, there), (quote(here, safe=""), quote(there, safe=""))):
        content = content.replace(*(name.encode() for name in names))
    return content


def _led_here(document: dict[str, Any], there: str, here: str) -> bytes:
    """Let the endpoints of a discovery document lead through here; its name stays."""
    led = {
        name: said.replace(there, here)
        if name != "issuer" and isinstance(said, str)
        else said
        for name, said in document.items()
    }
    return json.dumps(led).encode()
