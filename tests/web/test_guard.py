"""Whom a loopback service answers, over real HTTP."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from support.patience import PATIENT
from support.web_kit import Serve, echo, talk

from agentvault_tui.web import Listener, Receive, RequestGuard, Scope, Send
from agentvault_tui.web.guard import loopback_hosts
from agentvault_tui.web.reply import json_reply, problem


async def get(listener: Listener, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENT, trust_env=False) as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.get(listener.url, headers=named)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
async def test_loopback_names_with_our_port_are_served(serve: Serve, name: str) -> None:
    """All three names of loopback are this server."""
    listener = await serve()
    assert (await get(listener, host=f"{name}:{listener.port}")).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil:{}", "127.0.0.1:1", "x@127.0.0.1:{}"]
)
async def test_another_host_is_misdirected(serve: Serve, host: str) -> None:
    """A rebound name gives itself away in Host and gets 421, in JSON."""
    listener = await serve()
    answer = await get(listener, host=host.format(listener.port))
    assert answer.status_code == 421
    assert answer.json()["error"] == "misdirected_request"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_missing_host_is_misdirected(serve: Serve) -> None:
    """HTTP/1.0 without Host names no server."""
    said = await talk(await serve(), b"GET / HTTP/1.0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
    ],
)
async def test_pages_of_other_sites_are_refused(
    serve: Serve, headers: dict[str, str]
) -> None:
    """A cross-site request, told by Origin or Sec-Fetch-Site, gets 403."""
    assert (await get(await serve(), **headers)).status_code == 403


async def test_our_own_origin_is_served(serve: Serve) -> None:
    """A form on one of our own pages may be sent."""
    listener = await serve()
    answer = await get(listener, origin=listener.url, sec_fetch_site="same-origin")
    assert answer.status_code == 200


async def test_a_person_may_follow_a_link_to_a_page(serve: Serve) -> None:
    """A navigable app answers a cross-site GET navigation, and no POST."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        port = scope["server"][1]
        guarded = RequestGuard(echo, hosts=loopback_hosts(port), navigable=True)
        await guarded(scope, receive, send)

    listener = await serve(app)
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    async with httpx.AsyncClient(
        timeout=PATIENT, trust_env=False, headers=link
    ) as client:
        assert (await client.get(listener.url)).status_code == 200
        assert (await client.post(listener.url)).status_code == 403
        del client.headers["sec-fetch-mode"]
        assert (await client.get(listener.url)).status_code == 403


@pytest.mark.parametrize("size", [65_536, 65_537, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_has_a_cap(serve: Serve, size: int, chunked: bool) -> None:
    """65,536 bytes are read and one more gets 413, whatever the framing."""

    async def pieces():  # type: ignore[no-untyped-def] # noqa: ANN202
        for start in range(0, size, 8192):
            yield b"x" * min(8192, size - start)

    listener = await serve()
    async with httpx.AsyncClient(timeout=PATIENT, trust_env=False) as client:
        body = pieces() if chunked else b"x" * size
        answer = await client.post(listener.url, content=body)
        if size == 65_536:
            assert answer.json()["length"] == size
        else:
            assert answer.status_code == 413
        # The connection is as good as new.
        assert (await client.get(listener.url)).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_guard_can_have_another_cap(serve: Serve, chunked: bool) -> None:
    """A service that needs room gets it, and says how much there is."""

    async def pieces(size: int):  # type: ignore[no-untyped-def] # noqa: ANN202
        yield b"x" * size

    listener = await serve(RequestGuard(echo, hosts=None, body_cap=9))
    async with httpx.AsyncClient(timeout=PATIENT, trust_env=False) as client:
        for size, status in ((9, 200), (10, 413)):
            body = pieces(size) if chunked else b"x" * size
            answer = await client.post(listener.url, content=body)
            assert answer.status_code == status
        assert "9 bytes" in answer.text


async def test_an_endless_body_is_refused_early_and_cut(serve: Serve) -> None:
    """413 comes while the client still sends, and then the connection ends."""
    listener = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    host = b"Host: 127.0.0.1:%d\r\n" % listener.port
    writer.write(b"POST / HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    sent = 0
    answer = asyncio.create_task(reader.read(13))
    try:
        async with asyncio.timeout(10):
            while sent < 1 << 30:
                writer.write(chunk)
                await writer.drain()
                sent += len(chunk)
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert await answer == b"HTTP/1.1 413 "
    assert sent < 64 << 20


@pytest.mark.parametrize("rest", [b"", b"5\r\nhe", b"zz\r\n", b"5\r\nhelloX"])
async def test_a_chunked_body_that_breaks_off_reaches_no_app(
    serve: Serve, rest: bytes
) -> None:
    """A broken body is not a short one: nothing is done (RFC 9112 section 8)."""
    asked: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await echo(scope, receive, send)

    listener = await serve(RequestGuard(app, hosts=None))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"POST /broken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + rest)
    writer.write_eof()
    async with asyncio.timeout(PATIENT):
        said = await reader.read()
    writer.close()
    assert said == b"" or said.startswith(b"HTTP/1.1 400 ")
    assert (await get(listener)).status_code == 200
    assert asked == ["/"]


async def test_errors_take_the_shape_asked_for(serve: Serve) -> None:
    """Operators read problem documents (RFC 9457)."""
    listener = await serve(
        RequestGuard(echo, hosts=frozenset({b"nowhere"}), shape=problem), shape=problem
    )
    answer = await get(listener)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 421
    assert answer.json()["title"] == "Misdirected Request"


async def test_a_broken_app_answers_500_and_the_log_has_the_rest(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns nothing but that it is our fault."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    with caplog.at_level(logging.ERROR):
        answer = await get(await serve(RequestGuard(broken, hosts=None)))
    assert answer.status_code == 500
    assert answer.json()["error"] == "server_error"
    assert "secret" not in answer.text
    assert "secret" in caplog.text


async def test_what_an_app_says_of_caches_stands(serve: Serve) -> None:
    """Only an answer that says nothing gets no-store."""

    async def cached(scope: Scope, receive: Receive, send: Send) -> None:
        said = [(b"cache-control", b"max-age=5")] if scope["path"] == "/a" else []
        start = {"type": "http.response.start", "status": 204, "headers": said}
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    listener = await serve(RequestGuard(cached, hosts=None))
    async with httpx.AsyncClient(timeout=PATIENT, trust_env=False) as client:
        kept = await client.get(listener.url + "/a")
        dropped = await client.get(listener.url + "/b")
    assert kept.headers["cache-control"] == "max-age=5"
    assert dropped.headers["cache-control"] == "no-store"
    assert json_reply(200, {}).headers[2] == (b"cache-control", b"no-store")
