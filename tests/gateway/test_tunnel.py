"""An opaque tunnel carries bytes both ways, within bounds, until it is cut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from support.patience import PATIENT

from agentvault_tui.gateway import tunnel
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.gateway.tunnel import carry, tunnel_call

Ends = tuple[socket.socket, socket.socket, socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The agent, our two ends, and the host."""
    made = (*socket.socketpair(), *socket.socketpair())
    for one in made:
        one.setblocking(False)
    yield made
    for one in made:
        one.close()


def new_call() -> Call:
    return tunnel_call(cast("Any", None), "a.test", 443)


async def test_bytes_go_both_ways_until_both_ends_are_done(ends: Ends) -> None:
    """Each is counted; an end that has said all still hears the other."""
    agent, near, far, host = ends
    loop, call = asyncio.get_running_loop(), new_call()
    carrying = asyncio.create_task(carry(call, near, far))
    await loop.sock_sendall(agent, b"asks")
    agent.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(PATIENT):
        assert await loop.sock_recv(host, 10) == b"asks"
        assert await loop.sock_recv(host, 10) == b""
        await loop.sock_sendall(host, b"answers")
        host.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(agent, 10) == b"answers"
        await carrying
    assert (call.bytes_out, call.bytes_in) == (4, 7)


async def test_a_call_that_was_cut_before_carries_nothing(ends: Ends) -> None:
    """A revocation may come while the agent is told that its tunnel stands."""
    agent, near, far, host = ends
    loop, call = asyncio.get_running_loop(), new_call()
    call.cut = CallRefusedError(401, "invalid_token", "agent_revoked", "gone")
    await loop.sock_sendall(agent, b"asks")
    with pytest.raises(ConnectionAbortedError):
        await carry(call, near, far)
    async with asyncio.timeout(PATIENT):
        assert await loop.sock_recv(host, 10) == b""


async def test_a_tunnel_has_a_most_of_bytes(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would go beyond it, in both directions together, does not pass."""
    monkeypatch.setattr(tunnel, "_TUNNEL_BYTES", 10)
    agent, near, far, host = ends
    loop, call = asyncio.get_running_loop(), new_call()
    carrying = asyncio.create_task(carry(call, near, far))
    async with asyncio.timeout(PATIENT):
        await loop.sock_sendall(agent, b"123456")
        assert await loop.sock_recv(host, 20) == b"123456"
        await loop.sock_sendall(host, b"12345")
        assert await loop.sock_recv(agent, 20) == b""
        host.close()
        with pytest.raises(ConnectionError):
            await carrying


async def test_an_end_that_breaks_off_is_told(ends: Ends) -> None:
    """A tunnel that did not end by itself has failed."""
    agent, near, far, host = ends
    loop, call = asyncio.get_running_loop(), new_call()
    carrying = asyncio.create_task(carry(call, near, far))
    async with asyncio.timeout(PATIENT):
        await loop.sock_sendall(host, b"unread")
        assert await loop.sock_recv(agent, 3) == b"unr"
        agent.close()  # with bytes that it did not read: a reset
        await loop.sock_sendall(host, b"more")
        host.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError):
            await carrying
