"""A small fast upstream: answers every request with a short body, or a long one.

    python bench/support/upstream.py [CERTIFICATE KEY]

Prints its port, then serves until it is ended. ``/bytes/N`` answers N bytes of text,
``/noise/N`` N random ones, and ``/mcp`` calls of the MCP tool ``echo``.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import sys

import uvloop

_SHORT = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"
)
_SHORT += b'{"ok":true}'
_PIECES = {b"bytes": b"0123456789abcdef" * 16_384, b"noise": os.urandom(262_144)}
_ID = re.compile(rb'"id":\s*("[^"]*"|[0-9]+)')
_TOOLS = b'{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}'
_CALLED = b'{"content":[],"resultType":"complete"}'


class Service(asyncio.Protocol):
    """One connection; requests have a length, and are answered one by one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = bytearray()
        self.room = asyncio.Event()
        self.room.set()
        self.tasks: set[asyncio.Task[None]] = set()

    def data_received(self, data: bytes) -> None:
        """Answer each request that is here whole."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end])
            at = head.lower().find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            body = bytes(self.buffer[end + 4 : end + 4 + size])
            del self.buffer[: end + 4 + size]
            target = head.split(b" ", 2)[1]
            kind, _, length = target.rpartition(b"/")
            if piece := _PIECES.get(kind[-5:]):
                task = asyncio.create_task(self.long(int(length), piece))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            elif target == b"/mcp":
                self.transport.write(_mcp_answer(body))
            else:
                self.transport.write(_SHORT)

    async def long(self, size: int, piece: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while size > 0 and not self.transport.is_closing():
            self.transport.write(piece[:size])
            size -= len(piece)
            await self.room.wait()

    def connection_lost(self, _: Exception | None) -> None:
        self.room.set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()


def _mcp_answer(body: bytes) -> bytes:
    found = _ID.search(body)
    result = _TOOLS if b'"tools/list"' in body else _CALLED
    id_ = found[1] if found else b"null"
    text = b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (id_, result)
    size = b"Content-Length: %d" % len(text)
    kind = b"Content-Type: application/json"
    return b"\r\n".join((b"HTTP/1.1 200 OK", kind, size, b"", text))


def _tls() -> ssl.SSLContext | None:
    if len(sys.argv) < 3:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:3])
    return context


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Service, "127.0.0.1", 0, ssl=_tls())
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
