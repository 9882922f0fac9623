"""Check whether the forward proxy's port is free, while no broker runs."""

from __future__ import annotations

from collections.abc import Iterator

from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import ConflictError
from agentvault_tui.model.finding import Finding, fault, ok, warning
from agentvault_tui.origins import parse_listen


def check_proxy_port(session: CliSession) -> Iterator[Finding]:
    """Check the forward proxy's port, and name the process that has it."""
    from agentvault_tui.gateway.proxy_listener import USUAL
    from agentvault_tui.web import loopback_pair
    from agentvault_tui.web.port_holder import port_holder

    settings = session.settings
    wanted = settings.gateway.proxy
    auto = wanted == "auto"
    if not wanted or (auto and not settings.broker.address[1]):
        return
    host, port = USUAL if auto else parse_listen(wanted)
    if not port:
        return
    try:
        bound, held = loopback_pair(host, port)
    except ConflictError:
        what = f"the forward proxy's port {port} is taken by {port_holder(port)}"
        how = "stop it, or set gateway.proxy to another port"
        yield warning(what, how) if auto else fault(what, how)
        return
    for one in (bound, held):
        if one is not None:
            one.close()
    yield ok(f"the forward proxy's port {port} is free")
