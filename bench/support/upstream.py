"""A small fast upstream: answers every request with a short body, or a long one.

    python bench/support/upstream.py

Prints its port, then serves until it is ended. ``/bytes/N`` answers N bytes.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

_SHORT = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"
)
_SHORT += b'{"ok":true}'
_PIECE = b"0123456789abcdef" * 16_384


class Service(asyncio.Protocol):
    """One connection; requests have a length, and are answered one by one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""
        self.room = asyncio.Event()
        self.room.set()
        self.tasks: set[asyncio.Task[None]] = set()

    def data_received(self, data: bytes) -> None:
        """Answer each request that is here whole."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            at = head.lower().find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            self.buffer = self.buffer[end + 4 + size :]
            target = head.split(b" ", 2)[1]
            if b"/bytes/" in target:
                task = asyncio.create_task(self.long(int(target.rsplit(b"/", 1)[1])))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            else:
                self.transport.write(_SHORT)

    async def long(self, size: int) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while size > 0 and not self.transport.is_closing():
            self.transport.write(_PIECE[:size])
            size -= len(_PIECE)
            await self.room.wait()

    def connection_lost(self, _: Exception | None) -> None:
        self.room.set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
