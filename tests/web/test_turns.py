"""Parsing in turns: whatever peers send at once, one turn of the loop stays short."""

from __future__ import annotations

import asyncio
import time

from support.short_turns import short_turns
from support.web_kit import CLOSE, Serve, read_all

from agentvault_tui.web.turns import SLICE, ParseTurns, ReceivedBytes

PEERS = 96
TINY = b"1\r\nx\r\n" * 1_900


async def test_tiny_chunks_of_many_peers_are_read_in_short_turns(serve: Serve) -> None:
    """Each body arrives whole, and the others have their turn between two slices."""
    listener = await serve()
    host = b"127.0.0.1:%d" % listener.port
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: " + host + b"\r\n"
    opened = [
        await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(PEERS)
    ]
    while len(listener.connections) < PEERS:  # noqa: ASYNC110 - each turn counts
        await asyncio.sleep(0)
    for _, writer in opened:  # all in one turn
        writer.write(head + CLOSE + TINY + b"0\r\n\r\n")
    async with short_turns():
        answers = await asyncio.gather(*(read_all(reader) for reader, _ in opened))
    for _, writer in opened:
        writer.close()
    assert all(b'"length":1900' in answer.replace(b" ", b"") for answer in answers)


class Peer:
    """Bytes of one peer, and the order in which they were parsed."""

    def __init__(self, name: str, parsed: list[str], seconds: float) -> None:
        self.name, self.parsed, self.seconds = name, parsed, seconds
        self.content, self.held = b"", list[bool]()
        loop = asyncio.get_running_loop()
        self.arrived = ReceivedBytes(loop, self.parse, self.held.append)

    def parse(self, data: bytes) -> bool:
        self.parsed.append(self.name)
        self.content += data
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            pass
        return b"end" not in data


async def until_parsed(*peers: Peer) -> None:
    while any(peer.arrived.waits for peer in peers):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0)


async def test_peers_that_wait_are_parsed_one_after_another() -> None:
    """No peer waits until all bytes of another one were parsed."""
    parsed: list[str] = []
    a, b = Peer("a", parsed, 0.003), Peer("b", parsed, 0.003)
    a.arrived.take(b"a" * SLICE * 6)
    b.arrived.take(b"b" * SLICE * 6)
    assert a.arrived.waits
    assert b.arrived.waits
    await until_parsed(a, b)
    assert (a.content, b.content) == (b"a" * SLICE * 6, b"b" * SLICE * 6)
    last = len(parsed) - 1 - parsed[::-1].index("a")
    assert "b" in parsed[: parsed.index("b") + 2]
    assert parsed[:last].count("b") >= 2
    assert a.held == b.held == [True, False]


async def test_a_short_request_never_waits() -> None:
    """It is parsed at once although the turn took long already."""
    parsed: list[str] = []
    long, short = Peer("long", parsed, 0.01), Peer("short", parsed, 0.0)
    long.arrived.take(b"x" * SLICE * 3)
    assert ParseTurns.of(asyncio.get_running_loop()).is_over
    short.arrived.take(b"x" * 100)
    assert short.content == b"x" * 100
    await until_parsed(long)


async def test_nothing_is_parsed_after_the_end() -> None:
    """Neither what follows a refusal, nor the bytes of a connection that was lost."""
    parsed: list[str] = []
    ends, lost = Peer("ends", parsed, 0.01), Peer("lost", parsed, 0.01)
    ends.arrived.take(b"x" * SLICE + b"end".ljust(SLICE) + b"more")
    lost.arrived.take(b"x" * SLICE * 3)
    lost.arrived.drop()
    await until_parsed(ends, lost)
    assert ends.content.endswith(b"end".ljust(SLICE))
    assert len(lost.content) <= SLICE


async def test_bytes_that_come_while_others_wait_are_parsed_behind_them() -> None:
    """The order of the bytes of a connection stays."""
    peer = Peer("peer", [], 0.01)
    peer.arrived.take(b"1" * SLICE * 2)
    peer.arrived.take(b"2" * 10)
    await until_parsed(peer)
    assert peer.content == b"1" * SLICE * 2 + b"2" * 10


class BrokenPeer(Peer):
    """A peer that breaks its parser in a later turn."""

    def parse(self, data: bytes) -> bool:
        super().parse(data)
        if self.held:
            raise RuntimeError
        return True


async def test_a_failure_of_one_peer_stops_no_other() -> None:
    """The one is not read any more, and the other one arrives whole."""
    broken, other = BrokenPeer("broken", [], 0.01), Peer("other", [], 0.01)
    broken.arrived.take(b"x" * SLICE * 3)
    other.arrived.take(b"y" * SLICE * 3)
    await until_parsed(other)
    assert other.content == b"y" * SLICE * 3
    assert (len(broken.content), broken.held) == (2 * SLICE, [True])
    assert not broken.arrived.waits
