"""An app to serve, limits to wait for, and raw bytes to throw at a listener."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from support.patience import PATIENT

from agentvault_tui.web import Listener, Receive, Scope, Send, read_body
from agentvault_tui.web.places import Limits
from agentvault_tui.web.reply import json_reply

GET = b"GET / HTTP/1.1\r\nHost: @\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 5\r\n\r\n"
CLOSE = b"Connection: close\r\n\r\n"
Serve = Callable[..., Awaitable[Listener]]
QUICK = Limits(head_seconds=0.3, request_seconds=0.6, idle_seconds=0.4)
"""The same limits as in production, in tenths."""


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_body(receive)
    headers = [(n.decode(), v.decode("latin-1")) for n, v in scope["headers"]]
    said = {"method": scope["method"], "length": len(body), "headers": headers}
    await json_reply(200, said).send(send)


async def talk(listener: Listener, *pieces: bytes, host: bool = True) -> bytes:
    """Send *pieces*, then read until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        for piece in pieces:
            whole = piece
            if host:
                whole = piece.replace(b"@", b"127.0.0.1:%d" % listener.port)
            writer.write(whole)
        async with asyncio.timeout(PATIENT):
            return await read_all(reader)
    finally:
        writer.close()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read until the end, a reset counting as one."""
    pieces = []
    while True:
        try:
            piece = await reader.read(65_536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
