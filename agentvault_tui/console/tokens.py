"""Live tokens: of one agent the soonest to expire, and of all whose ends next."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import heappop, heappush
from typing import Final

from agentvault_tui.console.records import TokenRow

KEPT: Final = 100
"""As many as the broker lists; an agent may hold thousands."""
_LOW: Final = 50


class TokenShelf:
    """Live tokens by expiry."""

    __slots__ = ("_by_expiry", "_rows", "more")

    def __init__(self, rows: Iterable[TokenRow] = (), live: int = 0) -> None:
        self._rows: dict[str, TokenRow] = {row.id: row for row in rows}
        self._by_expiry = sorted((r.expires_at, r.id) for r in self._rows.values())
        self.more = max(live - len(self._rows), 0)
        """How many are not held; all of them expire later than those held."""

    def add(self, row: TokenRow) -> None:
        """Take a new token."""
        if row.id in self._rows:
            return
        if len(self._rows) >= KEPT:
            self.more += 1
            if row.expires_at >= self._by_expiry[-1][0]:
                return
            _, latest = self._by_expiry.pop()
            del self._rows[latest]
        self._rows[row.id] = row
        insort(self._by_expiry, (row.expires_at, row.id))

    def drop(self, token_id: str) -> None:
        """Let go of one token that was revoked or used."""
        row = self._rows.pop(token_id, None)
        if row is not None:
            self._by_expiry.remove((row.expires_at, row.id))
        elif self.more:
            self.more -= 1

    def clear(self) -> None:
        """Let go of all."""
        self._rows.clear()
        self._by_expiry.clear()
        self.more = 0

    def expire(self, now: datetime) -> bool:
        """Let go of what has expired; tell whether anything had."""
        gone = 0
        while gone < len(self._by_expiry) and self._by_expiry[gone][0] <= now:
            del self._rows[self._by_expiry[gone][1]]
            gone += 1
        del self._by_expiry[:gone]
        return gone > 0

    @property
    def live(self) -> int:
        """How many there are."""
        return len(self._rows) + self.more

    @property
    def soonest(self) -> TokenRow | None:
        """The next to expire."""
        return self._rows[self._by_expiry[0][1]] if self._by_expiry else None

    @property
    def rows(self) -> list[TokenRow]:
        """Those held, the soonest to expire first."""
        return [self._rows[token_id] for _, token_id in self._by_expiry]

    @property
    def short(self) -> bool:
        """Tell whether so few are held that the broker should be asked for more."""
        return self.more > 0 and len(self._rows) < _LOW


class Endings:
    """Which agent's token ends next, without a look at all of them."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, str]] = []
        self._true: dict[str, datetime] = {}
        """When each agent's soonest ends; a heap entry that differs is void."""

    def note(self, agent_id: str, soonest: TokenRow | None) -> None:
        """Take in what an agent's soonest token is now."""
        if soonest is None:
            self._true.pop(agent_id, None)
        elif self._true.get(agent_id) != soonest.expires_at:
            self._true[agent_id] = soonest.expires_at
            heappush(self._heap, (soonest.expires_at, agent_id))

    def clear(self) -> None:
        """Know of no token."""
        self._heap.clear()
        self._true.clear()

    def due(self, now: datetime) -> Iterator[str]:
        """Yield, and forget, the agents of whom a token has ended."""
        while self._heap and self._heap[0][0] <= now:
            ends, agent_id = heappop(self._heap)
            if self._true.get(agent_id) == ends:
                del self._true[agent_id]
                yield agent_id

    def before(self, moment: datetime) -> set[str]:
        """Return the agents of whom a token ends before *moment*."""
        found: set[str] = set()
        places = [0]
        while places:
            place = places.pop()
            if place < len(self._heap) and self._heap[place][0] < moment:
                ends, agent_id = self._heap[place]
                if self._true.get(agent_id) == ends:
                    found.add(agent_id)
                places += (2 * place + 1, 2 * place + 2)
        return found
