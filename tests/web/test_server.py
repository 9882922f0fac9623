"""Deadlines, caps and a bounded stop, on real sockets."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
import time
from asyncio.subprocess import PIPE
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from support.needs import as_root
from support.patience import PATIENT, until
from support.web_kit import CLOSE, GET, POST, QUICK, Serve, echo, read_all, talk

from agentvault_tui.clock import SystemClock
from agentvault_tui.web import App, Receive, Scope, Send, Server
from agentvault_tui.web.exchange import count_connection
from agentvault_tui.web.places import Limits, file_limit
from agentvault_tui.web.reply import json_reply
from agentvault_tui.web.sockets import tcp_socket, unix_socket

AGENT = b"GET /wait HTTP/1.1\r\nHost: @\r\nAgent: %b\r\n\r\n"
STRANGER = """
import os, socket, sys
os.setuid(4321)
held = []
for _ in range(int(sys.argv[2])):
    held.append(socket.socket())
    held[-1].connect(("127.0.0.1", int(sys.argv[1])))
    held[-1].sendall(b"GET /slow HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n")
os.read(0, 1)
"""


def slow_app() -> tuple[App, asyncio.Event]:
    """Make an app that answers ``/slow`` once the event is set, others at once."""
    over = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await over.wait()
        await echo(scope, receive, send)

    return slow, over


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "least"),
    [
        (b"", 0.3),
        (b"GE", 0.3),
        (b"GET / HTTP/1.1\r\nHost: @\r\n", 0.3),
        (POST, 0.6),
        (POST + b"ab", 0.6),
        (b"POST / HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n", 0.6),
    ],
    ids=["silent", "method", "headers", "body", "half a body", "chunks"],
)
async def test_what_does_not_arrive_in_time_is_closed(
    serve: Serve, sent: bytes, least: float
) -> None:
    """A client that stops before its request is whole is hung up on, not sooner."""
    listener = await serve(limits=QUICK)
    began = time.monotonic()
    assert await talk(listener, sent) == b""
    assert time.monotonic() - began >= least * 0.9


@pytest.mark.slow
@pytest.mark.parametrize("head", [True, False])
async def test_a_trickle_does_not_move_the_deadline(serve: Serve, head: bool) -> None:
    """One byte now and then is no progress (slowloris)."""
    listener = await serve(limits=QUICK)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    host = b"127.0.0.1:%d" % listener.port
    whole = POST.replace(b"@", host).replace(b": 5", b": 50000")
    writer.write(whole[:-4] if head else whole)
    ended = asyncio.create_task(read_all(reader))
    try:
        async with asyncio.timeout(20):  # at this pace it would be whole in 40 minutes
            while not ended.done():
                writer.write(b"1")
                await asyncio.wait({ended}, timeout=0.05)
        assert await ended == b""
    finally:
        writer.close()


@pytest.mark.slow
async def test_an_idle_connection_stays_and_then_is_closed(serve: Serve) -> None:
    """Keep-alive has its own limit."""
    listener = await serve(limits=QUICK)
    began = time.monotonic()
    assert (await talk(listener, GET)).count(b"HTTP/1.1 200") == 1
    assert time.monotonic() - began > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "later"), [(b"GET / HT", False), (b"GET / HT", True), (b"\r\n", True)]
)
async def test_a_second_request_has_a_deadline_too(
    serve: Serve, start: bytes, later: bool
) -> None:
    """Whatever follows an answer must become a request in time, or is closed."""
    listener = await serve(limits=replace(QUICK, idle_seconds=60))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    first = GET.replace(b"@", b"127.0.0.1:%d" % listener.port)
    try:
        async with asyncio.timeout(30):
            if later:
                writer.write(first)
                assert await reader.readuntil(b'{"method"')
                writer.write(start)
            else:
                writer.write(first + start)
            await read_all(reader)
    finally:
        writer.close()


@pytest.mark.slow
async def test_slow_and_silent_clients_do_not_slow_a_normal_one(serve: Serve) -> None:
    """Beside four hundred half-open requests a normal client is answered every time."""
    listener = await serve(limits=Limits(head_seconds=1.0))
    rogues = []
    for number in range(400):
        rogue = socket.socket()
        rogue.setblocking(False)
        rogue.connect_ex(("127.0.0.1", listener.port))
        rogues.append(rogue)
        if number % 50 == 0:
            await asyncio.sleep(0)
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
        for _ in range(50):
            assert (await client.get(listener.url)).status_code == 200
        await until(lambda: len(listener.connections) <= 1)
    for rogue in rogues:
        rogue.close()


async def test_one_connection_too_many_is_told_so(serve: Serve) -> None:
    """With a request at every place a listener answers 503, and later serves again."""
    done = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await done.wait()
        await echo(scope, receive, send)

    listener = await serve(slow, limits=Limits(connections=2))
    two = [asyncio.create_task(talk(listener, GET[:-2] + CLOSE)) for _ in range(2)]
    await until(lambda: len(listener.tasks) >= 2)
    assert (await talk(listener, GET)).startswith(b"HTTP/1.1 503 ")
    done.set()
    answers = await asyncio.gather(*two)
    assert all(said.startswith(b"HTTP/1.1 200 ") for said in answers)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(listener.url)).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET / HT", POST + b"12"])
async def test_a_connection_without_a_request_is_given_up_first(
    serve: Serve, sent: bytes
) -> None:
    """Silent connections and half requests shut nobody out while they are let be."""
    listener = await serve(limits=Limits(connections=4))
    idle = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(9)]
    for _, writer in idle:
        writer.write(sent)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(listener.url)).status_code == 200
    assert len(listener.connections) <= 4
    for _, writer in idle:
        writer.close()


@pytest.mark.slow
@as_root
async def test_another_users_requests_shut_nobody_out(serve: Serve) -> None:
    """With a stranger's request at every place, ours is answered all the same."""
    slow, over = slow_app()
    listener = await serve(slow, limits=Limits(connections=8))
    argv = (sys.executable, "-c", STRANGER, str(listener.port), "8")
    stranger = await asyncio.create_subprocess_exec(*argv, stdin=PIPE)
    assert stranger.stdin is not None
    try:
        async with asyncio.timeout(PATIENT):
            await until(lambda: len(listener.tasks) >= 8)
            for _ in range(3):
                assert b" 200 " in await talk(listener, GET[:-2] + CLOSE)
    finally:
        over.set()
        stranger.stdin.close()
        await stranger.wait()


async def test_an_idle_connection_is_given_up_for_a_new_one(serve: Serve) -> None:
    """At its cap a listener lets go of the connection idle longest for a new one."""
    listener = await serve(limits=Limits(connections=2))
    async with (
        httpx.AsyncClient(trust_env=False) as first,
        httpx.AsyncClient(trust_env=False) as second,
    ):
        assert (await first.get(listener.url)).status_code == 200
        assert (await second.get(listener.url)).status_code == 200
        async with httpx.AsyncClient(trust_env=False) as third:
            assert (await third.get(listener.url)).status_code == 200
        assert len(listener.connections) <= 2


async def test_what_leaves_names_the_time_and_not_the_software(serve: Serve) -> None:
    """Date comes from the clock passed in; there is no Server header."""
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = (await client.get((await serve()).url)).headers
    assert headers["date"] == "Tue, 24 Nov 2026 00:00:00 GMT"
    assert "server" not in headers


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Send one event and then nothing until the client leaves."""
    kind = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    event = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
    await send(event)
    while (await receive())["type"] != "http.disconnect":
        pass


async def test_a_peer_that_leaves_amid_a_stream_is_no_fault_of_ours(
    server: Server, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Nothing is logged, also where reading had stopped for a pipelined request."""
    gone, ended = asyncio.Event(), asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await gone.wait()
        piece = {"type": "http.response.body", "body": b"x", "more_body": True}
        for _ in range(9):
            await send(piece)
            await asyncio.sleep(0)
        ended.set()

    listener = await server.listen(endless, unix_socket(tmp_path / "s"))
    reader, writer = await asyncio.open_unix_connection(listener.path)
    writer.write(GET + GET)
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    async with asyncio.timeout(PATIENT):
        await writer.wait_closed()
        running = asyncio.gather(*listener.tasks)
        gone.set()
        await running
    assert ended.is_set()
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def test_stopping_ends_streams_at_once_and_lets_requests_finish() -> None:
    """An open stream does not hold up the stop; a running request gets its answer."""
    began, release = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/stream":
            return await stream(scope, receive, send)
        began.set()
        await release.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        return await send({"type": "http.response.body", "body": b""})

    server = Server(SystemClock())
    listener = await server.listen(app, tcp_socket("127.0.0.1", 0))
    async with httpx.AsyncClient(trust_env=False) as client:
        async with client.stream("GET", listener.url + "/stream") as events:
            lines = events.aiter_lines()
            assert await anext(lines) == "data: 1"
            slow = asyncio.create_task(client.get(listener.url))
            await began.wait()
            stopping = asyncio.create_task(server.stop(grace=5))
            with pytest.raises(httpx.RemoteProtocolError):
                [line async for line in lines]
            assert not stopping.done()
            release.set()
            assert (await slow).status_code == 204
            async with asyncio.timeout(30):
                await stopping
        with pytest.raises(httpx.ConnectError):
            await client.get(listener.url)


@pytest.mark.slow
async def test_stopping_is_bounded_whatever_a_handler_does() -> None:
    """A handler that never ends is cancelled after the grace."""
    entered = asyncio.Event()

    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.Event().wait()

    server = Server(SystemClock())
    listener = await server.listen(stuck, tcp_socket("127.0.0.1", 0))
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(GET)
    await entered.wait()
    async with asyncio.timeout(20):
        await server.stop(grace=0.2)
    assert not listener.tasks
    writer.close()


@pytest.mark.slow
async def test_a_peer_that_does_not_read_is_cut(server: Server) -> None:
    """An answer nobody takes does not stay in memory for ever."""
    ended = asyncio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        piece = {"type": "http.response.body", "body": b"x" * 65_536, "more_body": True}
        try:
            while not scope["state"].get("gone"):
                await send(dict(piece))
                if (await asyncio.wait_for(_peek(receive), 1)) == "http.disconnect":
                    break
        finally:
            ended.set()

    limits = Limits(write_seconds=0.3)
    listener = await server.listen(flood, tcp_socket("127.0.0.1", 0), limits=limits)
    quiet = socket.create_connection(("127.0.0.1", listener.port))
    quiet.sendall(GET.replace(b"@", b"x"))
    async with asyncio.timeout(30):
        await until(lambda: listener.connections)
        await ended.wait()
        await until(lambda: not listener.connections)
    # It ended because of the peer, not because the peer ended.
    assert quiet.fileno() != -1
    assert not listener.connections
    quiet.close()


async def _peek(receive: Receive) -> str:
    """Return what the connection has to say right now, if anything."""
    try:
        async with asyncio.timeout(0.001):
            return str((await receive())["type"])
    except TimeoutError:
        return ""


@pytest.mark.parametrize(
    ("soft", "hard", "places"),
    [(1024, 4096, 1024), (256, 256, 128), (1024, 1024, 768), (1024, -1, 1024)],
)
def test_a_listener_leaves_descriptors_to_the_rest(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, places: int
) -> None:
    """However few the system allows, connections leave some for store and operators."""
    limit = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limit))
    monkeypatch.setattr(
        resource, "setrlimit", lambda _, given: limit.__setitem__(0, given[0])
    )
    assert file_limit(1024) == places
    assert limit[0] - places >= min(256, limit[0] // 2)


async def of_agents(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an agent that its connection counts for it; hold what asks to wait."""
    agent = dict(scope["headers"])[b"agent"].decode()
    if not count_connection(agent):
        await json_reply(503, {}, (b"retry-after", b"1")).send(send)
        return
    if scope["path"] == "/wait":
        await receive()
        await receive()
    await json_reply(200, {"agent": agent}).send(send)


async def test_an_agent_on_every_connection_shuts_no_other_out(serve: Serve) -> None:
    """Connections beyond its share end when others need them; then it gets 503."""
    listener = await serve(of_agents, limits=Limits(connections=16))
    at = b"127.0.0.1:%d" % listener.port
    held = []
    for _ in range(16):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write((AGENT % b"hog").replace(b"@", at))
        held.append((reader, writer))
    async with asyncio.timeout(PATIENT):
        await until(lambda: listener.places.of_agents.count("hog") >= 16)
        ask = (AGENT % b"other").replace(b"/wait", b"/").replace(CLOSE, b"")
        ended = asyncio.create_task(held[-1][0].read())
        said = await talk(listener, ask.replace(b"\r\n\r\n", b"\r\n" + CLOSE))
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b'"agent": "other"' in said or b'"agent":"other"' in said
        assert await ended == b""
        refused = await talk(listener, (AGENT % b"hog").replace(b"/wait", b"/"))
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in refused
    assert b"connection: close\r\n" in refused  # sent by us: `talk` read to the end
    assert listener.places.of_agents.count("hog") == 15
    for _, writer in held:
        writer.close()


async def test_urgent_requests_are_served_though_all_places_are_taken(
    serve: Serve,
) -> None:
    """A reserved connection carries them alone, and others are told 503."""
    slow, over = slow_app()

    def urgent(scope: Scope) -> bool:
        return bool(scope["path"] == "/revoke")

    listener = await serve(slow, limits=Limits(connections=4), urgent=urgent)
    blocked = GET.replace(b"GET / ", b"GET /slow ")[:-2] + CLOSE
    tasks = [asyncio.create_task(talk(listener, blocked)) for _ in range(4)]
    await until(lambda: len(listener.tasks) >= 4)
    for _ in range(2):
        assert b" 503 " in await talk(listener, GET[:-2] + CLOSE)
        revoke = GET.replace(b"GET / ", b"GET /revoke ")
        assert b" 200 " in await talk(listener, revoke[:-2] + CLOSE)
    over.set()
    await asyncio.gather(*tasks)
