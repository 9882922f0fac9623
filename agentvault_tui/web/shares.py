"""Share bounded places among agents, so that no agent shuts the others out.

An agent has an eighth of the places for sure, and any that no other agent used in the
last seconds. A place beyond its share is lent: it ends when another agent needs it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

PARTS: Final = 8
"""Into how many shares the places are divided."""
LEAST: Final = 2
"""Places of one agent, however few there are."""
UNUSED_S: Final = 10.0
"""Seconds for which others must not have used a place that is lent."""
_MANY: Final = 1_000
"""Agents that are known before those without a place are forgotten."""


@dataclass(eq=False, slots=True)
class SharedPlace:
    """One place that is taken; `leave` gives it back."""

    shares: SharedPlaces
    user: str
    end: Callable[[], object]
    """Ends the use of it, in the turn in which the place is given to another."""
    taken: bool = True

    def leave(self) -> None:
        """Give the place back; once, also where it was given to another meanwhile."""
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
        """Take or give back places."""
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
            now: a clock that is never set back, in seconds.
            least: how many one agent may have in any case.
        """
        self.total = total
        self.share = max(total // PARTS, least)
        """What one agent may have whatever the others do."""
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
            the place; None where the agent has its share and no other is unused.
        """
        if not self._has_room(user, 1, lendable=True):
            return None
        place = SharedPlace(self, user, end)
        self._change(user, 1).places[place] = None
        return place

    def reserve(self, user: str, size: int) -> bool:
        """Take places that cannot be ended, and so never the last share.

        Args:
            user: the agent, or the chain of a passed-on token.
            size: how many.

        Returns:
            whether they were there; else none is taken.
        """
        if not self._has_room(user, size, lendable=False):
            return False
        self._change(user, size)
        return True

    def release(self, user: str, size: int) -> None:
        """Give back places that were reserved."""
        self._change(user, -size)

    def drop(self, place: SharedPlace) -> None:
        """Give back a place; see `SharedPlace.leave`."""
        self._change(place.user, -1).places.pop(place, None)

    def count(self, user: str) -> int:
        """Return how many places an agent has."""
        known = self._users.get(user)
        return known.count if known else 0

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
        """Forget agents that had no place in the last seconds."""
        now = self._now()
        for name in [name for name, one in self._users.items() if not one.peak(now)]:
            del self._users[name]

    def end_lent(self, size: int) -> bool:
        """End places of agents beyond their share, the latest first.

        Args:
            size: how many are needed.

        Returns:
            whether there were so many.
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
        known = self._users.get(user)
        if known is None:
            if len(self._users) >= _MANY:
                self._forget_idle()
            known = self._users[user] = _User()
        known.change(by, self._now())
        self.taken += by
        return known
