"""Follows the ledger for each sink: at least once, in order, over restarts.

A sink's place in the chain is its outbox: everything behind it is yet to be sent, so
nothing is written for an alert before it is gone. What a route holds back (a digest,
quiet hours) is noted with the place, and an alert that was given up has a row.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final, Generic, TypeVar

import msgspec

from agentvault_tui import ocsf
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.shapes import event_info
from agentvault_tui.errors import LedgerError
from agentvault_tui.ledger import EventQuery, Meta, Page
from agentvault_tui.model import Event, EventType, Outcome
from agentvault_tui.watch.config import AlertRoute
from agentvault_tui.watch.exporters import Exporter, OcsfRecord
from agentvault_tui.watch.messages import (
    AlertMessage,
    compose,
    gathered,
    is_high,
)
from agentvault_tui.watch.senders import Outlet, Sender, SinkError
from agentvault_tui.watch.signals import BURST_SPAN, Signals

log = logging.getLogger("agentvault.alerts")

GIVE_UP: Final = timedelta(hours=24)
_FIRST: Final = 1.0
_LONGEST: Final = 300.0
PAGE: Final = 100
"""Events that are read, and exported, at once."""
_SAVE_EVERY: Final = 1.0
"""Seconds between two writings of a place while there is more to send."""
_KEPT: Final = 500
"""Alerts of a digest that are known singly; the others are counted."""
_RESTS: Final = 24.0
"""Times as long as it worked a sink rests, while agents ask."""
_BUSY_SECONDS: Final = 0.5
"""For so long after the ledger grew agents count as asking: commits come in groups."""
_LOOK_COST: Final = 0.000_05
_EXPORT_COST: Final = 0.000_1
_SEND_COST: Final = 0.000_5
"""Seconds of the event loop that an event takes: looked at, exported, told."""
PLACE: Final = "alerts:"
"""Prefix of the key that a sink's place is kept under."""
_random: Final = SystemRandom().random
OutletT = TypeVar("OutletT", bound=Outlet)


class HeldAlerts(msgspec.Struct):
    """Alerts that one kind of routes holds back."""

    since: datetime
    due: datetime
    details: bool
    count: int = 0
    entries: list[tuple[str, int]] = []
    """What each is told as, and its event."""


class SinkPlace(msgspec.Struct):
    """Where a sink is in the chain."""

    seq: int
    """The last event that is done with."""
    exports: bool
    """Whether the sink carries every event."""
    told: dict[str, str] = {}
    """What is not told again until when; see `Signals`."""
    held: dict[str, HeldAlerts] = {}
    """By the timing of the routes that hold them."""


class DeadAlert(msgspec.Struct, frozen=True):
    """An alert that was given up."""

    id: str
    sink: str
    kind: str
    title: str
    entries: tuple[tuple[str, int], ...]
    details: bool
    at: datetime
    """When what it tells of happened."""
    died_at: datetime
    problem: str


class Chain:
    """Reads events for all sinks, and throttles them while agents ask."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._last: tuple[int, int, Page] | None = None
        self._head = broker.ledger.head.seq
        self._moved_at = float("-inf")

    async def after(self, seq: int) -> Sequence[Event]:
        """Return the next events after *seq*; sinks in step share one reading."""
        head = self.broker.ledger.head.seq
        if seq >= head:
            return ()
        if self._last is None or self._last[:2] != (seq, head):
            query = EventQuery(after=seq, limit=PAGE)
            self._last = seq, head, await self.broker.ledger.events(query)
        return self._last[2].events

    async def denied_before(self, seq: int) -> list[Event]:
        """Return the refusals of the last minute up to *seq*, oldest first."""
        query = EventQuery(before=seq + 1, outcome=Outcome.DENIED, limit=1000)
        found = (await self.broker.ledger.events(query)).events
        if not found:
            return []
        since = found[0].time - BURST_SPAN
        return [event for event in reversed(found) if event.time >= since]

    async def pace(self, seconds: float) -> None:
        """Leave the event loop to agents, who ask while the ledger grows.

        The work before this took about so many *seconds* of the loop.
        """
        head, now = self.broker.ledger.head.seq, asyncio.get_running_loop().time()
        if head != self._head:
            self._head, self._moved_at = head, now
        busy = now - self._moved_at < _BUSY_SECONDS
        await asyncio.sleep(seconds * _RESTS if busy else 0)


class Follower(ABC, Generic[OutletT]):
    """Works for one sink until it is stopped."""

    def __init__(
        self,
        name: str,
        chain: Chain,
        place: SinkPlace,
        *,
        routes: tuple[AlertRoute, ...],
        outlet: OutletT,
    ) -> None:
        """Begin at *place*, where it was left; *routes* name the sink."""
        self.name = name
        self.place = place
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
        self._delay = _FIRST
        self._news = asyncio.Event()
        self._saved_at = 0.0

    @property
    def behind(self) -> int:
        """How many events it has not seen."""
        return max(self.broker.ledger.head.seq - self.place.seq, 0)

    @abstractmethod
    async def step(self) -> bool:
        """Do what is next; tell whether there may be more.

        Raises:
            SinkError: the sink did not take it.
            LedgerError: the ledger cannot be read or written now.
        """

    @property
    def due(self) -> bool:
        """Whether there is something to do now, by this broker."""
        if not self.broker.works():
            return False
        now = self.broker.clock.now()
        waits = self.next_at is not None and now < self.next_at
        return not waits and (self.behind > 0 or self.has_more)

    @property
    def has_more(self) -> bool:
        """Whether there is something to do besides what is new in the chain."""
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
            self._catch_up()
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

    def _catch_up(self) -> None:
        """Go on from where another broker of the team was, which did this before."""
        if kept := self.broker.kept.get(f"{PLACE}{self.name}"):
            place = msgspec.json.decode(kept, type=SinkPlace)
            if place.seq > self.place.seq:
                self.place = place

    async def deliver(self, work: Callable[[], Awaitable[None]], cost: float) -> None:
        """Hand something to the sink, and rest as long as agents need the loop.

        For *cost* see `Chain.pace`.
        """
        if self.broker.clock.boot() - self._saved_at >= _SAVE_EVERY:
            await self.save()
        await work()
        self.sent_at = self.broker.clock.now()
        self._delay, self.next_at = _FIRST, None
        if self.problem is not None:
            self.problem = None
            self.broker.on_status()
        await self.chain.pace(cost)

    def _failed(self, error: SinkError) -> None:
        """Back off exponentially, with jitter."""
        wait = max(self._delay * (1 + _random() / 4), error.wait)
        self.next_at = self.broker.clock.now() + timedelta(seconds=wait)
        self._delay = min(self._delay * 2, _LONGEST)
        if self.problem != str(error):
            self.problem = str(error)
            log.warning("sink %s: %s", self.name, error)
            self.broker.on_status()

    async def save(self) -> None:
        """Keep the place; a crash before it repeats what was sent since the last."""
        if not self.broker.works():
            return  # another broker's place is further
        self._saved_at = self.broker.clock.boot()
        text = msgspec.json.encode(self.place).decode()
        key = f"{PLACE}{self.name}"
        if self.broker.kept.get(key) == text:
            return
        try:
            await self.broker.record(changes=[Meta(key, text)])
        except LedgerError:
            return  # what is sent stays sent; it may be repeated after a crash
        self.broker.kept[key] = text


class ExportFollower(Follower[Exporter]):
    """Exports every event to a sink for programs; nothing is ever given up.

    Parameters are told where a route says so.
    """

    async def step(self) -> bool:
        """Export the next page."""
        events = await self.chain.after(self.place.seq)
        if not events:
            return False
        details = any(route.details for route in self.routes)
        records = [
            OcsfRecord(
                event,
                ocsf.record(msgspec.to_builtins(event_info(event)), details=details),
            )
            for event in events
        ]
        cost = len(records) * _EXPORT_COST
        await self.deliver(lambda: self.outlet.export(records), cost)
        self.place.seq = events[-1].seq
        return True


class AlertFollower(Follower[Sender]):
    """Sends what the routes take to a sink for people."""

    def __init__(
        self,
        name: str,
        chain: Chain,
        place: SinkPlace,
        *,
        routes: tuple[AlertRoute, ...],
        outlet: Sender,
        bury: Callable[[DeadAlert], Awaitable[None]],
    ) -> None:
        """Begin at *place*; *bury* records an alert that is given up."""
        super().__init__(name, chain, place, routes=routes, outlet=outlet)
        self._bury = bury
        self._signals = Signals(self.broker, dict(place.told))
        self._warm = False
        self._kinds: tuple[int, list[str]] = (0, [])
        """What the latest event may be told as: it counts once, however often tried."""
        self._faults: deque[AlertMessage] = deque(maxlen=100)

    def _catch_up(self) -> None:
        before = self.place
        super()._catch_up()
        if self.place is not before:
            self._signals = Signals(self.broker, dict(self.place.told))
            self._warm = False

    def tell(self, message: AlertMessage) -> None:
        """Send what no event tells of, ahead of all others."""
        self._faults.append(message)

    @property
    def has_more(self) -> bool:
        """Whether something waits that is not in the chain, or is due now."""
        return bool(self._faults) or self._ripe() is not None

    def _ripe(self) -> str | None:
        now = self.broker.clock.now()
        found = [(one.due, key) for key, one in self.place.held.items()]
        due, key = min(found, default=(None, None))
        return key if due is not None and due <= now else None

    async def step(self) -> bool:
        """Send a fault, a digest that is due, or what the next events stand for."""
        if self._faults:
            await self._send(self._faults[0], (), details=False)
            self._faults.popleft()
            return True
        if (key := self._ripe()) is not None:
            held = self.place.held[key]
            message = await self.rebuild(held)
            if message is not None:
                entries = tuple(held.entries)
                await self._send(message, entries, details=held.details)
            del self.place.held[key]
            return True
        if not self._warm:
            self._signals.warm(await self.chain.denied_before(self.place.seq))
            self._warm = True
        events = await self.chain.after(self.place.seq)
        for event in events:
            await self._follow(event)
            self.place.seq = event.seq
            if self._signals.told != self.place.told:
                self.place.told = dict(self._signals.told)
            if self.next_at is not None or self._ripe() is not None:
                break
        await self.chain.pace(len(events) * _LOOK_COST)
        return bool(events)

    async def _follow(self, event: Event) -> None:
        """Tell of one event, or hold it back."""
        if event.type is EventType.ALERT_DEAD and event.resource == self.name:
            return
        if self._kinds[0] != event.seq:
            self._kinds = event.seq, list(self._signals.of(event))
        for route in self.routes:
            found = [kind for kind in self._kinds[1] if kind in route.events]
            if found and self._signals.takes(route, event):
                await self._tell(route, found[0], event)
                return

    async def _tell(self, route: AlertRoute, kind: str, event: Event) -> None:
        now = self.broker.clock.now()
        quiet = route.quiet_until(now) if route.quiet else None
        if (quiet or route.digest) and not is_high(self.broker, kind, event):
            key = f"{route.digest} {route.quiet} {route.details:d}"
            held = self.place.held.get(key)
            if held is None:
                due = max(now + route.gathers, quiet or now)
                held = HeldAlerts(now, due, route.details)
                self.place.held[key] = held
            held.count += 1
            if len(held.entries) < _KEPT:
                held.entries.append((kind, event.seq))
            return
        if self.is_superseded(event):
            return
        message = compose(self.broker, self.name, kind, event, details=route.details)
        await self._send(message, ((kind, event.seq),), details=route.details)

    def is_superseded(self, event: Event) -> bool:
        """Tell whether an event asks for a person who is needed no more."""
        if event.type is not EventType.STEPUP_REQUESTED:
            return False
        stepup = self.broker.stepups.find(event.detail.get("stepup_id"))
        return stepup is None or not stepup.status.open

    async def rebuild(
        self, held: HeldAlerts, *, asked: bool = False
    ) -> AlertMessage | None:
        """Return the message of alerts that were kept, or nothing if none is left.

        Superseded ones are left out, unless an operator *asked* for them.
        """
        messages = []
        for kind, seq in held.entries:
            event = await self.broker.ledger.event(seq)
            if event is not None and (asked or not self.is_superseded(event)):
                messages.append(
                    compose(self.broker, self.name, kind, event, details=held.details)
                )
        if held.count == 1:
            return messages[0] if messages else None
        count = held.count - len(held.entries) + len(messages)
        if count == 0:
            return None
        return gathered(
            self.broker,
            self.name,
            messages,
            count=count,
            since=held.since,
            first=held.entries[0][1],
        )

    async def _send(
        self,
        message: AlertMessage,
        entries: tuple[tuple[str, int], ...],
        *,
        details: bool,
    ) -> None:
        """Send a message, or give it up when it has failed for a day."""
        try:
            await self.deliver(lambda: self.outlet.send(message), _SEND_COST)
        except SinkError as error:
            now = self.broker.clock.now()
            if now - max(message.at, self.started) < GIVE_UP:
                raise
            dead = DeadAlert(
                message.id,
                self.name,
                message.kind,
                message.title,
                entries,
                details,
                message.at,
                now,
                str(error),
            )
            await self._bury(dead)
            self._failed(error)
