"""The console's client, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentvault_tui.errors import AgentVaultError, UnreachableError
from agentvault_tui.operator_api.async_client import AsyncOperatorClient
from agentvault_tui.operator_api.calls import STATUS


@contextlib.asynccontextmanager
async def answering(path: Path, reply: bytes) -> AsyncIterator[AsyncOperatorClient]:
    """Answer each request at *path* with *reply*, and close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    async with server, contextlib.aclosing(AsyncOperatorClient(path)) as client:
        yield client


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + body


async def test_a_broker_that_closes_the_connection_is_unreachable(short: Path) -> None:
    """If the connection ends without an answer, the error says so."""
    async with answering(short / "sock", b"") as client:
        with pytest.raises(UnreachableError, match="connection to the broker broke"):
            await client.call(STATUS)


async def test_no_socket_is_unreachable_with_the_command(short: Path) -> None:
    """If no process listens, the error names the command that starts a broker."""
    async with contextlib.aclosing(AsyncOperatorClient(short / "none")) as client:
        with pytest.raises(UnreachableError) as raised:
            await client.call(STATUS)
    assert "agentvault serve" in raised.value.diagnosis()


async def test_an_answer_of_another_version_ends_no_program(short: Path) -> None:
    """If the answer is not a status, the error asks for the versions."""
    async with answering(short / "sock", http("200 OK", b'{"a": 1}')) as client:
        with pytest.raises(AgentVaultError, match="not one of this version"):
            await client.call(STATUS)


async def test_the_stream_ends_with_an_error(short: Path) -> None:
    """The first list says that the broker accepted; the end of the stream raises."""
    reply = http("200 OK", b": beat\n\n", "text/event-stream")
    async with answering(short / "sock", reply) as client:
        stream = client.events(0, "console")
        assert await anext(stream) == []
        with pytest.raises(UnreachableError, match="closed the connection"):
            _ = [one async for one in stream]
