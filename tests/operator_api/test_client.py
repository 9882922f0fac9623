"""The command line's client, over a real socket."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from agentvault_tui.errors import NotFoundError, SettingsError, UnreachableError
from agentvault_tui.operator_api.calls import STATUS
from agentvault_tui.operator_api.client import OperatorClient


def answer_once(path: Path, reply: bytes) -> threading.Thread:
    """Answer one request at *path* with *reply*, from a thread."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_refusal_is_the_error_of_its_status(short: Path) -> None:
    """A problem document of RFC 9457 becomes an error with detail and remedy."""
    body = b'{"detail": "no such agent", "remedy": "agentvault agents list"}'
    head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    thread = answer_once(short / "sock", head + body)
    with pytest.raises(NotFoundError) as raised:
        OperatorClient(short / "sock").call(STATUS)
    thread.join()
    assert raised.value.diagnosis() == "no such agent: agentvault agents list"


def test_a_broker_that_breaks_off_is_unreachable(short: Path) -> None:
    """If the connection closes without an answer, the call raises; so `reachable` is
    false."""
    thread = answer_once(short / "sock", b"")
    with pytest.raises(UnreachableError, match="broke off"):
        OperatorClient(short / "sock").call(STATUS)
    thread.join()
    assert not OperatorClient(short / "sock").reachable()


def test_a_socket_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    """A path beyond the kernel's limit is an error of the settings."""
    with pytest.raises(SettingsError):
        OperatorClient(tmp_path / ("x" * 120) / "sock")
