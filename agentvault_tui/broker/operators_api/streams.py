"""Bound the event streams of a session and of a role, so that none shuts others out."""

from __future__ import annotations

import sys
from typing import Final

from starlette.responses import Response

from agentvault_tui.broker.authority import is_remote
from agentvault_tui.broker.operators_api.wire import problem
from agentvault_tui.model.role import Role
from agentvault_tui.operator_api import calls
from agentvault_tui.web.reply import Receive, Scope, Send
from agentvault_tui.web.shares import CappedPlaces

OF_SESSION: Final = 8
"""Event streams that one session may have open."""
OF_VIEWERS: Final = 32
"""Event streams that all viewers may have open at a listener."""
_URGENT: Final = frozenset(
    call.path
    for call in (
        *(calls.REVOKE, calls.REVOKE_TOKEN, calls.SCOPES, calls.DELEGATES),
        *(calls.DECIDE, calls.DECIDE_CHANGE),
    )
)
"""Calls that may revoke or deny. Some of them also grant: their body says so, and
`refuse_grant` then refuses them the places that are for ending rights."""


def is_urgent(scope: Scope) -> bool:
    """Check whether a request may revoke or deny; these get separate connections."""
    path = scope["path"]
    cuts = path.startswith("/api/calls/") and path.endswith("/cut")
    return scope["method"] == "POST" and (path in _URGENT or cuts)


class EventStreams:
    """Counts open streams by session, and those of viewers by listener."""

    def __init__(self) -> None:
        self._places = CappedPlaces(sys.maxsize)

    def bounded(self, stream: Response, seat: str, role: Role | None) -> Response:
        """Return *stream* as an answer that is 503 while there are too many.

        Args:
            stream: the answer.
            seat: the session's seat.
            role: of who is signed in there.
        """
        caps = {seat: OF_SESSION}
        if role is Role.VIEWER:
            caps[f"{role} {'elsewhere' if is_remote(seat) else 'here'}"] = OF_VIEWERS
        return _BoundedStream(stream, self._places, caps)


class _BoundedStream(Response):
    def __init__(
        self, stream: Response, places: CappedPlaces, caps: dict[str, int]
    ) -> None:
        self._stream, self._places, self._caps = stream, places, caps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream while there is a place for it."""
        full = self._places.take(self._caps)
        if full is not None:
            most = self._caps[full]
            of = "viewers have" if most == OF_VIEWERS else "this session has"
            text = f"{of} {most} event streams: close one first"
            await problem(503, text, error="too_many_streams")(scope, receive, send)
            return
        try:
            await self._stream(scope, receive, send)
        finally:
            self._places.release(self._caps)
