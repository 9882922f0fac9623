"""Carry bytes that are not read between an agent and a host that is no service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.gateway.connect import asked_detail
from agentvault_tui.model import Action, EventType
from agentvault_tui.web.sockets import abort

IDLE_SECONDS: Final = 300.0
"""How long a tunnel may carry nothing."""
_TUNNEL_BYTES: Final = 16 * 2**30
_PIECE: Final = 65_536


def tunnel_call(caller: Caller, host: str, port: int) -> Call:
    """Return the call that a tunnel is."""
    where = f"{host}:{port}"

    async def unread() -> bytes:
        return b""

    return Call(
        caller=caller,
        service=host,
        route="pass_through",
        method="CONNECT",
        path=where,
        action=Action((), "", where),
        detail={**asked_detail(where), "host": host, "port": port},
        read=unread,
        describe=lambda _: "",
        gone=asyncio.get_running_loop().create_future(),
        in_force=lambda: True,
        result=EventType.GATEWAY_TUNNEL,
        sent=None,
    )


async def carry(call: Call, near: socket.socket, far: socket.socket) -> None:
    """Carry bytes both ways until both ends are done; takes both sockets.

    Raises:
        OSError: an end broke off.
        TimeoutError: nothing came for too long.
    """
    loop = asyncio.get_running_loop()
    call.state = "streaming"
    writers: list[asyncio.StreamWriter] = []

    async def opened(
        one: socket.socket,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        held = socket.socket(fileno=one.detach())
        reader, writer = await asyncio.open_connection(sock=held)
        writers.append(writer)
        call.on_cut.append(lambda: abort(writer.transport))
        return reader, writer

    async with asyncio.timeout(IDLE_SECONDS) as deadline:
        heard = loop.time()

        def progress() -> None:
            nonlocal heard
            if loop.time() - heard > 1.0:
                heard = loop.time()
                deadline.reschedule(heard + IDLE_SECONDS)

        try:
            asks, answers = await opened(near)
            replies, requests = await opened(far)
            if call.cut is not None:
                raise ConnectionAbortedError
            ended = await asyncio.gather(
                _pass_on(call, "bytes_out", asks, requests, progress),
                _pass_on(call, "bytes_in", replies, answers, progress),
                return_exceptions=True,
            )
            for writer in writers:
                writer.close()
                await writer.wait_closed()
            for broken in ended:
                if broken is not None and call.cut is None:
                    raise broken
        finally:
            for writer in writers:
                abort(writer.transport)


async def _pass_on(
    call: Call,
    count: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    progress: Callable[[], None],
) -> None:
    """Send one end's bytes to the other, until it has sent everything."""
    try:
        while piece := await reader.read(_PIECE):
            setattr(call, count, getattr(call, count) + len(piece))
            _check(call, writer)
            writer.write(piece)
            await writer.drain()
            progress()
        if not writer.is_closing():
            writer.write_eof()
    except BaseException:
        writer.close()  # what it has not read yet still goes there
        raise


def _check(call: Call, writer: asyncio.StreamWriter) -> None:
    over = call.bytes_in + call.bytes_out > _TUNNEL_BYTES
    if over or writer.is_closing():  # as a cut call's is
        raise ConnectionAbortedError
