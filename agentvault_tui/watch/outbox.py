"""Follows the ledger for each sink: at least once, in order, over restarts.

A sink's place in the chain is its outbox: everything behind it is yet to be sent, so
nothing is written for an alert before it is gone. A route's held alerts (a digest,
quiet hours) are noted with the place, and an alert that was given up has a row. Alerts
have three places: calls to people go ahead of all others (`alert_followers`).
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final, Generic, TypeVar

import msgspec

from agentvault_tui import ocsf
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.shapes import event_info
from agentvault_tui.errors import LedgerError
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Draft, Event, EventType
from agentvault_tui.watch.chain import PAGE, Chain
from agentvault_tui.watch.config import AlertRoute
from agentvault_tui.watch.exporters import Exporter, OcsfRecord
from agentvault_tui.watch.senders import Outlet, SinkError

log = logging.getLogger("agentvault.alerts")

_FIRST: Final = 1.0
_LONGEST: Final = 300.0
_PAGE_BYTES: Final = 511 * 1024
"""Of the events that are exported at once, so that the whole stays below 512 KiB; a
larger event goes alone."""
_ENCODED_A_TURN: Final = 20
"""Events that are encoded in one turn of the event loop, about two milliseconds."""
_SAVE_EVERY: Final = 1.0
"""Seconds between two writings of a place while there is more to send."""
_EXPORT_COST: Final = 0.000_1
"""Seconds of the event loop that the export of an event takes."""
PLACE: Final = "alerts:"
"""Prefix of the key of a sink's stored place."""
_random: Final = SystemRandom().random
OutletT = TypeVar("OutletT", bound=Outlet)


class HeldAlerts(msgspec.Struct):
    """Alerts that one kind of routes holds back."""

    since: datetime
    due: datetime
    details: bool
    count: int = 0
    entries: list[tuple[str, int]] = []
    """The kind of each message, and its event."""


class LanePlace(msgspec.Struct):
    """Where alerts are that wait for no others."""

    seq: int
    told: dict[str, str] = {}


class SinkPlace(msgspec.Struct):
    """Where a sink is in the chain."""

    seq: int
    """The last event that is done with."""
    exports: bool
    """Whether the sink carries every event."""
    told: dict[str, str] = {}
    """The ends of pauses between equal messages; see `Signals`."""
    held: dict[str, HeldAlerts] = {}
    """By the timing of the routes that hold them."""
    calls: LanePlace | None = None
    """Of alerts whose type calls people; None if an older version wrote it."""
    high: LanePlace | None = None
    """Of everything else of high risk."""
    policy: str = ""
    """The version of the policy by which events were looked at last."""
    again: int = 0
    """Up to this event the risk was read by another policy: it decides nothing."""

    @property
    def parts(self) -> tuple[SinkPlace | LanePlace, ...]:
        """Return the place of each follower."""
        return self, *(lane for lane in (self.calls, self.high) if lane)


class KeptPlace:
    """Where a sink is, in memory and in the ledger; its followers share it."""

    def __init__(self, broker: Broker, sink: str, place: SinkPlace) -> None:
        """Begin at *place*."""
        self.now = _filled(place)
        self.taken_over = 0
        """How often another broker of the team was further."""
        self._broker = broker
        self._key = f"{PLACE}{sink}"

    def catch_up(self) -> None:
        """Go on from where another broker of the team was, which did this before."""
        if text := self._broker.recording.meta.get(self._key):
            place = msgspec.json.decode(text, type=SinkPlace)
            if _reached(place) > _reached(self.now):
                self.now = _filled(place)
                self.taken_over += 1

    async def save(self) -> None:
        """Store the place; a crash before it repeats the alerts since the last."""
        if not self._broker.team.brokers.works():
            return  # another broker's place is further
        text = msgspec.json.encode(self.now).decode()
        if self._broker.recording.meta.get(self._key) == text:
            return
        try:
            await self._broker.record(changes=[Meta(self._key, text)])
        except LedgerError:
            return  # what is sent stays sent; it may be repeated after a crash
        self._broker.recording.meta[self._key] = text


def _filled(place: SinkPlace) -> SinkPlace:
    """Return the place of an older version, which had one for all, with those ahead."""
    if not place.exports:
        place.calls = place.calls or LanePlace(place.seq, dict(place.told))
        place.high = place.high or LanePlace(place.seq, dict(place.told))
    return place


def _reached(place: SinkPlace) -> int:
    """Return a number that grows with a place, however its followers move."""
    return sum(part.seq for part in place.parts)


class Follower(ABC, Generic[OutletT]):
    """Works for one sink until it is stopped."""

    def __init__(
        self,
        name: str,
        chain: Chain,
        place: KeptPlace,
        *,
        routes: tuple[AlertRoute, ...],
        outlet: OutletT,
        earlier: Callable[[int], tuple[AlertRoute, ...]] = lambda _: (),
        last: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Begin at a place of the chain.

        Args:
            name: the destination's.
            chain: the chain.
            place: the stored place.
            routes: that name the destination.
            outlet: the destination, as it is reached.
            earlier: returns further routes for an event, by its number, that go first.
            last: returns the last event; None: there is none.
        """
        self.name = name
        self.stored = place
        self.routes = routes
        self.problem: str | None = None
        """Why the last try failed, if it did."""
        self.next_at: datetime | None = None
        """Not before when it is tried again."""
        self.sent_at: datetime | None = None
        self.outlet = outlet
        self.chain = chain
        self.broker = chain.broker
        self.started = self.broker.clock.now()
        self._earlier, self._last = earlier, last
        self._delay = _FIRST
        self._news = asyncio.Event()
        self._saved_at = 0.0

    @property
    def place(self) -> SinkPlace:
        """Where the sink is."""
        return self.stored.now

    @property
    def head(self) -> int:
        """The last event for this destination that is recorded."""
        head, last = self.broker.ledger.head.seq, self._last()
        return head if last is None else min(head, last)

    def routes_at(self, seq: int) -> tuple[AlertRoute, ...]:
        """Return the routes for an event, in their order."""
        return (*self._earlier(seq), *self.routes)

    @property
    def behind(self) -> int:
        """How many events wait that it may look at."""
        return max(self.head - self.place.seq, 0)

    @abstractmethod
    async def step(self) -> bool:
        """Do the next step; return whether there may be more.

        Raises:
            SinkError: the sink did not take it.
            LedgerError: the ledger cannot be read or written now.
        """

    @property
    def due(self) -> bool:
        """Whether there is something to do now, by this broker."""
        if not self.broker.team.brokers.works():
            return False
        now = self.broker.clock.now()
        waits = self.next_at is not None and now < self.next_at
        return not waits and (self.behind > 0 or self.has_more)

    @property
    def has_more(self) -> bool:
        """Whether there is work besides new events in the chain."""
        return False

    def wake(self) -> None:
        """Wake it, if there is something to do."""
        if self.due:
            self._news.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            self.stored.catch_up()
            try:
                while self.due and await self.step():
                    pass
                await self.save()
            except SinkError as error:
                self._failed(error)
                await self.save()
            except LedgerError as error:
                log.warning("sink %s waits for the ledger: %s", self.name, error.what)
            except Exception:
                log.exception("sink %s failed", self.name)
                self._failed(SinkError("the broker failed: see its log"))

    async def deliver(self, work: Awaitable[None]) -> None:
        """Hand something to the sink, and note that it took it.

        Raises:
            SinkError: it did not.
        """
        await work
        self.sent_at = self.broker.clock.now()
        self._delay, self.next_at = _FIRST, None
        if self.problem is not None:
            self.problem = None
            self.broker.health.changed()

    def _failed(self, error: SinkError) -> None:
        """Back off exponentially, with jitter."""
        wait = max(self._delay * (1 + _random() / 4), error.wait)
        self.next_at = self.broker.clock.now() + timedelta(seconds=wait)
        self._delay = min(self._delay * 2, _LONGEST)
        if self.problem != str(error):
            self.problem = str(error)
            log.warning("sink %s: %s", self.name, error)
            self.broker.health.changed()

    async def save(self) -> None:
        """Store the place; see `KeptPlace.save`."""
        self._saved_at = self.broker.clock.boot()
        await self.stored.save()

    async def save_if_due(self) -> None:
        """Store the place, if that was a while ago."""
        if self.broker.clock.boot() - self._saved_at >= _SAVE_EVERY:
            await self.save()


class ExportFollower(Follower[Exporter]):
    """Exports every event to a sink for programs; none is given up for a fault.

    A page that the sink refuses for its content is halved, down to one event. That one
    is skipped, and an event says so. Parameters leave where a route says so.
    """

    _most = PAGE
    """Events in the next page."""
    _skipped = 0
    """Events that were skipped since the sink took any."""

    async def step(self) -> bool:
        """Export the next page."""
        newer = (await self.chain.after(self.place.seq))[: self._most]
        events = [event for event in newer if event.seq <= self.head]
        if not events:
            return False
        page = await self._encoded(events)
        try:
            await self.deliver(self.outlet.export(page))
        except SinkError as error:
            if not error.content:
                raise
            if len(page) == 1:
                await self._skip(events[0], page[0], error)
            self._most = max(len(page) // 2, 1)
            return self.next_at is None
        self._most, self._skipped = min(self._most * 2, PAGE), 0
        self.place.seq = events[len(page) - 1].seq
        await self.save_if_due()
        await self.chain.pace(len(page) * _EXPORT_COST, self.place.seq)
        return True

    async def _encoded(self, events: Sequence[Event]) -> list[bytes]:
        """Return the exported form of the first of *events*, up to a page."""
        routes = self.routes_at(events[0].seq)
        details = any(route.details for route in routes)
        page: list[bytes] = []
        room = _PAGE_BYTES
        for number, event in enumerate(events, start=1):
            info = msgspec.to_builtins(event_info(event))
            record = OcsfRecord(event, ocsf.record(info, details=details))
            encoded = self.outlet.encode(record)
            room -= len(encoded) + 1
            if page and room < 0:
                break
            page.append(encoded)
            if number % _ENCODED_A_TURN == 0:
                await asyncio.sleep(0)
        return page

    async def _skip(self, event: Event, encoded: bytes, error: SinkError) -> None:
        """Go on behind an event that the sink refuses even alone.

        A sink may refuse all there is, so that one event after another is skipped with
        growing pauses. The event that says so is itself skipped without a word.

        Raises:
            LedgerError: that cannot be recorded now.
        """
        log.warning("sink %s does not take event %d: %s", self.name, event.seq, error)
        if event.type is not EventType.EXPORT_SKIPPED or event.resource != self.name:
            detail = {"event": event.seq, "bytes": len(encoded)}
            draft = Draft(
                EventType.EXPORT_SKIPPED,
                SYSTEM,
                resource=self.name,
                reason=str(error),
                detail=detail,
            )
            await self.broker.record(draft)
        self.place.seq = event.seq
        if self._skipped:
            self._failed(error)
        self._skipped += 1
