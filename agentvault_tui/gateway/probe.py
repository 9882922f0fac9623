"""Probe whether a service takes a body that it left unread for another request.

A probe can show that it does. If it shows nothing, another path, method or server
behind the same address may still do so.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Final

from agentvault_tui.gateway.services import Service
from agentvault_tui.operator_api.gateway import ProbeInfo, ServiceProbe
from agentvault_tui.web.reach import service_connection, trust, unreachable
from agentvault_tui.web.service_connection import Bounds, UpstreamError

METHODS: Final = ("OPTIONS", "GET", "POST")
"""Methods of the probes: for a path that no service has, without any credential."""
UNREAD: Final = "unread"
_BOUNDS: Final = Bounds(connect=5.0, idle=5.0, whole=10.0, answer_bytes=2**20)
_SETTLE_S: Final = 2.0
"""Seconds to wait for a second answer, once the first has come."""


async def probe(service: Service) -> ServiceProbe:
    """Send *service* a few requests, each with a body that is a request itself.

    Nothing of an agent and no credential is sent. Addresses are checked, and TLS is
    verified, as for calls.
    """
    answers = tuple([one async for one in _probes(service)])
    shown = any(one.outcome == UNREAD for one in answers)
    return ServiceProbe(
        name=service.name,
        origin=str(service.origin),
        leaves_unread=True if shown else None,
        probes=answers,
    )


async def _probes(service: Service) -> AsyncIterator[ProbeInfo]:
    for method in METHODS:
        try:
            status, outcome = await _one(service, method)
        except UpstreamError as error:
            yield ProbeInfo(method=method, status=None, outcome=error.code)
        else:
            yield ProbeInfo(method=method, status=status, outcome=outcome)


async def _one(service: Service, method: str) -> tuple[int, str]:
    """Return the status of the answer to one request, and the bytes after it.

    Raises:
        UpstreamError: there is no answer.
    """
    origin, path = service.origin, f"/agentvault-probe-{secrets.token_hex(8)}"
    inner = f"GET {path}-body HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n".encode()
    try:
        connection = await service_connection(
            origin.host,
            origin.port,
            private=service.allow_private,
            tls=trust(service.authorities) if origin.scheme == "https" else None,
            bounds=_BOUNDS,
        )
    except OSError:  # an ssl.SSLError is one
        raise unreachable() from None
    try:
        connection.begin(method)
        headers = [("Host", origin.authority), ("Content-Type", "text/plain")]
        connection.send(path, headers, inner, None)
        await connection.answered()
        while await connection.read():
            pass
        await connection.settle(_SETTLE_S)
        if connection.has_surplus:
            return connection.status, UNREAD
        closed = connection.transport.is_closing()
        return connection.status, "closed" if closed else "nothing_shown"
    finally:
        connection.abort()
