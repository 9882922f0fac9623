"""Raw bytes of requests: each is read in one way, or refused before the app."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.web_kit import CLOSE, GET, POST, QUICK, Serve, echo, read_all, talk

from agentvault_tui.clock import SystemClock
from agentvault_tui.web import Receive, Scope, Send, Server, run
from agentvault_tui.web.places import Limits
from agentvault_tui.web.sockets import tcp_socket

CHUNKED = b"POST / HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked\r\n"


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


@pytest.mark.parametrize(("size", "count"), [(1, 1_999), (20, 3_000)])
async def test_a_body_may_come_in_many_chunks(
    serve: Serve, size: int, count: int
) -> None:
    """The bound on framing grows with the chunks."""
    close = b"Connection: close\r\n\r\n"
    chunks = b"%x;a\r\n%s\r\n" % (size, b"x" * size) * count + b"0\r\n\r\n"
    length = b'"length":%d' % (size * count)
    assert length in await talk(await serve(), CHUNKED + close + chunks)


async def test_a_body_in_tiny_chunks_is_not_read_for_long(serve: Serve) -> None:
    """A megabyte of them would hold the event loop for a second."""
    chunks = b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"
    answer = await talk(await serve(), CHUNKED + b"\r\n" + chunks)
    assert answer.startswith(b"HTTP/1.1 400 ") or not answer
    assert b" 200 " not in answer


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
    "line", [b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET /"], ids=["2.0", "0.9", "none"]
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


async def test_an_offer_of_another_protocol_makes_no_newer_version(
    serve: Serve,
) -> None:
    """HTTP/1.0 with Upgrade gets one answer, and the connection ends with it."""
    old = GET.replace(b"/1.1\r\n", b"/1.0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n")
    said = await talk(await serve(limits=Limits(idle_seconds=0.4)), old + GET)
    assert said.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in said


async def test_a_long_target_reaches_the_app(serve: Serve) -> None:
    """8,192 bytes and more of a target are the app's to refuse, with usual headers."""
    listener = await serve()
    for size in (8_192, 8_192 + len("/gw/name") + 1, 12_000):
        target = b"/" + b"a" * (size - 1)
        head = GET.replace(b" / ", b" " + target + b" ")
        said = await talk(listener, head.replace(b"\r\n\r\n", b"\r\n" + CLOSE))
        assert said.startswith(b"HTTP/1.1 200 ")
