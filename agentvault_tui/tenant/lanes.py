"""Keeps sign-ins apart by where they come from, so that nobody shuts others out.

A lock by name alone lets anybody keep a person from approving. So tries are counted
for each lane, and password checks, which cost memory and time, are given to lanes in
turn. What a browser that signed in before keeps for that is a device cookie (OWASP,
"Slow Down Online Guessing Attacks with Device Cookies").
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.web.sockets import tcp_user

PROOF_HEADER: Final = "agentvault-sign-in-proof"
_COOKIE: Final = "agentvault_known_"
_VALUE: Final = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9]{1,12})\.([0-9a-f]{64})")
_KEPT: Final = 90 * 86_400
"""Seconds a browser is known after a sign-in."""
_PARALLEL: Final = 2
"""Each check takes 64 MiB: more at once would let sign-ins eat the machine's memory."""
_OPEN_PARALLEL: Final = 1
"""Of these, checks for whoever has shown nothing: another is kept for the rest."""
_WAITING: Final = 64
"""Sign-ins of one lane that may wait for their turn; more are told to come again."""
_LANES: Final = 256
"""Lanes that may wait at a time."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sign-in comes from, as far as that shows."""

    uid: int | None = None
    """Whose process asks, where the kernel tells."""
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    code: str | None = None
    """The key of the device code it is for, if only the console could start that."""
    own: bool = False
    """Whether it was shown that it comes from whoever can read this home."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Sign-ins that share their tries and their turns."""

    key: str
    trusted: bool
    """Whether it has shown something that not anybody has."""
    by_name: bool = True
    """Whether wrong passwords are counted for each name. Not where the tries are few
    anyway, and not where it is not known who asks: that were a lock by name alone."""
    apart: bool = False
    """Whether one-time codes are counted apart from everybody else's as well."""


class Lanes:
    """Finds the lane of a sign-in, and has browsers remembered."""

    def __init__(self, seal: Seal, clock: Clock) -> None:
        self._clock = clock
        self._seal = seal
        self._key = seal.derive("known browser")

    def origin(
        self, request: Request, *, code: str | None = None, user_code: str = ""
    ) -> Origin:
        """Return where *request* comes from.

        Args:
            request: that brings a password or a one-time code.
            code: the key of the console's device code it is for, if it is for one.
            user_code: that code in its normal form.
        """
        proof = request.headers.get(PROOF_HEADER, "")
        own = bool(user_code) and hmac.compare_digest(
            proof.encode(), proof_of(self._seal, user_code).encode()
        )
        client, server = request.client, request.scope.get("server")
        uid = None
        if client is not None and server is not None:
            uid = tcp_user((client.host, client.port), (server[0], server[1]))
        return Origin(uid, request.cookies, code, own)

    def lane(self, origin: Origin, who: str) -> Lane:
        """Return the lane of a sign-in as *who*, the subject or a stranger's digest."""
        if origin.own:
            return Lane("own", trusted=True, apart=True)
        found = _VALUE.fullmatch(origin.cookies.get(self._name(who), ""))
        if found is not None:
            nonce, issued, mac = found.groups()
            age = self._clock.now().timestamp() - int(issued)
            expected = self._mac(who, nonce, issued, origin.uid)
            if hmac.compare_digest(mac, expected) and 0 <= age < _KEPT:
                # One for all browsers of a person: whoever signs in often has no more.
                return Lane(f"browser-{who}", trusted=True, apart=True)
        if origin.code is not None:
            return Lane(f"code-{origin.code}", trusted=True, by_name=False)
        if origin.uid is None:
            return Lane("anyone", trusted=False, by_name=False)
        return Lane(f"uid-{origin.uid}", trusted=False)

    def remember(self, answer: Response, origin: Origin, sub: str) -> None:
        """Have the browser known as *sub*'s, who has just shown both factors.

        Cookies do not tell ports apart: another server on this address may be sent it.
        For that it is good for no other user's process, and for no more than tries.
        """
        nonce = secrets.token_urlsafe(16)
        issued = str(int(self._clock.now().timestamp()))
        answer.set_cookie(
            self._name(sub),
            f"{nonce}.{issued}.{self._mac(sub, nonce, issued, origin.uid)}",
            max_age=_KEPT,
            path="/",
            httponly=True,
            samesite="strict",
        )

    def _name(self, who: str) -> str:
        return _COOKIE + self._sign(f"name {who}")[:16]

    def _mac(self, who: str, nonce: str, issued: str, uid: int | None) -> str:
        return self._sign(f"value {who} {nonce} {issued} {uid}")

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


def proof_of(seal: Seal, user_code: str) -> str:
    """Return what shows that a sign-in for *user_code* comes from this home's owner."""
    key = seal.derive("sign-in from the home")
    return hmac.new(key, user_code.encode(), "sha256").hexdigest()


class Turns:
    """Few checks at a time, given to the lanes that wait one after the other."""

    def __init__(self) -> None:
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {}
        self._running = {True: 0, False: 0}
        """By whether the lane is trusted."""

    def check_room(self, lane: Lane) -> None:
        """Refuse a sign-in of a lane in which too many wait.

        Raises:
            TenantRefusedError: ``busy``.
        """
        line = self._waiting.get(lane)
        if len(line or ()) >= _WAITING or (line is None and self._crowded(lane)):
            raise TenantRefusedError(
                "busy", "Too many people sign in just now.", "Try again in a moment."
            )

    def _crowded(self, lane: Lane) -> bool:
        """Tell whether as many lanes of this kind wait as may."""
        alike = sum(one.trusted == lane.trusted for one in self._waiting)
        return alike >= _LANES

    @asynccontextmanager
    async def turn(self, lane: Lane) -> AsyncIterator[None]:
        """Wait for a turn of *lane*'s, and have it for the block."""
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(place)
        self._go_on()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._end(lane)
            raise
        try:
            yield
        finally:
            self._end(lane)

    def _end(self, lane: Lane) -> None:
        self._running[lane.trusted] -= 1
        self._go_on()

    def _go_on(self) -> None:
        while (lane := self._next()) is not None:
            line = self._waiting.pop(lane)
            place = line.popleft()
            if line:
                self._waiting[lane] = line  # behind the others
            if not place.done():
                self._running[lane.trusted] += 1
                place.set_result(None)

    def _next(self) -> Lane | None:
        """Return the lane whose turn it is; None: nobody's now."""
        if sum(self._running.values()) >= _PARALLEL:
            return None
        first = {
            trusted: next(
                (one for one in self._waiting if one.trusted == trusted), None
            )
            for trusted in (True, False)
        }
        open_now = self._running[False] < _OPEN_PARALLEL
        if first[False] is not None and open_now and self._running[True]:
            return first[False]  # nor do those who are trusted shut others out
        return first[True] or (first[False] if open_now else None)
