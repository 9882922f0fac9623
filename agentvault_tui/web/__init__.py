"""HTTP servers for ASGI apps: sockets, deadlines, caps, and guards before an app."""

from agentvault_tui.web.forms import BodyError, parse_body, parse_form
from agentvault_tui.web.guard import (
    BODY_CAP,
    RequestGuard,
    read_body,
)
from agentvault_tui.web.public import LOCALHOST, LocalSite, PublicAddress
from agentvault_tui.web.reply import (
    App,
    Receive,
    Scope,
    Send,
)
from agentvault_tui.web.server import Listener, Server, run
from agentvault_tui.web.sockets import (
    loopback_pair,
    public_socket,
)

__all__ = [
    "BODY_CAP",
    "LOCALHOST",
    "App",
    "BodyError",
    "Listener",
    "LocalSite",
    "PublicAddress",
    "Receive",
    "RequestGuard",
    "Scope",
    "Send",
    "Server",
    "loopback_pair",
    "parse_body",
    "parse_form",
    "public_socket",
    "read_body",
    "run",
]
