"""ASGI middleware: a session's idle time begins again with a decision that was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from agentvault_tui.broker.operators_api.wire import operator_of
from agentvault_tui.operator_api import calls
from agentvault_tui.web.reply import App, Message, Receive, Scope, Send

_DECIDES: Final = frozenset(
    {
        *(calls.DECIDE.path, calls.REVOKE.path, calls.RESTORE.path, calls.SCOPES.path),
        *(calls.APPLY_POLICY.path, calls.APPLY_FILES.path, calls.DECIDE_CHANGE.path),
    }
)
"""Approving, denying, revoking, restoring, granting and applying."""
_READS: Final = "decides_nothing"


def decides_nothing(request: Request) -> None:
    """Note that a request to such a path changes nothing, such as a plan."""
    setattr(request.state, _READS, True)


class IdleRenewal:
    """Renews a session after a request that decided something and was answered 2xx.

    One answered 202 has decided nothing yet: a change was asked for, or an approval was
    begun, which renews once it is given (`Authority.renew_once_approved`). Polling,
    reading, refused requests and those that change nothing renew nothing: programs
    send them too (NIST SP 800-63B-4 section 2.3.3).
    """

    def __init__(self, app: App, used: Callable[[str], None]) -> None:
        """Pass requests on to *app*; *used* renews the session of a seat."""
        self._app = app
        self._used = used

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        path: str = scope["path"]
        applies = path.startswith("/api/advice/") and path.endswith("/apply")
        if scope["method"] != "POST" or not (path in _DECIDES or applies):
            await self._app(scope, receive, send)
            return

        async def noticed(message: Message) -> None:
            begins = message["type"] == "http.response.start"
            decided = begins and message["status"] < 300 and message["status"] != 202
            if decided and _READS not in scope["state"]:
                self._used(operator_of(Request(scope)).id)
            await send(message)

        await self._app(scope, receive, noticed)
