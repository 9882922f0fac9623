"""ASGI middleware: bound the requests of strangers that wait for something."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Final

from agentvault_tui.web.reply import App, Message, Receive, Scope, Send, Shape
from agentvault_tui.web.shares import FairPlaces, classes_of
from agentvault_tui.web.sockets import tcp_user

PART: Final = 4
"""Strangers' waiting requests have one of so many parts of a listener's places."""


class StrangersGuard:
    """Counts each such request before anything is done for it.

    When all places are taken, the address, /64 or /48 with most of them gives up the
    latest, which is answered 503.
    """

    def __init__(
        self, app: App, connections: int, waits: Callable[[Scope], bool], shape: Shape
    ) -> None:
        """Guard *app*.

        Args:
            app: the guarded app.
            connections: places of the listener.
            waits: whether a request may wait, and anybody may send it.
            shape: how a refusal looks.
        """
        self._app = app
        self._waits = waits
        self._shape = shape
        self.places = FairPlaces(max(connections // PART, 2))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while it has a place."""
        if not self._waits(scope):
            await self._app(scope, receive, send)
            return
        given, started = asyncio.Event(), False

        async def noticed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        place = self.places.take(peer_classes(scope), given.set)
        if place is None:
            await self._refuse(send)
            return
        work = asyncio.ensure_future(self._app(scope, receive, noticed))
        ended = asyncio.ensure_future(given.wait())
        try:
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                return
            work.cancel()
            await asyncio.wait({work})
            if not started:
                await self._refuse(send)
        finally:
            self.places.leave(place)
            work.cancel()
            ended.cancel()

    async def _refuse(self, send: Send) -> None:
        text = "too many requests of strangers are waiting: try again in a moment"
        reply = self._shape(503, text)
        retry = (b"retry-after", b"1")
        await reply._replace(headers=(*reply.headers, retry)).send(send)


def peer_classes(scope: Scope) -> tuple[str, ...]:
    """Return the classes of who sent a request: a local user, or an address."""
    client, server = scope.get("client"), scope.get("server")
    if client is None or server is None:
        return ("socket",)
    if ipaddress.ip_address(client[0].partition("%")[0]).is_loopback:
        return (f"uid {tcp_user(client, server)}",)
    return classes_of(client[0])
