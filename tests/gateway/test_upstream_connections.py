"""One connection to a service, against servers that say anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gateway_stand import Received, Upstream
from support.patience import PATIENT, until

from agentvault_tui.gateway import upstream as upstream_module
from agentvault_tui.gateway.echo import Echo
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.gateway.upstream import IdleConnections, Outgoing
from agentvault_tui.gateway.upstream import Upstream as Reached
from agentvault_tui.model import AgentId
from agentvault_tui.policy import shipped_catalogue
from agentvault_tui.web import run
from agentvault_tui.web.service_connection import Bounds, UpstreamError
from agentvault_tui.web.sockets import abort

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Content-Length: 2\r\n\r\nok"
ONE, TWO = AgentId("agt_1"), AgentId("agt_2")


@pytest.fixture
async def server() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


def reach(port: int, idle: IdleConnections | None = None) -> Reached:
    text = (
        f'origin = "http://127.0.0.1:{port}"\nallow_http = true\n'
        'allow_private = true\n[credential]\nkind = "none"\n'
    )
    service = parse_service("api", text, shipped_catalogue(), Path())
    return Reached(service, Bounds(connect=5.0, idle=5.0), idle)


@pytest.fixture
async def reached(server: Upstream) -> AsyncIterator[Reached]:
    reached = reach(server.port)
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
    wanted.setdefault("agent_id", ONE)
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
    assert (answer.status, answer.headers[0]) == (200, (b"content-length", b"2"))
    assert b"link" not in dict(answer.headers)
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


async def test_no_two_agents_share_a_connection(
    server: Upstream, reached: Reached
) -> None:
    """Not one after the other either, and a request of no agent shares with none."""
    for agent_id in (ONE, TWO, ONE, TWO):
        assert await asked(reached, agent_id=agent_id) == b"ok"
    assert server.connections == 2
    for _ in range(2):
        await asked(reached, agent_id=None)
    assert server.connections == 4


async def test_a_body_ends_its_connection(server: Upstream, reached: Reached) -> None:
    """Unless the operator says that the service reads bodies to their end.

    The request says so: a server that answers before it reads, such as Python's own,
    would take the body for the next request.
    """
    for _ in range(2):
        await asked(reached, "POST", body=b"x")
    assert server.connections == 2
    for _ in range(2):
        await asked(reached, "POST", body=b"")
    for _ in range(2):
        await asked(reached, "POST", body=b"x", reuse=True)
    assert server.connections == 3
    await asked(reached, reuse=False)
    await asked(reached)
    assert server.connections == 4
    ends = [one.header("connection") == "close" for one in server.received]
    assert ends == [True, True, *[False] * 4, True, False]


REQUEST = b"DELETE /stolen HTTP/1.1\r\nHost: x\r\n\r\n"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
            st.none()
            | st.binary(max_size=60)
            | st.builds(
                lambda before, times: before + REQUEST * times,
                st.sampled_from([b"", b"\r\n", b"x\r\n\r\n"]),
                st.integers(1, 3),
            ),
            st.booleans(),
            st.sampled_from([ONE, TWO]),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_a_service_that_leaves_bodies_unread_sees_no_other_request(
    requests: list[tuple[str, bytes | None, bool, AgentId]],
) -> None:
    """Whatever a body says, no byte of it is a request before another real one.

    Python's ``http.server`` answers without reading a body and takes it for the next
    request, with whatever comes after it.
    """

    async def main() -> None:
        seen: list[list[str]] = []
        done = asyncio.Event()

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            mine: list[str] = []
            seen.append(mine)
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    mine.append(head.decode("latin-1").split("\r\n")[0])
                    writer.write(SHORT)
                    await writer.drain()
            except (asyncio.IncompleteReadError, OSError, RuntimeError):
                pass
            finally:
                writer.close()
                done.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reached = reach(server.sockets[0].getsockname()[1])
        sent: list[str] = []
        for number, (method, body, in_pieces, agent_id) in enumerate(requests):

            async def pieces(whole: bytes) -> AsyncIterator[bytes]:
                for start in range(len(whole)):
                    yield whole[start : start + 1]

            wanted = outgoing(method, body=body, agent_id=agent_id)
            wanted.target = f"/{number}"
            if body and in_pieces:
                wanted.body, wanted.length = pieces(body), len(body)
            answer = await reached.send(wanted)
            assert [chunk async for chunk in answer.chunks()] == [b"ok"]
            answer.close()
            sent.append(f"{method} /{number} HTTP/1.1")
        await reached.aclose()
        server.close()
        real = [line for mine in seen for line in mine if "/stolen" not in line]
        assert sorted(set(real) & set(sent)) == sorted(sent)
        for mine in seen:
            bodies = [bool(requests[sent.index(one)][1]) for one in mine if one in sent]
            # A request with a body is the last real one of its connection.
            assert not any(bodies[:-1])
            agents = {requests[sent.index(one)][3] for one in mine if one in sent}
            assert len(agents) == 1

    run(main())


@pytest.mark.parametrize("sent", [b"\r\n", b"x", SHORT], ids=str)
async def test_a_byte_on_an_idle_connection_closes_it(
    server: Upstream, reached: Reached, sent: bytes
) -> None:
    """RFC 9112 section 9.2: it belongs to no request, an empty line neither."""
    assert await asked(reached) == b"ok"
    (writer,) = server._writers
    (connection,) = reached._idle._owners
    writer.write(sent)
    async with asyncio.timeout(PATIENT):
        await connection.settle(PATIENT)
    assert connection.has_surplus
    assert await asked(reached) == b"ok"
    assert server.connections == 2


async def test_an_answer_that_came_before_its_request_is_not_used(
    server: Upstream, reached: Reached
) -> None:
    """Bytes that wait in the kernel when a connection is taken end it unread."""
    assert await asked(reached) == b"ok"
    (connection,) = reached._idle._owners
    assert connection.reusable
    connection.transport.pause_reading()  # as if the loop had not come to it yet
    (writer,) = server._writers
    writer.write(OK + b"Content-Length: 6\r\n\r\nforged")
    await writer.drain()
    await until(lambda: not connection.reusable)
    assert await asked(reached) == b"ok"
    assert server.connections == 2


KEPT_10 = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("method", "answer", "connections"),
    [
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 2),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", 2),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        ("HEAD", SHORT, 2),
        ("GET", SHORT.replace(b"1.1", b"1.0", 1), 2),
        ("GET", KEPT_10, 2),
        ("GET", OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", 2),
    ],
    ids=["304 length", "204 length", "204", "head", "1.0", "1.0 kept", "close"],
)
async def test_an_answer_ends_where_rfc_9112_says(
    server: Upstream, reached: Reached, method: str, answer: bytes, connections: int
) -> None:
    """Sections 6.3 and 9.3; where readers differ the connection is not used again."""
    says(server, answer, SHORT)
    has_body = answer.endswith(b"ok") and method == "GET"
    assert await asked(reached, method) == (b"ok" if has_body else b"")
    assert await asked(reached) == b"ok"
    assert server.connections == connections


@pytest.mark.parametrize(
    "head", [b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n"]
)
async def test_an_interim_answer_has_no_content(
    server: Upstream, reached: Reached, head: bytes
) -> None:
    """RFC 9110 section 15.2: what it brings is no part of the answer."""
    says(server, b"HTTP/1.1 103 Early Hints\r\n" + head + b"\r\nab" + SHORT)
    assert await refused(asked(reached)) == "upstream_reset"


async def test_an_answer_before_the_end_of_its_request_ends_the_connection(
    reached: Reached, server: Upstream
) -> None:
    """An early 4xx is passed on, and the rest of the body becomes no request."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await reader.read()
        writer.close()

    early = await asyncio.start_server(serve, "127.0.0.1", 0)
    reached = reach(early.sockets[0].getsockname()[1])
    answered = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await answered.wait()
        yield b"y"

    answer = await reached.send(outgoing("PUT", body=pieces(), length=2, reuse=True))
    assert (answer.status, [one async for one in answer.chunks()]) == (413, [b"no"])
    answered.set()
    answer.close()
    assert not reached._idle._owners
    early.close()
    await reached.aclose()


async def test_idle_connections_are_bounded_and_end_with_their_agent(
    server: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One agent's share, and all; a revocation closes an agent's at once."""
    monkeypatch.setattr(upstream_module, "_IDLE", 6)
    monkeypatch.setattr(upstream_module, "_IDLE_SHARE", 3)
    idle = IdleConnections()
    reached = reach(server.port, idle)

    async def at_once(agent_id: AgentId, times: int) -> None:
        calls = [reached.send(outgoing(agent_id=agent_id)) for _ in range(times)]
        answers = await asyncio.gather(*calls)
        for answer in answers:
            assert [chunk async for chunk in answer.chunks()] == [b"ok"]
        for answer in answers:
            answer.close()

    await at_once(ONE, 5)
    assert idle._counts == {ONE: 3}
    await at_once(TWO, 3)
    await at_once(AgentId("agt_3"), 2)
    assert idle._counts.total() == 6
    assert idle._counts[ONE] == 1
    idle.close_of(TWO)
    assert TWO not in idle._counts
    idle.close_of(None)
    assert not idle._owners
    assert not idle._by_owner
    await reached.aclose()
