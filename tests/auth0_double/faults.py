"""Faults on purpose: errors, garbage, delays, rate limits, and late deletions."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.web import App, Receive, Scope, Send
from agentvault_tui.web.reply import Reply

_GARBAGE: Final = b"<html><body><h1>It works</h1></body></html>"
USUAL: Final = 1000
"""Requests a second that are answered where `Faults.rate` sets no other limit."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong; by default nothing does."""

    paths: tuple[str, ...] = ("/",)
    """Prefixes of the paths that `status`, `garbage` and `slow` hit."""
    every: int = 1
    """Of the requests to those paths, each so-many-th is hit."""
    status: int = 0
    """Answer with this status, 429 or 5xx, instead of doing anything."""
    garbage: bool = False
    """Answer 200 with a page that is no JSON, instead of doing anything."""
    slow: float = 0.0
    """Seconds to wait before each answer."""
    rate: int = 0
    """Management requests a second; beyond, 429. Auth0's free tenant: 2."""
    deletion_lag: float = 0.0
    """Seconds until a deletion answered with 202 or 204 is true."""
    log_delay: float = 0.0
    """Seconds until a log row can be read."""
    log_kept: float = 0.0
    """Seconds until a log row is dropped; 0: it never is. Auth0's smallest plan: a day.
    """


class FaultSwitch:
    """The faults in force, and the app that stands behind them."""

    def __init__(self, clock: Clock, faults: Faults | None = None) -> None:
        """Begin with *faults*, by default none."""
        self.now = faults or Faults()
        self._clock = clock
        self._count = 0
        self._second = self._used = 0

    def set(self, faults: Faults) -> None:
        """Put *faults* in force from the next request on."""
        self.now = faults
        self._count = 0

    def before(self, app: App) -> App:
        """Return *app* behind the switch."""

        async def switched(scope: Scope, receive: Receive, send: Send) -> None:
            limited = scope["path"].startswith(("/api/v2", "/me/v1"))
            headers = self._take() if limited else None

            async def told(message: Any) -> None:
                if headers and message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], *headers]
                await send(message)

            reply = await self._hit(scope["path"]) or self._limited(limited)
            if reply is None:
                await app(scope, receive, told)
            else:
                await reply.send(told)

        return switched

    async def _hit(self, path: str) -> Reply | None:
        faults = self.now
        if not (faults.status or faults.garbage or faults.slow):
            return None
        if not path.startswith(faults.paths):
            return None
        self._count += 1
        if self._count % faults.every:
            return None
        if faults.slow:
            await asyncio.sleep(faults.slow)
        if faults.status:
            return _page(faults.status)
        return _page(200) if faults.garbage else None

    def _take(self) -> list[tuple[bytes, bytes]]:
        """Take one request out of a bucket that is filled at the top of each second."""
        second = int(self._clock.now().timestamp())
        if second != self._second:
            self._second, self._used = second, 0
        self._used += 1
        limit = self.now.rate or USUAL
        # The reset is in epoch seconds, not a delta.
        told = {"limit": limit, "remaining": max(limit - self._used, 0),
                "reset": second + 1}  # fmt: skip
        return [(f"x-ratelimit-{k}".encode(), b"%d" % v) for k, v in told.items()]

    def _limited(self, limited: bool) -> Reply | None:
        if not limited or self._used <= (self.now.rate or USUAL):
            return None
        return problem(
            429,
            {"statusCode": 429, "error": "Too Many Requests",
             "message": "Global limit has been reached",
             "errorCode": "too_many_requests"},
            (b"retry-after", b"1"),
            (b"x-auth0-error-kind", b"global-rate-limit"),
        )  # fmt: skip


def problem(status: int, body: Any, *headers: tuple[bytes, bytes]) -> Reply:
    raw = json.dumps(body).encode()
    length = (b"content-length", b"%d" % len(raw))
    kind = (b"content-type", b"application/json")
    return Reply(status, (kind, length, *headers), raw)


def _page(status: int) -> Reply:
    length = (b"content-length", b"%d" % len(_GARBAGE))
    return Reply(status, ((b"content-type", b"text/html"), length), _GARBAGE)
