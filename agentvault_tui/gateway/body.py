"""The body of an agent's request: read whole within bounds, or passed on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

from agentvault_tui.gateway.refusals import crowded, too_large
from agentvault_tui.gateway.spool import Spool
from agentvault_tui.gateway.workers import Workers
from agentvault_tui.web.reply import Header
from agentvault_tui.web.shares import SharedPlaces

_P = ParamSpec("_P")
_T = TypeVar("_T")
BODY_CAP: Final = 10 * 2**20
"""Most bytes of a body that policy reads, or a person."""
DEFAULT_BODY: Final = 2**20
"""The same where no file says otherwise."""
STREAM_CAP: Final = 2**30
"""Bytes of a body that is not parsed on the way."""
ALL_BODIES: Final = 256 * 2**20
"""Bytes of all bodies that are in memory whole, or on their way there."""
ALWAYS: Final = 256 * 2**10
"""Bytes that each agent may have in any case."""


IN_LOOP: Final = 4_096
"""Bytes of a body that is read between two turns of others: the worst JSON known of
that size, an array of numbers, takes 1.4 ms; of 64 KiB, 24 ms."""
PACED: Final = 32_768
"""Bytes of a body after which others have their turn before more is read."""
WORKERS: Final = Workers()
"""Shared by all gateways of this process."""


def weight(raw: bytes) -> int:
    """Return how many bytes of ASCII take as long to read as a body.

    Names that are not ASCII take longer to compare.
    """
    return len(raw) if raw.isascii() else 4 * len(raw)


async def read_apart(
    agent_id: str,
    size: int,
    function: Callable[_P, _T],
    *args: _P.args,
    **keywords: _P.kwargs,
) -> _T:
    """Call *function* on a body, in a worker process if the body is large.

    Args:
        agent_id: the agent of the body.
        size: of the body, in bytes; see `weight`.
        function: a function of a module; see `Workers.run` for its possible results.
        args: its arguments.
        keywords: none; for the type of `args`.

    Raises:
        CallRefusedError: 400 or 503; see `Workers.run`.
    """
    if size <= IN_LOOP:
        return function(*args, **keywords)
    return await WORKERS.run(agent_id, function, *args, **keywords)


class BodyRoom:
    """Counts the bytes of bodies in memory, by agent; see `SharedPlaces`."""

    def __init__(
        self,
        total: int = ALL_BODIES,
        always: int = ALWAYS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with none.

        Args:
            total: bytes of all agents.
            always: bytes that each agent may have in any case.
            now: a clock that is never set back.
        """
        self._bytes = SharedPlaces(total, now, always)
        self._always = always
        self._over: Counter[str] = Counter()
        """Bytes beyond the shared places, of which each agent may have `always`."""

    def take(self, agent_id: str, size: int) -> None:
        """Count *size* more bytes.

        Raises:
            CallRefusedError: 503, where there is no room for them; none is counted.
        """
        if self._bytes.reserve(agent_id, size):
            return
        own = self._bytes.count(agent_id) + self._over[agent_id] + size
        if own > self._always:
            raise crowded()
        self._over[agent_id] += size

    def check(self, agent_id: str, size: int) -> None:
        """See that *size* more bytes of an agent fit.

        Raises:
            CallRefusedError: 503; they do not.
        """
        self.take(agent_id, size)
        self.give_back(agent_id, size)

    @property
    def taken(self) -> int:
        """How many bytes are counted."""
        return self._bytes.taken + self._over.total()

    @contextmanager
    def counted(self, agent_id: str) -> Iterator[Callable[[int], None]]:
        """Count bytes while a block runs; yield the function that counts more."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            self.take(agent_id, size)
            taken += size

        try:
            yield take
        finally:
            self.give_back(agent_id, taken)

    def give_back(self, agent_id: str, size: int) -> None:
        """Count *size* bytes no more."""
        over = min(size, self._over[agent_id])
        self._over[agent_id] -= over
        if not self._over[agent_id]:
            del self._over[agent_id]
        self._bytes.release(agent_id, size - over)


def referent_key(stepup_id: str, place: int) -> str:
    """Return the name under which a document that a held call names is held."""
    return f"{stepup_id}/{place}"


class HeldBodies(BodyRoom):
    """The content of people's decisions, in memory alone, until they have decided."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self._bodies: dict[str, tuple[str, bytes]] = {}

    def keep(self, agent_id: str, stepup_id: str, body: bytes | None) -> None:
        """Hold the body of an agent's held call; None of an opaque one.

        A document that the call names has its own key; see `referent_key`.

        Raises:
            CallRefusedError: 503, where there is no room for it.
        """
        if body is not None and stepup_id not in self._bodies:
            self.take(agent_id, len(body))
            self._bodies[stepup_id] = agent_id, body

    def of(self, stepup_id: str) -> bytes | None:
        """Return the body that waits for a person, if it is still in memory."""
        return self._bodies.get(stepup_id, (None, None))[1]

    def keep_alone(self, stepup_ids: Iterable[str]) -> None:
        """Let go of all but those of *stepup_ids*."""
        open_ids = set(stepup_ids)
        for key in [
            one for one in self._bodies if one.partition("/")[0] not in open_ids
        ]:
            agent_id, body = self._bodies.pop(key)
            self.give_back(agent_id, len(body))


class Body:
    """One request's body; `close` it when its call is over."""

    def __init__(
        self,
        headers: list[Header],
        receive: Callable[[], Awaitable[bytes]],
        room: BodyRoom,
        pace: Callable[[], Awaitable[None]],
    ) -> None:
        """Read nothing yet.

        Args:
            headers: the request's.
            receive: returns the next piece, empty at the end.
            room: counts the bodies that are read whole.
            pace: waits for a turn before more of a large body is read.
        """
        header = dict(headers)
        length = header.get(b"content-length")
        self.length = None if length is None else int(length)
        self.empty = self.length == 0 or (
            length is None and b"transfer-encoding" not in header
        )
        self.agent_id: str | None = None
        """The requester that it counts for, once known; see `Token.requester`."""
        self.check: Callable[[], None] = lambda: None
        """Called with each piece until the body is whole; raises if its agent was
        revoked."""
        self.spool: Spool | None = None
        """All of it on disk, if a person decides about it."""
        self._receive = receive
        self._room = room
        self._pace = pace
        self._taken = 0
        self._first = b""

    @property
    def size(self) -> int | None:
        """Its size in bytes, where it is known: on disk, or as its agent states it.

        Then it leaves with that length, however it came: a service that reads no
        chunks (RFC 9112 section 7.1) must not store an empty body for the approved one.
        """
        return self.length if self.spool is None else self.spool.size

    async def begins(self) -> bool:
        """Check whether it has at least one byte; an empty chunked body has none."""
        if not self.empty and self.length is None:
            self._first = await self._receive()
            self.empty = not self._first
        return not self.empty

    async def whole(self, cap: int = BODY_CAP) -> bytes:
        """Return all of it, of *cap* bytes at most.

        Raises:
            CallRefusedError: 413; 503 where too many are in memory.
        """
        if (self.length or 0) > cap:
            raise too_large(cap)
        pieces = []
        async for piece in self.checked(cap):
            if self.agent_id is not None:
                self._room.take(self.agent_id, len(piece))
            self._taken += len(piece)
            pieces.append(piece)
            if self._taken > PACED:
                await self._pace()
        return b"".join(pieces)

    async def checked(self, cap: int = STREAM_CAP) -> AsyncIterator[bytes]:
        """Yield it as it arrives, as long as its agent may send it.

        Raises:
            CallRefusedError: 413, or 401; see `check`.
        """
        async for piece in self.pieces(cap):
            self.check()
            yield piece

    async def pieces(self, cap: int = STREAM_CAP) -> AsyncIterator[bytes]:
        """Yield it as it arrives.

        Raises:
            CallRefusedError: 413; it has more than *cap* bytes.
        """
        if self.empty:
            return
        size, piece = 0, self._first or await self._receive()
        self._first = b""
        while piece:
            size += len(piece)
            if size > cap:
                raise too_large(cap)
            yield piece
            piece = await self._receive()

    def close(self) -> None:
        """Release the memory and the disk that it takes."""
        if self.spool is not None:
            self.spool.close()
        if self.agent_id is not None and self._taken:
            self._room.give_back(self.agent_id, self._taken)
            self._taken = 0
