"""Tries to take a port, as another user's program would."""

from __future__ import annotations

import socket


def bind_error(host: str, port: int) -> int | None:
    """Bind *port* on *host* and listen; return the errno, or None where it works."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((host, port))
            other.listen()
        except OSError as error:
            return error.errno
    return None
