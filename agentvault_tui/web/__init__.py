"""HTTP servers for ASGI apps: sockets, deadlines, caps, and guards before an app."""

from agentvault_tui.web.forms import BodyError, parse_body, parse_form
from agentvault_tui.web.guard import (
    BODY_CAP,
    RequestGuard,
    loopback_hosts,
    read_body,
)
from agentvault_tui.web.limits import Limits
from agentvault_tui.web.public import PublicAddress
from agentvault_tui.web.reply import (
    App,
    Receive,
    Reply,
    Scope,
    Send,
    json_reply,
    problem,
)
from agentvault_tui.web.server import Listener, Server, run
from agentvault_tui.web.sockets import (
    Peer,
    loopback_pair,
    public_socket,
    tcp_socket,
    unix_socket,
)
from agentvault_tui.web.tls import ServerTls, TlsFiles

__all__ = [
    "BODY_CAP",
    "App",
    "BodyError",
    "Limits",
    "Listener",
    "Peer",
    "PublicAddress",
    "Receive",
    "Reply",
    "RequestGuard",
    "Scope",
    "Send",
    "Server",
    "ServerTls",
    "TlsFiles",
    "json_reply",
    "loopback_hosts",
    "loopback_pair",
    "parse_body",
    "parse_form",
    "problem",
    "public_socket",
    "read_body",
    "run",
    "tcp_socket",
    "unix_socket",
]
