"""Where a browser ends: a loopback address we listen on, or one that a person pastes.

Both at once: over SSH the browser is on another machine, where our address is not.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Final

from agentvault_tui.errors import RefusedError

PORT: Final = 7719
"""What `auth0 apply` registers: Auth0 compares the whole of a client's addresses."""
PATH: Final = "/callback"
_HOST: Final = "127.0.0.1"
_SLOWEST: Final = 5.0
_LONGEST: Final = 16_384
_LONGEST_QUERY: Final = 3800
"""What the broker takes; more is nobody's answer, and would only be refused there."""
_PAGE: Final = b"""<!doctype html><meta charset="utf-8"><title>AgentVault</title>
<p>Go back to the terminal. You can close this page.</p>
"""


class _Handler(BaseHTTPRequestHandler):
    """Takes one GET; whatever else is asked here gets nothing."""

    timeout = _SLOWEST
    server: _CallbackServer

    def setup(self) -> None:
        """Give the whole request a deadline: a byte a second would pass each read's."""
        self._deadline = threading.Timer(_SLOWEST, self._hang_up)
        self._deadline.daemon = True
        self._deadline.start()
        super().setup()

    def finish(self) -> None:
        """Let the deadline go."""
        self._deadline.cancel()
        super().finish()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """Keep where the browser ended, and send it home."""
        here = self.server.name
        path, _, query = self.path.partition("?")
        # Another name for this address is another site's page speaking (rebinding); a
        # browser that sends a person here goes to a page, and loads no part of one.
        elsewhere = self.headers.get("Host") != here
        part = self.headers.get("Sec-Fetch-Mode", "navigate") != "navigate"
        if path != PATH or not 0 < len(query) <= _LONGEST_QUERY or elsewhere or part:
            self.send_error(404)
            return
        self.server.address = f"http://{here}{self.path}"
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(_PAGE)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, *_: object) -> None:
        """Say nothing: a code is in the request line."""


class _CallbackServer(TCPServer):
    """One socket, one request at a time."""

    allow_reuse_address = True
    address: str = ""

    @property
    def name(self) -> str:
        """Host and port, as a browser that was sent here names us."""
        return f"{_HOST}:{self.server_address[1]}"

    def take(self) -> str:
        """Serve the request that waits; return where the browser ended, if it did."""
        self.address = ""
        self.handle_request()
        return self.address

    def handle_error(self, *_: object) -> None:
        """Say nothing of a browser that hung up."""


class Callback:
    """The next address at which a browser ends, whichever way it reaches us."""

    def __init__(self, port: int, listener: _CallbackServer | None) -> None:
        """Use `listening` instead."""
        self._listener = listener
        self._name = listener.name if listener else f"{_HOST}:{port}"
        self._typed = b""
        self._input_open = True

    @property
    def address(self) -> str:
        """Where the tenant is to send the browser."""
        return f"http://{self._name}{PATH}"

    @property
    def listens(self) -> bool:
        """Whether it reaches us by itself; if not, it has to be pasted."""
        return self._listener is not None

    def next(self, seconds: float) -> str:
        """Wait for the next address.

        Raises:
            RefusedError: none came in time, or none can come any more.
        """
        end = time.monotonic() + seconds
        while True:
            if line := self._line():
                return line
            sources: list[int | socket.socket] = []
            if self._listener:
                sources.append(self._listener.socket)
            if self._input_open:
                sources.append(sys.stdin.fileno())
            left = end - time.monotonic()
            if not sources or left <= 0:
                raise RefusedError("the browser did not come back", "begin again")
            ready, _, _ = select.select(sources, [], [], left)
            # The terminal first: whoever keeps knocking must not keep it from being
            # read.
            if self._input_open and sys.stdin.fileno() in ready:
                self._read()
            elif (
                self._listener
                and self._listener.socket in ready
                and (address := self._listener.take())
            ):
                return address

    def _read(self) -> None:
        # Not sys.stdin: what it buffers, select does not see.
        said = os.read(sys.stdin.fileno(), 4096)
        self._input_open = bool(said) and len(self._typed) < _LONGEST
        self._typed += said

    def _line(self) -> str:
        """Return a line that was pasted, without what is around it."""
        line, newline, rest = self._typed.partition(b"\n")
        if not newline and self._input_open:
            return ""
        self._typed = rest
        return line.decode("utf-8", "replace").strip()


@contextmanager
def listening(port: int) -> Iterator[Callback]:
    """Listen on *port* for a block; 0 picks one. Where it is taken, pasting is left."""
    try:
        listener = _CallbackServer((_HOST, port), _Handler)
    except OSError:
        yield Callback(port, None)
        return
    listener.timeout = 0
    with listener:
        yield Callback(port, listener)
