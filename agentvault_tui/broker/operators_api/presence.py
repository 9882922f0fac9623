"""``/api/presence``: the operators' open streams and their screens, in memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec.structs import replace
from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.authority import Standing, is_remote
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.feed import frame
from agentvault_tui.broker.operators_api.wire import body_of, operator_of, route
from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import NotFoundError
from agentvault_tui.model import Actor, new_id
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.requests import LookRequest
from agentvault_tui.operator_api.shapes import PresenceInfo, SeatInfo
from agentvault_tui.web.server import peer

MOST: Final = 32
"""Seats of one user that are listed; further streams are served and counted."""
_GATHER: Final = 0.05
"""Seconds in which changes become one message."""
_PTS: Final = range(136, 144)
_VT: Final = 4
_VTS: Final = 64


@dataclass(slots=True)
class Seat:
    """One open stream."""

    id: str
    operator: Actor
    face: str
    since: datetime
    terminal: str | None
    """The controlling terminal of the process, as the kernel names it; of an operator
    elsewhere the address."""
    looking_at: str | None = None


class Presence:
    """The seats, and the word to all of them when something about them changes."""

    def __init__(
        self,
        clock: Clock,
        tell: Callable[[str, Callable[[], PresenceInfo]], None],
        standing: Callable[[str], Standing],
    ) -> None:
        """Begin without operators; *tell* sends one event to every stream."""
        self._clock = clock
        self._tell = tell
        self._standing = standing
        self._seats: dict[str, Seat] = {}
        self._unlisted = 0
        self._due: asyncio.TimerHandle | None = None

    def enter(self, operator: Actor, face: str, terminal: str | None) -> Seat | None:
        """Take a seat; None when the user has so many that this one is not listed."""
        mine = [s for s in self._seats.values() if s.operator.id == operator.id]
        if len(mine) >= MOST:
            self._unlisted += 1
            self.changed()
            return None
        seat = Seat(new_id("con"), operator, face, self._clock.now(), terminal)
        self._seats[seat.id] = seat
        self.changed()
        return seat

    def leave(self, seat: Seat | None) -> None:
        """Give the seat back: its stream has ended."""
        if seat is None:
            self._unlisted -= 1
        else:
            self._seats.pop(seat.id, None)
        self.changed()

    def look(self, operator: Actor, seat_id: str, stepup_id: str | None) -> None:
        """Note which step-up someone has open; NotFoundError: no seat of theirs."""
        seat = self._seats.get(seat_id)
        if seat is None or seat.operator.id != operator.id:
            raise NotFoundError("you have no such seat", "it ended with its stream")
        if seat.looking_at != stepup_id:
            seat.looking_at = stepup_id
            self.changed()

    def info(self) -> PresenceInfo:
        """Return everyone who is here, the longest here first."""
        seats = sorted(self._seats.values(), key=lambda seat: (seat.since, seat.id))
        return PresenceInfo(
            operators=tuple(map(self._seat_info, seats)), unlisted=self._unlisted
        )

    def changed(self) -> None:
        """Notify all streams soon, once for all changes until then."""
        if self._due is None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_later(_GATHER, self._send)

    def _send(self) -> None:
        self._due = None
        self._tell("presence", self.info)

    def _seat_info(self, seat: Seat) -> SeatInfo:
        standing = self._standing(seat.operator.id)
        session = standing.session
        return SeatInfo(
            id=seat.id,
            uid=seat.operator.id,
            name=session.identity.name if session else seat.operator.name,
            signed_in=session is not None,
            face=seat.face,
            since=iso(seat.since),
            terminal=seat.terminal,
            looking_at=seat.looking_at,
            role=standing.role,
            refused=standing.refused,
        )


def terminal_of(pid: int | None, proc: Path = Path("/proc")) -> str | None:
    """Return the controlling terminal of a process, as proc(5) tells it (field 7)."""
    if sys.platform != "linux" or pid is None:
        return None
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
        # The name of the process may hold blanks and brackets; nothing after it does.
        number = int(stat.rpartition(b")")[2].split()[4])
    except (OSError, ValueError, IndexError):
        return None
    major = (number >> 8) & 0xFFF
    minor = (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if major in _PTS:
        return f"pts/{minor + 256 * (major - _PTS.start)}"
    if major == _VT and minor < _VTS:
        return f"tty{minor}"
    return None


def routes(broker: Broker, presence: Presence) -> list[Route]:
    """Return the routes about who is here."""

    async def index(_: Request) -> PresenceInfo:
        """Return who is connected."""
        return presence.info()

    async def look(request: Request) -> PresenceInfo:
        """Note which step-up a seat has open."""
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
    operator = operator_of(request)
    if is_remote(operator.id):
        terminal: str | None = operator.name
    else:
        terminal = terminal_of(peer(request.scope).pid)
    seat = presence.enter(operator, face, terminal)
    try:
        here = replace(presence.info(), you=seat.id if seat else None)
        yield frame("presence", here)
        async with aclosing(frames) as rest:
            async for text in rest:
                yield text
    finally:
        presence.leave(seat)
