"""One connection to a service, against servers that say anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support.gateway_stand import Received, Upstream

from agentvault_tui.gateway import Service
from agentvault_tui.gateway.echo import Echo
from agentvault_tui.gateway.upstream import Outgoing
from agentvault_tui.gateway.upstream import Upstream as Reached
from agentvault_tui.web.service_connection import Bounds, UpstreamError
from agentvault_tui.web.sockets import abort

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Content-Length: 2\r\n\r\nok"
Parse = Callable[[str], Service]


@pytest.fixture
async def server() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
async def reached(server: Upstream, parse: Parse) -> AsyncIterator[Reached]:
    service = parse(
        f'origin = "http://127.0.0.1:{server.port}"\nallow_http = true\n'
        'allow_private = true\n[credential]\nkind = "none"\n'
    )
    reached = Reached(service, Bounds(connect=5.0, idle=5.0))
    yield reached
    await reached.aclose()


def says(server: Upstream, *answers: bytes, then: str = "") -> None:
    """Have each request answered by the next of these, the last one again and again."""
    left = list(answers)

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        if then == "close":
            writer.close()
        elif then == "reset":
            await writer.drain()
            abort(writer.transport)

    server.answer = answer


def outgoing(method: str = "GET", **more: object) -> Outgoing:
    wanted = {"body": None, "length": None, "attach": lambda _: None, **more}
    return Outgoing(method=method, target="/x", headers=[], echo=Echo(), **wanted)  # type: ignore[arg-type]


async def asked(reached: Reached, method: str = "GET", **more: object) -> bytes:
    """Send a request and return the body of its answer."""
    answer = await reached.send(outgoing(method, **more))
    try:
        return b"".join([chunk async for chunk in answer.chunks()])
    finally:
        answer.close()


async def refused(waits: Awaitable[object]) -> str:
    """Return the code of what goes wrong."""
    with pytest.raises(UpstreamError) as raised:
        await waits
    return raised.value.code


async def test_requests_share_a_connection(server: Upstream, reached: Reached) -> None:
    """One after another; two at once have one each."""
    assert [await asked(reached) for _ in range(3)] == [b"ok"] * 3
    assert server.connections == 1
    assert await asyncio.gather(asked(reached), asked(reached)) == [b"ok"] * 2
    assert server.connections == 2


async def test_an_answer_that_nobody_read_is_no_part_of_the_next(
    server: Upstream, reached: Reached
) -> None:
    """A body that was left unread ends with its connection."""
    says(server, OK + b"Content-Length: 6\r\n\r\nunread", SHORT)
    answer = await reached.send(outgoing())
    assert answer.has_arrived
    answer.close()
    assert await asked(reached) == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize(
    "extra", [SHORT, b"rubbish", b"HTTP/1.1 200 OK\r\nX-Half: "], ids=str
)
async def test_what_follows_an_answer_answers_nothing(
    server: Upstream, reached: Reached, extra: bytes
) -> None:
    """RFC 9112 section 9.2: a second answer to one request is not the next one's."""
    says(server, OK + b"Content-Length: 5\r\n\r\nfirst" + extra, SHORT)
    assert await asked(reached) == b"first"
    assert await asked(reached) == b"ok"
    assert server.connections == 2


async def test_an_answer_to_head_has_no_body(
    server: Upstream, reached: Reached
) -> None:
    """Its length is GET's (RFC 9110 section 9.3.2); a body that comes is dropped."""
    says(server, SHORT, OK + b"Content-Length: 3\r\n\r\nget")
    assert await asked(reached, "HEAD") == b""
    assert await asked(reached) == b"get"


async def test_interim_answers_are_passed_over(
    server: Upstream, reached: Reached
) -> None:
    """100 and 103 come before the answer (RFC 9110 section 15.2), with no bodies."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    says(server, b"HTTP/1.1 100 Continue\r\n\r\n" + early + SHORT)
    answer = await reached.send(outgoing())
    assert (answer.status, answer.headers) == (200, [(b"content-length", b"2")])
    assert [chunk async for chunk in answer.chunks()] == [b"ok"]
    answer.close()


async def test_a_body_may_end_with_its_connection(
    server: Upstream, reached: Reached
) -> None:
    """Without a length the end is the body's (RFC 9112 section 6.3); a reset is not."""
    says(server, OK + b"\r\nall of it", then="close")
    assert await asked(reached) == b"all of it"
    says(server, OK + b"\r\nhalf", then="reset")
    assert await refused(asked(reached)) == "upstream_reset"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Content-Length: 2, 2\r\n",
        b"Content-Length: +2\r\n",
        b"Content-Length : 2\r\n",
        b"X-Folded: a\r\n b\r\nContent-Length: 2\r\n",
        b"X-Bare: a\nContent-Length: 2\r\n",
        b"X: y\r\n" * 200,
    ],
    ids=str,
)
async def test_an_answer_whose_length_is_told_in_two_ways_is_none(
    server: Upstream, reached: Reached, head: bytes
) -> None:
    """RFC 9112 section 6.3: another reader would find its end elsewhere."""
    says(server, OK + head + b"\r\n2\r\nok\r\n0\r\n\r\n", then="close")
    assert await refused(asked(reached)) == "upstream_reset"


@pytest.mark.parametrize(
    "endless",
    [
        b"0\r\n" + b"X: " + b"y" * 200_000,
        b"1;" + b"e" * 200_000,
        b"0\r\nX: y\r\n" * 9_000,
    ],
    ids=["trailer", "chunk extension", "trailers"],
)
async def test_the_framing_of_a_body_is_bounded(
    server: Upstream, reached: Reached, endless: bytes
) -> None:
    """What is neither head nor body takes no memory without end."""
    says(server, OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + endless)
    assert await refused(asked(reached)) == "upstream_reset"


@pytest.mark.parametrize("size", [3, 5], ids=["short", "long"])
async def test_a_request_whose_body_has_another_length_is_broken_off(
    server: Upstream, reached: Reached, size: int
) -> None:
    """The service never sees a whole request, or more bytes than the head says."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    code = await refused(asked(reached, "PUT", body=pieces(), length=4))
    assert code == "upstream_reset"
    assert await asked(reached) == b"ok"
    assert all(len(one.body) <= 4 for one in server.received)


async def test_a_header_that_would_be_two_is_not_sent(
    server: Upstream, reached: Reached
) -> None:
    """A line end in a header stops the request before its first byte."""

    def attach(one: Outgoing) -> None:
        one.headers.append(("Authorization", "Bearer a\r\nX-Admin: 1"))

    assert await refused(asked(reached, attach=attach)) == "upstream_reset"
    assert server.received == []


async def test_what_stops_a_request_stops_it_before_its_first_byte(
    server: Upstream, reached: Reached
) -> None:
    """The last check is made when the connection stands, and nothing was sent."""

    def attach(_: Outgoing) -> None:
        raise UpstreamError(403, "cut", "cut")

    assert await refused(asked(reached, attach=attach)) == "cut"
    assert await asked(reached) == b"ok"
    assert len(server.received) == 1


async def test_an_abort_after_the_answer_leaves_the_next_request_alone(
    server: Upstream, reached: Reached
) -> None:
    """A call that was cut late does not end the connection another call has now."""
    first = outgoing()
    answer = await reached.send(first)
    assert [chunk async for chunk in answer.chunks()] == [b"ok"]
    answer.close()
    second = await reached.send(outgoing())
    first.abort()
    assert [chunk async for chunk in second.chunks()] == [b"ok"]
    second.close()
    assert server.connections == 1
