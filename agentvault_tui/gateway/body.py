"""The body of an agent's request: read whole within bounds, or passed on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

from agentvault_tui.gateway.refusals import crowded, too_large
from agentvault_tui.web.exchange import current_agent
from agentvault_tui.web.reply import Header
from agentvault_tui.web.shares import FairThreads, SharedPlaces

_T = TypeVar("_T")
BODY_CAP: Final = 10 * 2**20
"""Bytes of a body that policy reads, or a person."""
STREAM_CAP: Final = 2**30
"""Bytes of a body that nobody reads on the way."""
ALL_BODIES: Final = 256 * 2**20
"""Bytes of all bodies that are in memory whole, or on their way there."""
ALWAYS: Final = 256 * 2**10
"""Bytes that each agent may have in any case."""


_LARGE: Final = 65_536
_READER: Final = FairThreads(ThreadPoolExecutor(1, "agentvault-body"), 1)
"""One thread: agents take turns."""


async def read_apart(size: int, read: Callable[[], _T]) -> _T:
    """Return what *read* makes of a body, off the event loop where that is large.

    Ten megabytes of JSON take a second to parse, in which nothing would be revoked.
    """
    if size <= _LARGE:
        return read()
    return await _READER.run(current_agent(), read)


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
        """Bytes that an agent has without a place, since it may have some always."""

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
        """Count bytes while a block runs; yield what counts more of them."""
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


class HeldBodies(BodyRoom):
    """What people decide about, in memory alone, until they have."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self._kept: dict[str, tuple[str, bytes]] = {}

    def keep(self, agent_id: str, stepup_id: str, body: bytes) -> None:
        """Keep the body of an agent's held call.

        Raises:
            CallRefusedError: 503, where there is no room for it.
        """
        if stepup_id not in self._kept:
            self.take(agent_id, len(body))
            self._kept[stepup_id] = agent_id, body

    def of(self, stepup_id: str) -> bytes | None:
        """Return the body that waits for a person, if it is still in memory."""
        return self._kept.get(stepup_id, (None, None))[1]

    def keep_alone(self, stepup_ids: Iterable[str]) -> None:
        """Let go of all but those of *stepup_ids*."""
        for stepup_id in self._kept.keys() - set(stepup_ids):
            agent_id, body = self._kept.pop(stepup_id)
            self.give_back(agent_id, len(body))


class Body:
    """One request's body; `close` it when its call is over."""

    def __init__(
        self,
        headers: list[Header],
        receive: Callable[[], Awaitable[bytes]],
        room: BodyRoom,
    ) -> None:
        """Read nothing yet.

        Args:
            headers: the request's.
            receive: returns the next piece, empty at the end.
            room: counts what is read whole.
        """
        said = dict(headers)
        length = said.get(b"content-length")
        self.length = None if length is None else int(length)
        self.empty = self.length == 0 or (
            length is None and b"transfer-encoding" not in said
        )
        self.agent_id: str | None = None
        """For whom it counts, once that is known; see `Token.requester`."""
        self.known: bytes | None = b"" if self.empty else None
        """All of it, where it was read whole."""
        self.check: Callable[[bytes], None] = lambda _: None
        """Takes each piece before it is passed on; raises where it must not be."""
        self._receive = receive
        self._room = room
        self._taken = 0

    async def whole(self) -> bytes:
        """Return all of it.

        Raises:
            CallRefusedError: 413; 503 where too many are in memory.
        """
        if self.known is None:
            if (self.length or 0) > BODY_CAP:
                raise too_large(BODY_CAP)
            pieces = []
            while piece := await self._receive():
                if self.agent_id is not None:
                    self._room.take(self.agent_id, len(piece))
                self._taken += len(piece)
                pieces.append(piece)
                if self._taken > BODY_CAP:
                    raise too_large(BODY_CAP)
                self.check(piece)
            self.known = b"".join(pieces)
        return self.known

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield it as it comes.

        Raises:
            CallRefusedError: 413.
        """
        size = 0
        while piece := await self._receive():
            size += len(piece)
            if size > STREAM_CAP:
                raise too_large(STREAM_CAP)
            self.check(piece)
            yield piece

    def close(self) -> None:
        """Let go of what was read."""
        if self.agent_id is not None and self._taken:
            self._room.give_back(self.agent_id, self._taken)
            self._taken = 0
