"""``/api/presence``: who else is here, and what they look at."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from msgspec.structs import replace
from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import frame
from agentvault_tui.broker.operators_api.wire import body_of, operator_of, route
from agentvault_tui.broker.presence import Presence
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.requests import LookRequest
from agentvault_tui.operator_api.shapes import PresenceInfo
from agentvault_tui.web.server import peer


def routes(broker: Broker, presence: Presence) -> list[Route]:
    """Return the routes about who is here."""

    async def index(_: Request) -> PresenceInfo:
        return presence.info()

    async def look(request: Request) -> PresenceInfo:
        body = await body_of(request, LookRequest)
        if body.looking_at is not None:
            broker.stepups.get(body.looking_at)
        presence.look(operator_of(request), body.seat, body.looking_at)
        return presence.info()

    return [route(calls.PRESENCE, index), route(calls.LOOK, look)]


async def seated(
    request: Request, presence: Presence, face: str, frames: AsyncGenerator[str]
) -> AsyncIterator[str]:
    """Yield *frames*, seated for as long as they are read."""
    pid = peer(request.scope).pid
    seat = presence.enter(operator_of(request), face, pid)
    try:
        here = replace(presence.info(), you=seat.id if seat else None)
        yield frame("presence", here)
        async with aclosing(frames) as rest:
            async for text in rest:
                yield text
    finally:
        presence.leave(seat)
