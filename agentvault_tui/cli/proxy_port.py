"""Check whether the broker's ports are free, while it does not run."""

from __future__ import annotations

from collections.abc import Iterator

from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import ConflictError
from agentvault_tui.model.finding import Finding, fault, ok, warning
from agentvault_tui.origins import parse_listen


def check_proxy_port(session: CliSession) -> Iterator[Finding]:
    """Check the forward proxy's port, and name the process that has it."""
    from agentvault_tui.gateway.proxy_listener import USUAL

    settings = session.settings
    wanted = settings.gateway.proxy
    auto = wanted == "auto"
    if not wanted or (auto and not settings.broker.address[1]):
        return
    host, port = USUAL if auto else parse_listen(wanted)
    if not port:
        return
    if holder := _find_holder(host, port):
        what = f"the forward proxy's port {port} is taken by {holder}"
        how = "stop it, or set gateway.proxy to another port"
        yield warning(what, how) if auto else fault(what, how)
        return
    yield ok(f"the forward proxy's port {port} is free")


def check_agents_port(session: CliSession) -> Iterator[Finding]:
    """Check the port for agents, without which `serve` does not start."""
    host, port = session.settings.broker.address
    if port and (holder := _find_holder(host, port)):
        yield warning(
            f"port {port}, where agents would ask, is taken by {holder}",
            "stop it, or: agentvault serve --listen 127.0.0.1:0",
        )


def _find_holder(host: str, port: int) -> str | None:
    """Find the process that has a port; None if the port is free."""
    from agentvault_tui.web import loopback_pair
    from agentvault_tui.web.port_holder import port_holder

    try:
        sockets = loopback_pair(host, port)
    except ConflictError:
        return port_holder(port)
    for one in sockets:
        if one is not None:
            one.close()
    return None
