"""Carry bytes that are not read between an agent and a host that is no service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from agentvault_tui.gateway.calls import Call, Caller
from agentvault_tui.gateway.connect import asked_detail
from agentvault_tui.model import Action, EventType
from agentvault_tui.web.sockets import abort

IDLE_SECONDS: Final = 300.0
"""How long a tunnel may carry nothing."""
_TUNNEL_BYTES: Final = 16 * 2**30


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
        result=EventType.GATEWAY_TUNNEL,
    )


class _End(asyncio.Protocol):
    """One end of a tunnel that is not read: what comes goes to the other end."""

    transport: asyncio.Transport
    other: _End

    def __init__(self, call: Call, count: str, progress: Callable[[], None]) -> None:
        self._call = call
        self._count = count
        self._progress = progress
        self.ended = False
        """Whether it sends nothing any more."""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait until the other end is there too."""
        self.transport = transport
        transport.pause_reading()
        self._call.on_cut.append(self.abort)

    def abort(self) -> None:
        """Carry nothing any more; what the kernel holds is dropped."""
        abort(self.transport)

    def data_received(self, data: bytes) -> None:
        """Pass *data* on."""
        call = self._call
        if call.cut is not None:
            return
        setattr(call, self._count, getattr(call, self._count) + len(data))
        if call.bytes_in + call.bytes_out > _TUNNEL_BYTES:
            self.abort()
            return
        self.other.transport.write(data)
        self._progress()

    def eof_received(self) -> bool:
        """Tell the other end, which may still send; once both have, it is over."""
        self.ended = True
        if self.other.ended:
            self.transport.close()
            self.other.transport.close()
        elif not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """Let the other end wait."""
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Take more from the other end."""
        self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Let the other end send what it still has, and end."""
        if not self.lost.done():
            self.lost.set_result(error)
        self.other.transport.close()


async def carry(call: Call, near: socket.socket, far: socket.socket) -> None:
    """Carry bytes both ways until both ends are done; takes both sockets.

    Raises:
        OSError: an end broke off.
        TimeoutError: nothing came for too long.
    """
    loop = asyncio.get_running_loop()
    call.state = "streaming"
    async with asyncio.timeout(IDLE_SECONDS) as deadline:
        told = loop.time()

        def progress() -> None:
            nonlocal told
            if loop.time() - told > 1.0:
                told = loop.time()
                deadline.reschedule(told + IDLE_SECONDS)

        ends = _End(call, "bytes_out", progress), _End(call, "bytes_in", progress)
        ends[0].other, ends[1].other = ends[1], ends[0]
        opened: list[_End] = []
        try:
            for end, one in zip(ends, (near, far), strict=True):
                held = socket.socket(fileno=one.detach())
                await loop.connect_accepted_socket(lambda end=end: end, held)  # type: ignore[misc]
                opened.append(end)
            if call.cut is not None:
                raise ConnectionAbortedError
            for end in ends:
                end.transport.resume_reading()
            for broken in await asyncio.gather(ends[0].lost, ends[1].lost):
                if broken is not None:
                    raise broken
        finally:
            for end in opened:
                end.abort()
