"""A forward proxy on a socket: takes CONNECT (RFC 9110 section 9.3.6), and no more."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

ACCOUNT = "svc:proxy-secret"


class ForwardProxy:
    """Joins a client to the port that stands for the host it names."""

    def __init__(self, inside: Mapping[str, int]) -> None:
        """Know of ``host:port`` which local port it is; another gets 502."""
        self._inside = inside
        self.asked: list[str] = []
        """What clients wanted to be joined to, in order."""
        self.url = ""

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {
            name.lower(): text
            for name, _, text in (one.partition(": ") for one in lines)
        }
        self.asked.append(f"{method} {target}")
        wanted = f"Basic {base64.b64encode(ACCOUNT.encode()).decode()}"
        if headers.get("proxy-authorization") != wanted:
            await self._end(writer, "407 Proxy Authentication Required")
        elif method != "CONNECT" or target not in self._inside:
            await self._end(writer, "502 Bad Gateway")
        else:
            there = await asyncio.open_connection("127.0.0.1", self._inside[target])
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pour(reader, there[1]), _pour(there[0], writer))

    async def _end(self, writer: asyncio.StreamWriter, status: str) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def forward_proxy(inside: Mapping[str, int]) -> AsyncIterator[ForwardProxy]:
    """Run one; `ACCOUNT` may use it."""
    proxy = ForwardProxy(inside)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
