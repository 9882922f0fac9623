"""HTTP as every face of ours serves it: bounded, loopback or socket, suspicious.

Broker and tenant bring an ASGI app; sockets, deadlines, caps and refusals are here.
"""

from agentvault_tui.web.forms import BodyError, parse_body, parse_form, parse_json
from agentvault_tui.web.guard import (
    BODY_CAP,
    ClientGoneError,
    Guard,
    loopback_hosts,
    read_body,
)
from agentvault_tui.web.limits import Limits
from agentvault_tui.web.reply import (
    App,
    Receive,
    Reply,
    Scope,
    Send,
    Shape,
    json_reply,
    oauth_error,
    problem,
)
from agentvault_tui.web.server import Listener, Server, peer, run
from agentvault_tui.web.sockets import (
    Peer,
    loopback_pair,
    tcp_socket,
    unix_socket,
)
from agentvault_tui.web.tls import ServerTls, TlsFiles

__all__ = [
    "BODY_CAP",
    "App",
    "BodyError",
    "ClientGoneError",
    "Guard",
    "Limits",
    "Listener",
    "Peer",
    "Receive",
    "Reply",
    "Scope",
    "Send",
    "Server",
    "ServerTls",
    "Shape",
    "TlsFiles",
    "json_reply",
    "loopback_hosts",
    "loopback_pair",
    "oauth_error",
    "parse_body",
    "parse_form",
    "parse_json",
    "peer",
    "problem",
    "read_body",
    "run",
    "tcp_socket",
    "unix_socket",
]
