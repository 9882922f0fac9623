"""Faults on purpose, for tests and demos: only who started the tenant can set them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from agentvault_tui.errors import SettingsError
from agentvault_tui.web import App, Receive, Reply, Scope, Send

_GARBAGE: Final = b"<html><body><h1>It works</h1></body></html>"
_LONGEST: Final = 600.0


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

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Self:
        """Read faults from JSON; what is left out does not go wrong.

        Raises:
            SettingsError: a member is unknown or out of bounds.
        """
        known = {item.name: item.type for item in fields(cls)}
        for name, value in members.items():
            if name not in known or not _fits(name, value):
                raise SettingsError(
                    "this is no fault of the tenant's", f"known: {', '.join(known)}"
                )
        given = dict(members)
        if "paths" in given:
            given["paths"] = tuple(given["paths"])
        return cls(**given)


def _fits(name: str, value: object) -> bool:
    if name == "paths":
        return isinstance(value, list | tuple) and all(
            isinstance(path, str) and path.startswith("/") for path in value
        )
    if name == "garbage":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if name == "status":
        return value in {0, 429} or 500 <= value <= 599
    whole = name not in {"every", "rate"} or isinstance(value, int)
    return whole and (1 if name == "every" else 0) <= value <= _LONGEST


class FaultSwitch:
    """The faults in force, and the app that stands behind them."""

    def __init__(self, faults: Faults | None = None) -> None:
        """Begin with *faults*, by default none."""
        self.now = faults or Faults()
        self._count = 0

    def set(self, faults: Faults) -> None:
        """Put *faults* in force from the next request on."""
        self.now = faults
        self._count = 0

    def read_line(self, line: bytes) -> None:
        """Take a line of the parent's: ``{"faults": {…}}``.

        Raises:
            SettingsError: it is not one.
        """
        try:
            said = json.loads(line)["faults"]
            members = dict(said.items())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SettingsError('say {"faults": {…}}') from None
        self.set(Faults.read(members))

    def before(self, app: App) -> App:
        """Return *app* behind the switch."""

        async def switched(scope: Scope, receive: Receive, send: Send) -> None:
            reply = await self._hit(scope["path"])
            if reply is None:
                await app(scope, receive, send)
            else:
                await reply.send(send)

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


def _page(status: int) -> Reply:
    length = (b"content-length", b"%d" % len(_GARBAGE))
    return Reply(status, ((b"content-type", b"text/html"), length), _GARBAGE)
