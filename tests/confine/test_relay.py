"""Bytes pass both ways, ends are passed on, and a destination that is gone closes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from support.patience import PATIENT

from agentvault_tui.confine import relay as module
from agentvault_tui.confine.network import Endpoint
from agentvault_tui.confine.relay import Relay


class Stand:
    """A relay to a server that answers with what it read, once that has ended."""

    def __init__(self, opened: ExitStack) -> None:
        self.server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.inside = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.opened = opened
        endpoint = Endpoint("127.0.0.1", self.server.getsockname()[1])
        relay = Relay([self.inside], [endpoint])
        relay.start()
        opened.callback(relay.stop)

    def serve(self, connections: int) -> None:
        def answer() -> None:
            with suppress(OSError):
                for _ in range(connections):
                    one, _ = self.server.accept()
                    with one:
                        content = b""
                        while piece := one.recv(65_536):
                            content += piece
                        one.sendall(content[::-1])

        threading.Thread(target=answer, daemon=True).start()

    def connect(self) -> socket.socket:
        address = self.inside.getsockname()
        return self.opened.enter_context(socket.create_connection(address, PATIENT))


@pytest.fixture
def stand() -> Iterator[Stand]:
    with ExitStack() as opened:
        yield Stand(opened)


def read(connection: socket.socket) -> bytes:
    content = b""
    while piece := connection.recv(65_536):
        content += piece
    return content


def test_all_bytes_pass_both_ways_with_their_ends(stand: Stand) -> None:
    """The server sees the end of what was sent, and answers after it."""
    stand.serve(1)
    content = bytes(range(256)) * 4096
    connection = stand.connect()
    sender = threading.Thread(target=connection.sendall, args=(content,))
    sender.start()
    sender.join(PATIENT)
    connection.shutdown(socket.SHUT_WR)
    assert read(connection) == content[::-1]


def test_a_destination_that_is_gone_closes_the_connection(stand: Stand) -> None:
    """The command sees an end, and nothing hangs."""
    stand.server.close()
    connection = stand.connect()
    with suppress(ConnectionResetError):
        assert connection.recv(1) == b""


def test_a_connection_that_is_closed_outside_is_closed_inside(stand: Stand) -> None:
    """A revocation closes it at the broker."""
    connection = stand.connect()
    accepted, _ = stand.server.accept()
    accepted.sendall(b"x")
    assert connection.recv(1) == b"x"
    accepted.close()
    assert connection.recv(1) == b""


def test_so_many_connections_are_carried_and_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command cannot take every descriptor of the process that watches it."""
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 2)
    with ExitStack() as opened:
        stand = Stand(opened)
        first = [stand.connect() for _ in range(2)]
        accepted = [stand.server.accept()[0] for _ in first]
        third = stand.connect()
        stand.server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stand.server.accept()
        stand.server.settimeout(PATIENT)
        accepted[0].close()
        first[0].close()
        one, _ = stand.server.accept()
        one.sendall(b"x")
        assert third.recv(1) == b"x"
        for each in (*accepted, one):
            each.close()
