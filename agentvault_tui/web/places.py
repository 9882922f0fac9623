"""Bound what a listener gives its peers, and share its connections among users."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from agentvault_tui.web.shares import SharedPlace, SharedPlaces

_SPARE_FILES: Final = 256
"""Descriptors kept for the store, the other listeners and outgoing requests; at most
half of what there may be."""
_UNASKED: Final = 16
"""The first of so many parts of the places are given unasked: asking costs a call."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one listener; the defaults are the contract's."""

    head_seconds: float = 5.0
    """From the first byte (or from connecting) to the end of the headers."""
    request_seconds: float = 10.0
    """From the first byte to the end of the body."""
    idle_seconds: float = 60.0
    """Between one answer and the next request on the same connection."""
    write_seconds: float = 30.0
    """How long a peer may leave our answer unread once our buffer is full."""
    head_bytes: int = 16_384
    headers: int = 64
    framing_bytes: int = 4_096
    """Of chunk extensions, trailers and empty lines before a request, none of which
    we use (RFC 9112 sections 2.2, 7.1.1 and 7.1.2)."""
    unread_seconds: float = 10.0
    """From an answer to the end of a body that was not read whole before it."""
    unread_bytes: int = 65_536
    """Of such a body, read and dropped so that the answer arrives (RFC 9112 section
    9.6); past either bound the connection is closed."""
    streamed: tuple[bytes, ...] = ()
    """Prefixes of paths whose bodies may be of any size: each `progress_bytes` have
    ``request_seconds`` to arrive, while they are read."""
    progress_bytes: int = 65_536
    pipelined: int = 8
    """Requests of one connection that may wait for the answer to another (RFC 9112
    section 9.3.2); with more it is cut. Each is kept in memory, and a single read may
    hold thousands."""
    connections: int = 1024


def file_limit(wanted: int) -> int:
    """Raise the soft limit on open files; return how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    target = wanted + _SPARE_FILES
    if soft < target:
        ceiling = target if hard == resource.RLIM_INFINITY else min(target, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        soft = ceiling
    return max(min(wanted, soft - min(_SPARE_FILES, soft // 2)), 1)


@dataclass(slots=True, eq=False)
class ConnectionSlot:
    """One connection, or one TLS handshake, that counts against the number there is."""

    user: int | None
    drop: Callable[[], object]
    """Ends it at once; called when its place is given to another."""
    since: int = 0
    """When it began to wait, as a number that grows."""
    places: Places | None = None
    of_agent: SharedPlace | None = None
    """Among those of its agent, from the first request that authenticated one."""

    def count_for(self, agent: str) -> bool:
        """Count the connection for an agent, unless it counts for one already.

        Args:
            agent: its id, or the chain of a passed-on token.

        Returns:
            False where the agent has its share of the connections and no other is
            unused: the connection is to be closed.
        """
        if self.of_agent is not None or self.places is None:
            return True
        self.of_agent = self.places.of_agents.take(agent, self._end)
        return self.of_agent is not None

    def _end(self) -> None:
        """Close it: its place was lent, and another agent needs it."""
        if self.places is not None:
            self.places.leave(self)
        self.drop()


@dataclass(slots=True)
class _Share:
    """The places of one user, the longest waiting, and the oldest working, first."""

    waiting: dict[ConnectionSlot, None] = field(default_factory=dict)
    working: dict[ConnectionSlot, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.waiting) + len(self.working)

    @property
    def oldest(self) -> ConnectionSlot:
        """The place that is given up first: one without a request, if there is any."""
        return next(iter(self.waiting or self.working))


class Places:
    """A bounded number of connections; where all are taken, an idle one is dropped.

    A connection *waits* until a whole request came over it, and again after the
    answer. When slots run out, the user who has most of them gives one up, the longest
    waiting first, so that no user is shut out by another's. Where the kernel does not
    tell whose they are, all are one user's, and only those that wait are dropped. One
    that an agent has beyond its share of all ends first.
    """

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self.of_agents = SharedPlaces(most, now)
        self._count = 0
        self._turns = count()
        self._shares: dict[int | None, _Share] = {}

    def take(
        self, user: Callable[[], int | None], drop: Callable[[], object]
    ) -> ConnectionSlot | None:
        """Give a slot to who connected, or None: all are at work. *drop* ends it."""
        unasked = self._count < self._most // _UNASKED
        place = ConnectionSlot(None if unasked else user(), drop, places=self)
        if self._count >= self._most and not (
            self.of_agents.end_lent(1) or self._make_room(place.user)
        ):
            return None
        self._count += 1
        self.waits(place)
        return place

    def waits(self, place: ConnectionSlot) -> None:
        """Note that no request is being answered."""
        share = self._shares.setdefault(place.user, _Share())
        share.working.pop(place, None)
        place.since = next(self._turns)
        share.waiting[place] = None

    def works(self, place: ConnectionSlot) -> None:
        """Note that a whole request came, which is being answered."""
        share = self._shares.get(place.user)
        if share is not None and share.waiting.pop(place, self) is None:
            share.working[place] = None

    def leave(self, place: ConnectionSlot) -> None:
        """Take the place back; one that was given to another is gone already."""
        share = self._shares.get(place.user)
        if share is None or (place not in share.waiting and place not in share.working):
            return
        share.waiting.pop(place, None)
        share.working.pop(place, None)
        self._count -= 1
        if place.of_agent is not None:
            place.of_agent.leave()
        if not share:
            del self._shares[place.user]

    def _make_room(self, user: int | None) -> bool:
        """End one connection for a new one of *user*'s; tell whether that could be."""
        mine = self._shares.get(user) or _Share()
        most = max(self._shares.values(), key=len)
        if len(most) > len(mine) + 1 and (most.waiting or most is not self._unknown):
            given = most.oldest
        elif mine.waiting:
            given = mine.oldest
        else:
            others = [
                share.oldest
                for share in self._shares.values()
                if share.waiting and len(share) > len(mine)
            ]
            if not others:
                return False
            given = min(others, key=lambda place: place.since)
        self.leave(given)
        given.drop()
        return True

    @property
    def _unknown(self) -> _Share | None:
        return self._shares.get(None)
