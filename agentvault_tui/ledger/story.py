"""One decision's story: the events that share its ids, found by the text index.

The index only proposes: an agent may write any id it likes into its own words, so an
event belongs to a story by the members that the broker fills in, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.ledger.records import EventQuery, Page, Story
from agentvault_tui.model import Event, EventType

Read = Callable[[EventQuery], Awaitable[Page]]
_MOST: Final = 200
"""Events of one story; an agent may repeat what waits as often as it likes."""
_MOST_IDS: Final = 8
_PAGE: Final = 100
_PATIENCE: Final = 0.5
"""Seconds to look for one story, should someone have scattered its ids about."""


async def read_story(read: Read, anchor: Event, clock: Clock) -> Story:
    """Return what shares a decision, step-up or token with *anchor*, oldest first."""
    search = _Search(read, anchor, clock)
    wanted, asked = _ids(anchor), set[str]()
    while missing := sorted(wanted - asked):
        if len(asked) == _MOST_IDS:
            search.complete = False
            break
        asked.add(missing[0])
        await search.add(missing[0])
        for event in search.found.values():
            wanted |= _links(event)
    found = search.found
    return Story(tuple(found[seq] for seq in sorted(found)), search.complete)


class _Search:
    """Collects events by their ids, outwards from one of them."""

    def __init__(self, read: Read, anchor: Event, clock: Clock) -> None:
        self.found = {anchor.seq: anchor}
        self.complete = True
        self._read = read
        self._seq = anchor.seq
        self._clock = clock
        self._deadline = clock.boot() + _PATIENCE

    async def add(self, name: str) -> None:
        """Add the events that carry that id."""
        for query in (EventQuery(after=self._seq), EventQuery(before=self._seq)):
            await self._gather(replace(query, q=name, limit=_PAGE), name)

    async def _gather(self, query: EventQuery, name: str) -> None:
        while True:
            page = await self._read(query)
            for event in page.events:
                if _carries(event, name):
                    self.found[event.seq] = event
            if page.next is None:
                return
            if len(self.found) >= _MOST or self._clock.boot() >= self._deadline:
                self.complete = False
                return
            if query.after is not None:
                query = replace(query, after=page.next)
            else:
                query = replace(query, before=page.next)


def _carries(event: Event, name: str) -> bool:
    cut = event.detail.get("tokens")
    return name in _ids(event) or (
        # What a revocation cut is told as a list; it leads to no further event.
        event.type is EventType.AGENT_REVOKED and isinstance(cut, list) and name in cut
    )


def _links(event: Event) -> set[str]:
    """Return the ids that lead from an event of the story to others.

    A request that was merely repeated has a decision of its own, and no more events.
    """
    ids = _ids(event)
    if event.type is EventType.TOKEN_DECISION and event.decision_id:
        ids.discard(event.decision_id)
    return ids


def _ids(event: Event) -> set[str]:
    members: tuple[Any, ...] = (
        event.decision_id,
        event.detail.get("stepup_id"),
        event.detail.get("token_id"),
    )
    return {each for each in members if isinstance(each, str) and each}
