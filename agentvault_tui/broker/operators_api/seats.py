"""``/api/presence``: who else is here, and what they look at."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import frame
from agentvault_tui.broker.operators_api.wire import (
    answer,
    body_of,
    operator_of,
    text_of,
)
from agentvault_tui.broker.presence import FACES, Presence
from agentvault_tui.errors import UsageError
from agentvault_tui.web.server import peer

_ID: Final = 64
"""Characters of an id, at most."""


def routes(broker: Broker, presence: Presence) -> list[Route]:
    """Return the routes about who is here."""

    async def index(_: Request) -> Response:
        return answer(presence.shape())

    async def look(request: Request) -> Response:
        body = await body_of(request, ("seat", "looking_at"))
        stepup_id = None
        if body.get("looking_at") is not None:
            stepup_id = text_of(body, "looking_at", cap=_ID)
            broker.registry.stepup(stepup_id)
        seat = text_of(body, "seat", cap=_ID)
        presence.look(operator_of(request), seat, stepup_id)
        return answer(presence.shape())

    return [
        Route("/api/presence", index, methods=["GET"]),
        Route("/api/presence", look, methods=["POST"]),
    ]


def face_of(request: Request) -> str:
    """Return what the stream is opened for.

    Raises:
        UsageError: it is none of those there are.
    """
    face = request.query_params.get("as", FACES[-1])
    if face not in FACES:
        raise UsageError("unknown 'as'", f"one of {', '.join(FACES)}")
    return face


async def seated(
    request: Request, presence: Presence, face: str, frames: AsyncGenerator[str]
) -> AsyncIterator[str]:
    """Yield *frames*, seated for as long as they are read."""
    pid = peer(request.scope).pid
    seat = presence.enter(operator_of(request), face, pid)
    try:
        yield frame("presence", {**presence.shape(), "you": seat.id if seat else None})
        async with aclosing(frames) as rest:
            async for text in rest:
                yield text
    finally:
        presence.leave(seat)
