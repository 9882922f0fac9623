"""Compact stores: live tokens by agent, and rates over the last minute."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Final

from agentvault_tui.presenters.records import LiveToken, TokenScope

MOST_TOKENS: Final = 100
"""As many as the broker lists; an agent may hold thousands."""
_LOW: Final = 50
_MOST_KINDS: Final = 200
"""More than are ever held, and fewer than a byte can number."""


class TokenStore:
    """The live tokens of one agent by expiry, in 13 bytes each.

    Three columns in one order; rows are made of them when somebody looks.
    """

    __slots__ = ("_ends", "_keys", "_kinds", "_more_elevated", "_which", "more")

    def __init__(
        self, rows: Iterable[LiveToken] = (), live: int = 0, elevated: int = 0
    ) -> None:
        self._ends = array("d")
        self._keys = array("I")
        self._which = bytearray()
        """Of each, the place of its kind in `_kinds`: an agent has few."""
        self._kinds: list[TokenScope] = []
        self.more = 0
        """How many are not held; all of them expire later than those held."""
        self._more_elevated = 0
        for row in rows:
            self.add(row)
        self.more = max(self.more, live - len(self._ends))
        self._more_elevated = max(elevated - self.elevated, 0)

    def add(self, row: LiveToken) -> None:
        """Add one token once; of too many those that expire first are held."""
        place = bisect_right(self._ends, row.ends)
        same = place - 1
        while same >= 0 and self._ends[same] == row.ends:
            if self._keys[same] == row.key:
                return
            same -= 1
        last = len(self._ends)
        # Behind those held, where some are not held, it may end after one of these.
        if place == last and (self.more or last >= MOST_TOKENS):
            self.more += 1
            self._more_elevated += row.elevated
            return
        if last >= MOST_TOKENS:
            self.more += 1
            self._more_elevated += self._kinds[self._which[-1]].elevated
            self._remove(last - 1)
        which = self._kind(row.kind)  # may put another column in place of the old
        self._ends.insert(place, row.ends)
        self._keys.insert(place, row.key)
        self._which.insert(place, which)

    def drop(self, key: int) -> bool:
        """Remove one token; return whether it was held."""
        if key in self._keys:
            self._remove(self._keys.index(key))
            return True
        self.more = max(self.more - 1, 0)
        return False

    def clear(self) -> None:
        self._keep_from(len(self._ends))
        self.more = self._more_elevated = 0

    def expire(self, now: float) -> bool:
        """Remove expired tokens; return whether there were any."""
        gone = bisect_right(self._ends, now)
        self._keep_from(gone)
        return gone > 0

    @property
    def live(self) -> int:
        return len(self._ends) + self.more

    @property
    def elevated(self) -> int:
        held = sum(self._kinds[which].elevated for which in self._which)
        return held + self._more_elevated

    @property
    def soonest(self) -> LiveToken | None:
        if not self._ends:
            return None
        return LiveToken(self._keys[0], self._kinds[self._which[0]], self._ends[0])

    @property
    def ends(self) -> float | None:
        """When the next token expires, in epoch seconds."""
        return self._ends[0] if self._ends else None

    @property
    def rows(self) -> list[LiveToken]:
        kinds = (self._kinds[which] for which in self._which)
        return list(map(LiveToken, self._keys, kinds, self._ends))

    @property
    def short(self) -> bool:
        """Check whether so few are held that more should be read."""
        return self.more > 0 and len(self._ends) < _LOW

    def _remove(self, place: int) -> None:
        del self._ends[place], self._keys[place], self._which[place]

    def _keep_from(self, place: int) -> None:
        del self._ends[:place], self._keys[:place], self._which[:place]

    def _kind(self, kind: TokenScope) -> int:
        """Return the index of a kind; drop unused kinds before they are many."""
        if self._kinds and kind in self._kinds:
            return self._kinds.index(kind)
        if len(self._kinds) > _MOST_KINDS:
            used = [self._kinds[which] for which in self._which]
            self._kinds = list(dict.fromkeys(used))
            self._which = bytearray(map(self._kinds.index, used))
        self._kinds.append(kind)
        return len(self._kinds) - 1


class ExpiryQueue:
    """A priority queue of the agents whose tokens expire next."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._true: dict[str, float] = {}
        """When each agent's soonest ends; a heap entry that differs is void."""

    def note(self, agent_id: str, ends: float | None) -> None:
        """Note when an agent's next token expires, in epoch seconds."""
        if ends is None:
            self._true.pop(agent_id, None)
        elif self._true.get(agent_id) != ends:
            self._true[agent_id] = ends
            heappush(self._heap, (ends, agent_id))

    def clear(self) -> None:
        self._heap.clear()
        self._true.clear()

    def due(self, now: float) -> Iterator[str]:
        """Yield, and forget, the agents with an expired token."""
        while self._heap and self._heap[0][0] <= now:
            ends, agent_id = heappop(self._heap)
            if self._true.get(agent_id) == ends:
                del self._true[agent_id]
                yield agent_id

    def before(self, moment: float) -> set[str]:
        """Return the agents with a token that expires before *moment*."""
        expired: set[str] = set()
        places = [0]
        while places:
            place = places.pop()
            if place < len(self._heap) and self._heap[place][0] < moment:
                ends, agent_id = self._heap[place]
                if self._true.get(agent_id) == ends:
                    expired.add(agent_id)
                places += (2 * place + 1, 2 * place + 2)
        return expired


_SLOTS: Final = 12
_SLOT_SECONDS: Final = 5
_INT: Final = array("I").itemsize


class RatesByName:
    """Counts over the last minute by name; names without any take no space."""

    __slots__ = ("_counts", "_slots", "_tick")

    def __init__(self) -> None:
        self._slots: dict[str, array[int]] = {}
        self._counts: dict[str, int] = {}
        self._tick = 0

    def add(self, name: str, at: float) -> None:
        tick = int(at // _SLOT_SECONDS)
        if tick > self._tick:
            self._turn(tick)
        elif tick <= self._tick - _SLOTS:
            return
        slots = self._slots.get(name)
        if slots is None:
            slots = self._slots[name] = array("I", bytes(_SLOTS * _INT))
            self._counts[name] = 0
        slots[tick % _SLOTS] += 1
        self._counts[name] += 1

    def minute(self, now: float) -> Mapping[str, int]:
        """Return the counts of the last 55 to 60 seconds, by name."""
        self._turn(int(now // _SLOT_SECONDS))
        return self._counts

    def _turn(self, tick: int) -> None:
        for old in range(max(self._tick + 1, tick - _SLOTS + 1), tick + 1):
            place = old % _SLOTS
            over = [(n, slots) for n, slots in self._slots.items() if slots[place]]
            for name, slots in over:
                self._counts[name] -= slots[place]
                slots[place] = 0
                if not self._counts[name]:
                    del self._counts[name], self._slots[name]
        self._tick = max(tick, self._tick)
