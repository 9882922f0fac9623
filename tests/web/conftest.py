"""A listener on a free port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.web_kit import Serve, echo

from agentvault_tui.web import App, Listener, RequestGuard, Server
from agentvault_tui.web.guard import loopback_hosts
from agentvault_tui.web.sockets import tcp_socket


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(ManualClock(datetime(2026, 11, 24, tzinfo=UTC))) as server:
        yield server


@pytest.fixture
def serve(server: Server) -> Serve:
    """Serve an app on a free port, the echo behind a guard when none is named."""

    async def start(app: App | None = None, **more: Any) -> Listener:
        bound = tcp_socket("127.0.0.1", 0)
        app = app or RequestGuard(echo, hosts=loopback_hosts(bound.getsockname()[1]))
        return await server.listen(app, bound, **more)

    return start
