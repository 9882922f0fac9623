"""Bound a listener's resources for its peers, and share its connections among users."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from agentvault_tui.web.shares import SharedPlace, SharedPlaces

_SPARE_FILES: Final = 256
"""Descriptors reserved for the store, the other listeners and outgoing requests; at
most half of all."""
_UNASKED: Final = 16
"""The first of so many parts of the places are given unasked: asking costs a call."""
_RESERVED: Final = 16
"""One of so many parts is for urgent requests, besides the places for all."""
_LEAST_RESERVED: Final = 4


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
    """Seconds after an answer in which the rest of an unread body may arrive."""
    unread_bytes: int = 65_536
    """Bytes of such a body that are read and dropped, so that the answer arrives (RFC
    9112 section 9.6); past either bound the connection is closed."""
    streamed: tuple[bytes, ...] = ()
    """Prefixes of paths whose bodies may be of any size: each `progress_bytes` have
    ``request_seconds`` to arrive, while they are read."""
    progress_bytes: int = 65_536
    pipelined: int = 8
    """Requests of one connection that may wait for the answer to another (RFC 9112
    section 9.3.2); with more it is cut. Each is in memory, and a single read may hold
    thousands."""
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

    user: Hashable
    """A local user's uid, or the address of another machine, an IPv6 one as its /48;
    None if the kernel does not report it."""
    drop: Callable[[], object]
    """Ends it at once; called when its place is given to another."""
    since: int = 0
    """When it began to wait, as a number that grows."""
    places: Places = field(kw_only=True)
    reserved: bool = False
    """Whether it is one of the places that urgent requests alone may use."""
    of_agent: SharedPlace | None = None
    """Its place in the agent's share, from the first authenticated request on."""

    def count_for(self, agent: str) -> bool:
        """Count the connection for an agent, unless it counts for one already.

        Args:
            agent: its id, or the chain of a passed-on token.

        Returns:
            False if the agent has its share of the connections and none is unused: the
            caller closes the connection.
        """
        if self.of_agent is not None:
            return True
        self.of_agent = self.places.of_agents.take(agent, self._end)
        return self.of_agent is not None

    def _end(self) -> None:
        """Close the connection: another agent needs its place, which was lent."""
        self.leave()
        self.drop()

    def waits(self) -> None:
        """Note that no request is being answered."""
        self.places.waits(self)

    def works(self) -> None:
        """Note that a whole request came, which is being answered."""
        self.places.works(self)

    def leave(self) -> None:
        """Release it; without effect if it was given to another."""
        self.places.leave(self)


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

    A connection *waits* until a whole request came over it, and again after the answer.
    When slots run out, the user who has most of them gives one up, the longest waiting
    first, so that no user is shut out by another's. If the kernel does not report their
    user, all count as one user's, and only waiting ones are dropped. A connection
    beyond its agent's share is closed first. Another machine has no more than half of
    the slots.

    With *urgent* there are slots besides, for connections that come when all are
    working: each may carry urgent requests alone.
    """

    def __init__(
        self,
        most: int,
        now: Callable[[], float] = time.monotonic,
        *,
        urgent: bool = False,
    ) -> None:
        self._most = most
        self._reserve = (
            Places(max(most // _RESERVED, _LEAST_RESERVED), now) if urgent else None
        )
        self.of_agents = SharedPlaces(most, now)
        self._count = 0
        self._turns = count()
        self._shares: dict[Hashable, _Share] = {}

    def take(
        self,
        user: Callable[[], Hashable],
        drop: Callable[[], object],
        machine: str | None = None,
    ) -> ConnectionSlot | None:
        """Give a slot to who connected.

        Args:
            user: asks the kernel which local user it is.
            drop: ends the connection.
            machine: of another machine, the outermost class of its address.

        Returns:
            the slot; None if all are at work.
        """
        unasked = self._count < self._most // _UNASKED
        named = machine or (None if unasked else user())
        place = ConnectionSlot(named, drop, places=self)
        if not self._has_room(named, machine):
            if self._reserve is None:
                return None
            reserved = self._reserve.take(lambda: named, drop, machine)
            if reserved is not None:
                reserved.reserved = True
            return reserved
        self._count += 1
        self.waits(place)
        return place

    def _has_room(self, user: Hashable, machine: str | None) -> bool:
        """Check whether there is a slot for *user*, or could be made."""
        mine = self._shares.get(user) or _Share()
        if machine is not None and len(mine) >= max(self._most // 2, 1):
            if not mine.waiting:
                return False
            self._give_up(mine.oldest)
        return self._count < self._most or (
            self.of_agents.end_lent(1) or self._make_room(user)
        )

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

    def _make_room(self, user: Hashable) -> bool:
        """End one connection for a new one of *user*'s; return whether it could."""
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
        self._give_up(given)
        return True

    def _give_up(self, place: ConnectionSlot) -> None:
        self.leave(place)
        place.drop()

    @property
    def _unknown(self) -> _Share | None:
        return self._shares.get(None)
