"""Deadlines, caps and a bounded stop, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys
import time
from asyncio.subprocess import PIPE
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.needs import as_root
from support.patience import PATIENT
from support.web_kit import QUICK, Serve, echo, read_all, talk

from agentvault_tui.clock import SystemClock
from agentvault_tui.web import App, Receive, Scope, Send, Server, run
from agentvault_tui.web.exchange import count_connection
from agentvault_tui.web.places import Limits, file_limit
from agentvault_tui.web.reply import json_reply
from agentvault_tui.web.sockets import tcp_socket, unix_socket

GET = b"GET / HTTP/1.1\r\nHost: @\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 5\r\n\r\n"
CLOSE = b"Connection: close\r\n\r\n"
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
CHUNKED = b"POST / HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked\r\n"


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


async def test_an_http_1_0_client_gets_a_stream_without_chunks(serve: Serve) -> None:
    """RFC 9112 section 6.1: to it the end of the connection ends an answer."""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"", b"two"):
            body = {"type": "http.response.body", "body": piece, "more_body": True}
            await send(body)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    listener = await serve(stream)
    for version, body in ((b"1.0", b"onetwo"), (b"1.1", b"3\r\none\r\n3\r\ntwo")):
        get = GET.replace(b"/1.1\r\n", b"/%b\r\nConnection: close\r\n" % version)
        head, _, said = (await talk(listener, get)).partition(b"\r\n\r\n")
        assert said.startswith(body)
        assert (b"chunked" in head) is (version == b"1.1")


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
        while len(listener.connections) > 1:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.02)
    for rogue in rogues:
        rogue.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: @\r\nHost: @\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: @\r\nAuthorization: a\r\nauthorization: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: @\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n",
        POST.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"),
        POST.replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n"),
        POST.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        POST.replace(b": 5", b": -1"),
        b"GET / HTTP/1.1\nHost: @\n\n",
        b"GET / HTTP/1.1\r\nHost : @\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: @\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: @\r\nA: b\x0bc\x00\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: @\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: @\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        CHUNKED + b"\r\nzz\r\n",
        CHUNKED + b"\r\n0x1\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"\r\n1 \r\nx\r\n0\r\n\r\n",
        CHUNKED + b"\r\n1\nx\n0\n\n",
        CHUNKED + b"\r\n11111111111111111\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"\r\n1\r\nxY0\r\n\r\n",
        CHUNKED + b"\r\n1;a=\rb\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        CHUNKED.replace(b"/1.1", b"/1.0") + b"\r\n1\r\nx\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: @\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: @\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: @\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: @\r\nA\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: @\r\n\r\n",
        b"GET / http/1.1\r\nHost: @\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: @\r\n\r\n",
        b"GET /#a HTTP/1.1\r\nHost: @\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: @\r\n\r\n",
        b"GET http:/// HTTP/1.1\r\nHost: @\r\n\r\n",
        POST.replace(b": 5", b": +5") + b"12345",
        POST.replace(b": 5", b": 5, 5") + b"12345",
        POST.replace(b": 5", b": 99999999999999999999") + b"12345",
    ],
)
async def test_ambiguous_requests_never_reach_the_app(
    serve: Serve, sent: bytes
) -> None:
    """Smuggling shapes and doubled headers get 400, and the connection ends."""
    said = await talk(await serve(), sent)
    assert said.startswith(b"HTTP/1.1 400 "), said
    assert b'"error":"invalid_request"' in said
    assert said.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "extra",
    [
        b"A: " + b"x" * 16_400,
        b"A: " + b"x" * 5_000_000,
        b"\r\n".join(b"H%d: 1" % i for i in range(64)),
        b"\r\n".join(b"A%d: %s" % (i, b"x" * 1000) for i in range(17)),
    ],
    ids=["17 kB", "5 MB", "65 headers", "17 kB in all"],
)
async def test_headers_have_caps(serve: Serve, extra: bytes) -> None:
    """More than 16 kB or 64 headers get 431 (or the line cut), never the app."""
    listener = await serve()
    said = await talk(listener, b"GET / HTTP/1.1\r\nHost: @\r\n" + extra + b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 431 ") or (len(extra) > 100_000 and not said)
    fits = b"\r\n".join(b"H%d: 1" % i for i in range(62))
    close = b"\r\nConnection: close\r\n\r\n"
    said = await talk(listener, b"GET / HTTP/1.1\r\nHost: @\r\n" + fits + close)
    assert said.startswith(b"HTTP/1.1 200 ")


async def test_a_long_url_counts_as_head(serve: Serve) -> None:
    """The request line is part of the 16 kB."""
    said = await talk(await serve(), GET.replace(b" / ", b" /" + b"a" * 16_400 + b" "))
    assert said.startswith(b"HTTP/1.1 431 ")


async def test_trailers_are_not_headers_and_have_a_cap(serve: Serve) -> None:
    """What follows a chunked body neither reaches the app nor fills memory."""
    listener = await serve()
    start = b"POST / HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked\r\n"
    body = b"Connection: close\r\n\r\n1\r\nx\r\n0\r\n"
    said = await talk(listener, start + body + b"Authorization: late\r\n\r\n")
    assert b'"length":1' in said
    assert b"late" not in said
    said = await talk(listener, start + body + b"T: " + b"x" * 3_000_000)
    assert b" 200 " not in said


@pytest.mark.parametrize(
    "sent",
    [
        CHUNKED + b"\r\n1;a=" + b"b" * 70_000 + b"\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"\r\n" + b"0" * 70_000 + b"1\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"\r\n1\r\nx\r\n0\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
        b"\r\n" * 35_000 + GET,
    ],
    ids=["extension", "size", "trailer", "empty lines"],
)
async def test_what_is_no_use_to_us_is_not_read_for_long(
    serve: Serve, sent: bytes
) -> None:
    """Chunk extensions, trailers and empty lines end the request after some 8 kB."""
    said = await talk(await serve(), sent)
    assert said.startswith(b"HTTP/1.1 400 ") or not said
    assert b" 200 " not in said


async def test_a_body_may_come_in_any_number_of_chunks(serve: Serve) -> None:
    """The bound on framing grows with the chunks: one byte each is read to the end."""
    close = b"Connection: close\r\n\r\n"
    chunks = b"1;a\r\nx\r\n" * 9_000 + b"0\r\n\r\n"
    assert b'"length":9000' in await talk(await serve(), CHUNKED + close + chunks)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 6000), min_size=1, max_size=40),
    st.sampled_from([b"", b";a", b";a=" + b"b" * 60]),
    st.lists(st.integers(1, 9000), max_size=20),
)
def test_how_a_body_is_cut_does_not_matter(
    sizes: list[int], extension: bytes, cuts: list[int]
) -> None:
    """In chunks and segments of any size it arrives whole, and the next one too."""
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (n, extension, b"x" * n) for n in sizes)
    sent = CHUNKED + b"\r\n" + chunks + b"0\r\n\r\n" + GET[:-2] + CLOSE

    async def main() -> bytes:
        async with Server(SystemClock()) as server:
            listener = await server.listen(echo, tcp_socket("127.0.0.1", 0))
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            rest = sent
            for cut in cuts:
                writer.write(rest[:cut])
                rest = rest[cut:]
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(rest)
            answer = await read_all(reader)
            writer.close()
            return answer

    answer = run(main())
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert b'"length":%d,' % sum(sizes) in answer


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET /"],
    ids=["2.0", "0.9", "none"],
)
async def test_other_versions_of_http_are_refused(serve: Serve, line: bytes) -> None:
    """They get 505 in HTTP/1.1, and the connection ends."""
    said = await talk(await serve(), line + b"\r\nHost: @\r\n\r\n" + GET)
    assert said.startswith(b"HTTP/1.1 505 ")
    assert said.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"xchunked"])
async def test_transfer_codings_but_chunked_are_refused(
    serve: Serve, coding: bytes
) -> None:
    """The app is not called with a body it could not have read."""
    sent = CHUNKED.replace(b"chunked", coding) + b"\r\n1\r\nx\r\n0\r\n\r\n"
    assert (await talk(await serve(), sent)).startswith(b"HTTP/1.1 501 ")


@pytest.mark.parametrize("upgrade", [b"", b"Connection: upgrade\r\nUpgrade: h2c\r\n"])
@pytest.mark.parametrize(
    "target",
    [b"http://evil.example/x", b"https://@/x", b"ftp://@/x", b"http://@.evil.example/"],
)
async def test_a_request_for_someone_else_is_misdirected(
    serve: Serve, target: bytes, upgrade: bytes
) -> None:
    """The target's authority counts, whatever Host says (RFC 9112 section 3.2.2)."""
    sent = b"GET %s HTTP/1.1\r\nHost: @\r\n%sConnection: close\r\n\r\n"
    said = await talk(await serve(), sent % (target, upgrade))
    assert said.startswith(b"HTTP/1.1 421 "), said


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://@/x?y", "/x"), (b"HTTP://@", "/"), (b"http://@?y", "/")],
)
async def test_an_absolute_target_takes_the_place_of_host(
    serve: Serve, target: bytes, path: str
) -> None:
    """The app is told of the target's authority alone, and of its path."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await echo(scope, receive, send)

    listener = await serve(app)
    sent = b"GET %s HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert (await talk(listener, sent % target)).startswith(b"HTTP/1.1 200 ")
    hosts = [value for name, value in seen[0]["headers"] if name == b"host"]
    assert hosts == [b"127.0.0.1:%d" % listener.port]
    assert seen[0]["path"] == path


async def test_a_target_with_user_information_is_refused(serve: Serve) -> None:
    """RFC 9110 section 4.2.4: it makes a link look as if it led elsewhere."""
    listener = await serve()
    host = b"127.0.0.1:%d" % listener.port
    sent = b"GET http://acme.test@%s/ HTTP/1.1\r\nHost: %s\r\n\r\n" % (host, host)
    assert (await talk(listener, sent, host=False)).startswith(b"HTTP/1.1 400 ")


async def test_a_target_that_is_not_encoded_is_refused_with_what_to_do(
    serve: Serve,
) -> None:
    """A client that sends `é` as it is reads what to encode (RFC 3986 section 2)."""
    sent = b"GET /a?x=\xc3\xa9 HTTP/1.1\r\nHost: @\r\n\r\n"
    said = await talk(await serve(), sent)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"percent-encode" in said


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    """Two requests in one segment get two answers, a broken third none before them."""
    listener = await serve()
    two = GET + POST + b"12345"
    said = await talk(listener, two + b"BROKEN\r\n\r\n")
    assert b" 400 " not in said.split(b"HTTP/1.1 200 ")[0]
    said = await talk(
        listener, two + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )
    assert said.count(b"HTTP/1.1 200 ") == 3
    assert said.index(b'"GET"') < said.index(b'"POST"')


@pytest.mark.parametrize("times", [9, 10, 3_000])
async def test_few_requests_of_a_connection_wait_for_their_answers(
    serve: Serve, times: int
) -> None:
    """One read holds thousands, each of which would be kept and take its turn."""
    asked = 0

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal asked
        asked += 1
        await echo(scope, receive, send)

    listener = await serve(counted)
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await talk(listener, GET * (times - 1) + GET[:-2] + CLOSE)
    assert said.count(b"HTTP/1.1 200 ") == (9 if times == 9 else 0)
    assert asked == (9 if times == 9 else 1)


@pytest.mark.slow
async def test_an_offer_to_upgrade_is_passed_over(serve: Serve) -> None:
    """Clients that offer HTTP/2 by default are served as HTTP/1.1."""
    offer = b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    listener = await serve(limits=QUICK)
    said = await talk(listener, POST.replace(b"\r\n\r\n", offer) + b"12345" + GET)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b'"length":5' in said


async def test_one_connection_too_many_is_told_so(serve: Serve) -> None:
    """With a request at every place a listener answers 503, and later serves again."""
    done = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await done.wait()
        await echo(scope, receive, send)

    listener = await serve(slow, limits=Limits(connections=2))
    two = [asyncio.create_task(talk(listener, GET[:-2] + CLOSE)) for _ in range(2)]
    async with asyncio.timeout(PATIENT):
        while len(listener.tasks) < 2:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)
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

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await asyncio.Event().wait()
        await echo(scope, receive, send)

    listener = await serve(slow, limits=Limits(connections=8))
    argv = (sys.executable, "-c", STRANGER, str(listener.port), "8")
    stranger = await asyncio.create_subprocess_exec(*argv, stdin=PIPE)
    assert stranger.stdin is not None
    try:
        async with asyncio.timeout(PATIENT):
            while len(listener.tasks) < 8:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.01)
            for _ in range(3):
                assert b" 200 " in await talk(listener, GET[:-2] + CLOSE)
    finally:
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


async def test_an_offer_of_another_protocol_makes_no_newer_version(
    serve: Serve,
) -> None:
    """HTTP/1.0 with Upgrade gets one answer, and the connection ends with it."""
    old = GET.replace(b"/1.1\r\n", b"/1.0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n")
    said = await talk(await serve(limits=Limits(idle_seconds=0.4)), old + GET)
    assert said.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in said


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
        while not listener.connections:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)
        await ended.wait()
        while listener.connections:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)
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


def _answers(*messages: dict[str, object]) -> App:
    """Return an app that sends just these, whatever is asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send({"type": "http.response.body", **message})

    return app


def _head(*headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


@pytest.mark.parametrize("value", [b"a\r\nX-Other: b", b"a\nb", b"a\0b", b"a\x7f"])
async def test_no_header_ends_before_it_is_over(serve: Serve, value: bytes) -> None:
    """A control character in a header of an answer stops it (RFC 9110 section 5.5)."""
    app = _answers(_head((b"location", value)), {"body": b"x"})
    assert await talk(await serve(app), GET) == b""


@pytest.mark.parametrize("body", [b"", b"1234", b"123456"])
async def test_no_answer_has_another_length_than_it_says(
    serve: Serve, body: bytes
) -> None:
    """It is cut off, so that the next answer is not read as a part of it."""
    app = _answers(_head((b"content-length", b"5")), {"body": body})
    assert await talk(await serve(app), GET) == b""


@pytest.mark.parametrize(
    "app",
    [_answers(), _answers({"body": b"no head"})],
    ids=["nothing", "no head"],
)
async def test_an_app_that_does_not_answer_is_answered_for(
    serve: Serve, app: App
) -> None:
    """The client gets 500, and the connection ends."""
    said = await talk(await serve(app), GET)
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close" in said.lower()


async def test_a_stream_says_where_each_piece_ends(serve: Serve) -> None:
    """An answer of unknown length comes in chunks (RFC 9112 section 7.1)."""
    pieces = [{"body": b"one", "more_body": True}, {"body": b"", "more_body": True}]
    app = _answers(_head(), *pieces, {"body": b"two"})
    said = await talk(await serve(app), GET[:-2] + CLOSE)
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_a_client_that_asks_first_is_told_to_go_on(serve: Serve) -> None:
    """The body of a request with Expect is asked for when somebody reads it."""
    listener = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    host = b"127.0.0.1:%d" % listener.port
    writer.write(POST[:-2].replace(b"@", host) + b"Expect: 100-continue\r\n" + CLOSE)
    async with asyncio.timeout(PATIENT):
        told = await reader.readuntil(b"\r\n\r\n")
        assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"12345")
        assert b'"length":5' in await read_all(reader)
    writer.close()


@pytest.mark.slow
async def test_a_connection_ends_whose_body_came_after_the_answer(
    serve: Serve,
) -> None:
    """One that was answered before its request was whole is not kept for ever."""
    app = _answers(_head((b"content-length", b"2")), {"body": b"no"})
    listener = await serve(app, limits=QUICK)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(POST)
    async with asyncio.timeout(PATIENT):
        await reader.readuntil(b"no")
        writer.write(b"12345")
        assert await read_all(reader) == b""
    writer.close()


async def test_an_answer_leaves_head_and_body_together(serve: Serve) -> None:
    """The first read holds the whole answer, so that a client wakes up once."""
    listener = await serve(limits=QUICK)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        for _ in range(20):
            writer.write(GET.replace(b"@", b"127.0.0.1:%d" % listener.port))
            head, _, body = (await reader.read(65_536)).partition(b"\r\n\r\n")
            assert body.startswith(b'{"method"')
            assert b"content-length: %d" % len(body) in head.lower()
    finally:
        writer.close()


@pytest.mark.slow
async def test_a_head_without_a_body_to_come_leaves_at_once(serve: Serve) -> None:
    """HEAD names the length of a body that never comes, and is answered."""
    listener = await serve(limits=QUICK)
    answer = await talk(listener, GET.replace(b"GET", b"HEAD"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


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


NONE_LEFT = (b"content-length", b"0")
STREAMING = Limits(
    head_seconds=0.3, request_seconds=0.4, streamed=(b"/s/",), progress_bytes=1_000
)


async def drip(serve: Serve, path: bytes, size: int, pause: float) -> bytes:
    """Send a body of 4,000 bytes, *size* at a time, and return the answer."""
    listener = await serve(echo, limits=STREAMING)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n"
        b"Connection: close\r\n\r\n" % path
    )
    answer = b""
    # uvloop says RuntimeError of a connection that the peer has closed.
    with contextlib.suppress(OSError, RuntimeError):
        for _ in range(4_000 // size):
            writer.write(b"x" * size)
            await writer.drain()
            await asyncio.sleep(pause)
        answer = await read_all(reader)
    writer.close()
    return answer


async def test_a_streamed_body_has_time_for_each_part(serve: Serve) -> None:
    """It may take longer than other requests as long as it goes on."""
    assert (await drip(serve, b"/s/x", 500, 0.1)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("path", "size"), [(b"/s/x", 100), (b"/other", 500)])
async def test_a_body_that_drips_is_closed(
    serve: Serve, path: bytes, size: int
) -> None:
    """A streamed one that makes no progress, and any other over its deadline."""
    assert await drip(serve, path, size, 0.1) == b""


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
        while listener.places.of_agents.count("hog") < 16:  # noqa: ASYNC110
            await asyncio.sleep(0)
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


async def test_a_long_target_reaches_the_app(serve: Serve) -> None:
    """8,192 bytes and more of a target are the app's to refuse, with usual headers."""
    listener = await serve()
    for size in (8_192, 8_192 + len("/gw/name") + 1, 12_000):
        target = b"/" + b"a" * (size - 1)
        head = GET.replace(b" / ", b" " + target + b" ")
        said = await talk(listener, head.replace(b"\r\n\r\n", b"\r\n" + CLOSE))
        assert said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", [b"/s/x", b"/other"], ids=["streamed", "other"])
@pytest.mark.parametrize("flood", [False, True], ids=["drips", "floods"])
async def test_an_upload_that_was_refused_is_closed_soon(
    serve: Serve, path: bytes, flood: bool
) -> None:
    """However the rest comes; the answer that was given before it arrives."""
    limits = replace(
        STREAMING,
        request_seconds=0.4 if flood else PATIENT,
        unread_seconds=PATIENT if flood else 0.3,
        unread_bytes=65_536,
        progress_bytes=1,
    )
    listener = await serve(_answers(_head(NONE_LEFT), {"body": b""}), limits=limits)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" % path
    )
    async with asyncio.timeout(PATIENT / 2):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        ended, sent = asyncio.create_task(read_all(reader)), 0
        with contextlib.suppress(OSError, RuntimeError):
            while not ended.done():
                writer.write(b"x" * (4_096 if flood else 1))
                sent += 4_096 if flood else 1
                await writer.drain()
                await asyncio.sleep(0 if flood else 0.01)
        assert await ended == b""
    writer.close()
    assert sent < (9_000_000 if flood else 1_000)


async def test_a_short_rest_of_a_body_leaves_the_connection(serve: Serve) -> None:
    """A refusal costs no connection where the client had almost sent it all."""
    listener = await serve(_answers(_head(NONE_LEFT), {"body": b""}), limits=STREAMING)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    async with asyncio.timeout(PATIENT):
        for _ in range(2):
            writer.write(b"POST /s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"123456789")
    writer.close()


async def test_urgent_requests_are_served_though_all_places_are_taken(
    serve: Serve,
) -> None:
    """A reserved connection carries them alone, and others are told 503."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await asyncio.Event().wait()
        await echo(scope, receive, send)

    def urgent(scope: Scope) -> bool:
        return bool(scope["path"] == "/revoke")

    listener = await serve(slow, limits=Limits(connections=4), urgent=urgent)
    blocked = GET.replace(b"GET / ", b"GET /slow ")
    tasks = [asyncio.create_task(talk(listener, blocked)) for _ in range(4)]
    async with asyncio.timeout(PATIENT):
        while len(listener.tasks) < 4:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)
    for _ in range(2):
        assert b" 503 " in await talk(listener, GET[:-2] + CLOSE)
        revoke = GET.replace(b"GET / ", b"GET /revoke ")
        assert b" 200 " in await talk(listener, revoke[:-2] + CLOSE)
    for task in tasks:
        task.cancel()
