"""Share bounded places, so that no agent, operator or stranger shuts the others out.

* `SharedPlaces`: an agent may always have an eighth of the places, and more if no other
  agent used them in the last seconds. A place beyond its share is lent: it ends when
  another agent needs it.
* `CappedPlaces`: users and classes of users have caps.
* `FairPlaces`: a stranger who has most of the places gives one up.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

PARTS: Final = 8
"""The number of shares."""
LEAST: Final = 2
"""Places that one agent may always have."""
UNUSED_S: Final = 10.0
"""Seconds in which no other agent used a place before it is lent."""
_MANY: Final = 1_000
"""Agents in memory before those without a place are removed."""


@dataclass(eq=False, slots=True)
class SharedPlace:
    """One place that is taken; `leave` releases it."""

    shares: SharedPlaces
    user: str
    end: Callable[[], object]
    """Ends its use, before another agent gets the place."""
    taken: bool = True

    def leave(self) -> None:
        """Release the place; without effect if it was released before."""
        if self.taken:
            self.taken = False
            self.shares.drop(self)


@dataclass(eq=False, slots=True)
class _User:
    """The places of one agent."""

    count: int = 0
    places: dict[SharedPlace, None] = field(default_factory=dict)
    """Those that can be ended, the oldest first."""
    peaks: deque[tuple[float, int]] = field(default_factory=deque)
    """Earlier counts with the time of their end, each larger than the next."""

    def peak(self, now: float) -> int:
        """Return the most places it had at once in the last seconds."""
        while self.peaks and now - self.peaks[0][0] >= UNUSED_S:
            self.peaks.popleft()
        return max(self.count, self.peaks[0][1] if self.peaks else 0)

    def change(self, by: int, now: float) -> None:
        """Add *by* places, or release them if *by* is negative."""
        if by < 0:
            while self.peaks and self.peaks[-1][1] <= self.count:
                self.peaks.pop()
            self.peaks.append((now, self.count))
        self.count += by


class SharedPlaces:
    """A bounded number of places, or bytes, that agents share."""

    def __init__(
        self, total: int, now: Callable[[], float], least: int = LEAST
    ) -> None:
        """Share *total* places.

        Args:
            total: how many there are.
            now: a monotonic clock, in seconds.
            least: places that one agent may always have.
        """
        self.total = total
        self.share = max(total // PARTS, least)
        """Places that one agent may always have."""
        self.taken = 0
        self._now = now
        self._users: dict[str, _User] = {}

    def wait_in(self, user: str, wanted: asyncio.Future[None]) -> SharedPlace | None:
        """Take a place to wait in; *wanted* is done when another agent needs it."""

        def end() -> None:
            if not wanted.done():
                wanted.set_result(None)

        return self.take(user, end)

    def take(self, user: str, end: Callable[[], object]) -> SharedPlace | None:
        """Take a place that can be ended.

        Args:
            user: the agent, or the chain of a passed-on token.
            end: called when the place is lent and another agent needs it.

        Returns:
            the place; None if the agent has its share and no place is unused.
        """
        if not self._has_room(user, 1, lendable=True):
            return None
        place = SharedPlace(self, user, end)
        self._change(user, 1).places[place] = None
        return place

    def reserve(self, user: str, size: int) -> bool:
        """Take places that cannot be ended; one share always stays for others.

        Args:
            user: the agent, or the chain of a passed-on token.
            size: how many.

        Returns:
            whether they were taken; if not, none is.
        """
        if not self._has_room(user, size, lendable=False):
            return False
        self._change(user, size)
        return True

    def release(self, user: str, size: int) -> None:
        """Release reserved places."""
        self._change(user, -size)

    def drop(self, place: SharedPlace) -> None:
        """Release a place; see `SharedPlace.leave`."""
        self._change(place.user, -1).places.pop(place, None)

    def count(self, user: str) -> int:
        """Return how many places an agent has."""
        entry = self._users.get(user)
        return entry.count if entry else 0

    def _has_room(self, user: str, size: int, *, lendable: bool) -> bool:
        own, free = self.count(user) + size, self.total - self.taken
        if own <= self.share:
            return size <= free or self.end_lent(size - free)
        others = self._peak_of_others(user)
        unused = self.total - (others if lendable else max(others, self.share))
        return own <= unused and size <= free

    def _peak_of_others(self, user: str) -> int:
        self._forget_idle()
        now = self._now()
        return sum(one.peak(now) for name, one in self._users.items() if name != user)

    def _forget_idle(self) -> None:
        """Remove agents that had no place in the last seconds."""
        now = self._now()
        for name in [name for name, one in self._users.items() if not one.peak(now)]:
            del self._users[name]

    def end_lent(self, size: int) -> bool:
        """End places of agents beyond their share, the latest first.

        Args:
            size: places that are needed.

        Returns:
            whether enough places ended.
        """
        while size > 0:
            most = max(
                (one for one in self._users.values() if one.places),
                key=lambda one: one.count,
                default=None,
            )
            if most is None or most.count <= self.share:
                return False
            place = next(reversed(most.places))
            place.leave()
            place.end()
            size -= 1
        return True

    def _change(self, user: str, by: int) -> _User:
        entry = self._users.get(user)
        if entry is None:
            if len(self._users) >= _MANY:
                self._forget_idle()
            entry = self._users[user] = _User()
        entry.change(by, self._now())
        self.taken += by
        return entry


class CappedPlaces:
    """A bounded number of places, or bytes, that users and classes of users have."""

    def __init__(self, total: int) -> None:
        """Have *total* places, of which none is taken."""
        self.total = total
        self.counts: Counter[str] = Counter()
        """Places by user or class."""
        self.taken = 0

    def take(self, caps: Mapping[str, int], size: int = 1) -> str | None:
        """Take *size* places for a user who is in several classes.

        Args:
            caps: each class, and how many places all in it may have.
            size: how many.

        Returns:
            None if they were taken; else the class that has as many as it may, or an
            empty string if there are not as many free.
        """
        if self.taken + size > self.total:
            return ""
        for name, most in caps.items():
            if self.counts[name] + size > most:
                return name
        self._change(caps, size)
        return None

    def release(self, caps: Iterable[str], size: int = 1) -> None:
        """Release places of those classes."""
        self._change(caps, -size)

    def _change(self, caps: Iterable[str], by: int) -> None:
        self.taken += by
        for name in caps:
            self.counts[name] += by
            if not self.counts[name]:
                del self.counts[name]


@dataclass(eq=False, slots=True)
class FairPlace:
    """One place of a peer; `FairPlaces.leave` releases it."""

    classes: tuple[str, ...]
    end: Callable[[], object]
    """Ends its use, before another peer gets the place."""


class FairPlaces:
    """A bounded number of places; the class that has most of them gives one up.

    Each class of a peer is inside the one before it: an IPv6 address is in its /64, and
    that in its /48 (RFC 4291 section 2.5.4). No class has more than half of the places.
    """

    def __init__(self, total: int) -> None:
        """Have *total* places, of which none is taken."""
        self.total = total
        self._places: dict[FairPlace, None] = {}
        self._counts: Counter[tuple[str, ...]] = Counter()

    def __len__(self) -> int:
        return len(self._places)

    def take(
        self, classes: tuple[str, ...], end: Callable[[], object]
    ) -> FairPlace | None:
        """Take a place.

        Args:
            classes: those of the peer, the outermost first.
            end: called when another peer is given the place.

        Returns:
            the place; None if no other class has more.
        """
        crowded = self._counts[classes[:1]] >= max(self.total // 2, 1)
        if crowded or len(self._places) >= self.total:
            given = self._latest_of_most(classes, within=classes[:1] if crowded else ())
            if given is None:
                return None
            self.leave(given)
            given.end()
        place = FairPlace(classes, end)
        self._places[place] = None
        self._counts.update(_prefixes(classes))
        return place

    def leave(self, place: FairPlace) -> None:
        """Release a place; without effect if it was given to another."""
        if place in self._places:
            del self._places[place]
            self._counts.subtract(_prefixes(place.classes))
            self._counts = +self._counts

    def _latest_of_most(
        self, classes: tuple[str, ...], within: tuple[str, ...]
    ) -> FairPlace | None:
        """Return the place that is given to a peer of *classes*."""
        prefix, own = within, True
        while (most := self._most_below(prefix)) is not None:
            mine = classes[: len(prefix) + 1]
            if own and self._counts[most] <= self._counts[mine]:
                most = mine
            elif own and self._counts[most] <= self._counts[mine] + 1:
                return None
            own, prefix = own and most == mine, most
        if own:
            return None  # all the others have as few
        return next(one for one in reversed(self._places) if _is_in(one, prefix))

    def _most_below(self, prefix: tuple[str, ...]) -> tuple[str, ...] | None:
        size = len(prefix)
        below = [
            name
            for name in reversed(self._counts)
            if len(name) == size + 1 and name[:size] == prefix
        ]
        return max(below, key=self._counts.__getitem__, default=None)


def _is_in(place: FairPlace, prefix: tuple[str, ...]) -> bool:
    return place.classes[: len(prefix)] == prefix


def _prefixes(classes: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (classes[: size + 1] for size in range(len(classes)))


def classes_of(address: str) -> tuple[str, ...]:
    """Return the classes of an address: of IPv6 the /48, the /64 and the address."""
    address_parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(address_parsed, ipaddress.IPv6Address):
        if address_parsed.ipv4_mapped is not None:
            return (str(address_parsed.ipv4_mapped),)
        nets = (
            ipaddress.ip_network((address_parsed, size), strict=False)
            for size in (48, 64)
        )
        return (*map(str, nets), str(address_parsed))
    return (str(address_parsed),)
