"""Answers and bodies: framing, lengths, and the time that each part has."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from support.patience import PATIENT
from support.web_kit import CLOSE, GET, POST, QUICK, Serve, echo, read_all, talk

from agentvault_tui.web import App, Receive, Scope, Send
from agentvault_tui.web.places import Limits


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
    "app", [_answers(), _answers({"body": b"no head"})], ids=["nothing", "no head"]
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
async def test_a_connection_ends_whose_body_came_after_the_answer(serve: Serve) -> None:
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
            assert await reader.readuntil(b"\r\n\r\n")
            writer.write(b"123456789")
    writer.close()
