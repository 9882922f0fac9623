"""Sends routed alerts to a sink for people: calls first, everything else behind.

A sink has three followers with a place each. `CallsFollower` sends events that call
people by their type, and waits for nothing that agents can cause without a bound: it
looks at each event as soon as it is durable and never rests. `HighRiskFollower` does
the same for everything else of high risk, of which a policy may permit an agent much.
`AlertFollower` sends the rest at the pace that agents leave it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Literal

import msgspec

from agentvault_tui.model import Event, EventType
from agentvault_tui.watch.chain import Chain
from agentvault_tui.watch.config import AlertRoute
from agentvault_tui.watch.messages import (
    AlertMessage,
    asks_for_person,
    calls_people,
    compose,
    gathered,
    is_high,
    message_id,
)
from agentvault_tui.watch.outbox import (
    Follower,
    HeldAlerts,
    KeptPlace,
    LanePlace,
    SinkPlace,
)
from agentvault_tui.watch.senders import Sender, SinkError
from agentvault_tui.watch.signals import Signals

GIVE_UP: Final = timedelta(hours=24)
_LISTED: Final = 500
"""Alerts of a digest that are listed; the others are counted."""
_AFTER: Final = "after "
"""Begins the key of a request for a person that is held back alone."""
_LOOK_COST: Final = 0.000_05
_SEND_COST: Final = 0.000_5
"""Seconds of the event loop that an event takes: looked at, or sent."""


class DeadAlert(msgspec.Struct, frozen=True):
    """An alert that was given up."""

    id: str
    sink: str
    kind: str
    title: str
    entries: tuple[tuple[str, int], ...]
    details: bool
    at: datetime
    """The time of its event."""
    died_at: datetime
    problem: str


class AlertFollower(Follower[Sender]):
    """Sends the routed events, unless they go ahead of others."""

    def __init__(
        self,
        name: str,
        chain: Chain,
        place: KeptPlace,
        *,
        bury: Callable[[DeadAlert], Awaitable[None]],
        **more: Any,
    ) -> None:
        """See `Follower`; *bury* records an alert that is given up."""
        super().__init__(name, chain, place, **more)
        self._bury = bury
        self._signals: Signals | None = None
        self._taken_over = place.taken_over
        self._kinds: tuple[int, list[str]] = (0, [])
        """The kinds of the latest event: it counts once, however often it is tried."""

    @property
    def own(self) -> SinkPlace | LanePlace:
        """Where this follower is."""
        return self.place

    @property
    def behind(self) -> int:
        """How many events wait that it may look at: those ahead look at them first."""
        lanes = (self.place.calls, self.place.high)
        return max(min(one.seq for one in lanes if one) - self.place.seq, 0)

    def takes(self, event: Event) -> bool:
        """Check whether this follower sends an event, and none of those ahead.

        Up to `SinkPlace.again` the one for high risk may have read another risk, and
        left the event to this one. Then it may be sent twice, with the same id.
        """
        read_again = event.seq <= self.place.again
        return not calls_people(self.broker, event, risk=not read_again)

    async def step(self) -> bool:
        """Send the alerts of the next events."""
        signals = await self._signals_now()
        limit = self._limit()
        newer = await self.chain.after(self.own.seq)
        events = [event for event in newer if event.seq <= limit]
        for event in events:
            sends = await self._follow(event, signals)
            self.own.seq = event.seq
            if signals.muted_until != self.own.told:
                self.own.told = dict(signals.muted_until)
            if sends:
                await self.save_if_due()
            if self.next_at is not None or self.has_more:
                break
        await self._pace(len(events))
        return bool(events)

    def _limit(self) -> int:
        """Return the last event that may be looked at now."""
        version = self.broker.deciding.policy.version
        if version != self.place.policy:
            if self.place.policy:
                self.place.again = self.broker.ledger.head.seq
            self.place.policy = version
        return self.place.seq + self.behind

    async def _pace(self, events: int) -> None:
        await self.chain.pace(events * _LOOK_COST, self.own.seq)

    async def _signals_now(self) -> Signals:
        """Return the counts of the events before."""
        if self._taken_over != self.stored.taken_over:
            self._taken_over, self._signals = self.stored.taken_over, None
        if self._signals is None:
            signals = Signals(self.broker, dict(self.own.told))
            signals.warm(await self.chain.denied_before(self.own.seq))
            self._signals = signals
        return self._signals

    async def _follow(self, event: Event, signals: Signals) -> bool:
        """Send one event, or hold it back; return whether it was taken."""
        if event.type is EventType.ALERT_DEAD and event.resource == self.name:
            return False
        if self._kinds[0] != event.seq:
            self._kinds = event.seq, list(signals.of(event))
        if not self.takes(event):
            return False
        fit = [
            (route, kinds[0])
            for route in self.routes_at(event.seq)
            if (kinds := [kind for kind in self._kinds[1] if kind in route.events])
            and signals.takes(route, event)
        ]
        for route, kind in [one for one in fit if not one[0].after][:1]:
            await self._tell(route, kind, event)
        for route, kind in fit:
            if route.after and asks_for_person(event):
                self._wait(route, kind, event)
        return bool(fit)

    def _wait(self, route: AlertRoute, kind: str, event: Event) -> None:
        """Hold back a request for a person until it has waited for too long."""
        due = event.time + route.waits
        quiet = route.quiet_until(due) if route.quiet else None
        if quiet and not is_high(self.broker, kind, event):
            due = quiet
        held = HeldAlerts(event.time, due, route.details, 1, [(kind, event.seq)])
        request = event.detail.get("stepup_id", event.seq)
        self.place.held[f"{_AFTER}{route.after} {request}"] = held

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
            if len(held.entries) < _LISTED:
                held.entries.append((kind, event.seq))
            return
        if self.is_superseded(event):
            return
        message = compose(self.broker, self.name, kind, event, details=route.details)
        await self._send(message, ((kind, event.seq),), details=route.details)

    def is_superseded(self, event: Event) -> bool:
        """Check whether an event asks for a person who is needed no more."""
        if event.type is not EventType.STEPUP_REQUESTED:
            return False
        stepup = self.broker.stepups.find(event.detail.get("stepup_id"))
        return stepup is None or not stepup.status.open

    async def rebuild(
        self, held: HeldAlerts, *, requested: bool = False
    ) -> AlertMessage | None:
        """Return the message of stored alerts, or nothing if none is left.

        Superseded ones are left out, unless an operator *asked* for them.
        """
        messages = []
        for kind, seq in held.entries:
            event = await self.broker.ledger.event(seq)
            if event is not None and (requested or not self.is_superseded(event)):
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
            await self.deliver(self.outlet.send(message))
            await self._rest()
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

    async def _rest(self) -> None:
        """Leave the loop to agents: the alerts here call no person."""
        await self.chain.pace(_SEND_COST)


class AheadFollower(AlertFollower):
    """Sends alerts that wait for no other."""

    lane: ClassVar[Literal["calls", "high"]]
    """The member of `SinkPlace` that says where it is."""
    passed: Callable[[], None] = staticmethod(lambda: None)
    """Called when it has looked at events: then `AlertFollower` may."""

    @property
    def own(self) -> SinkPlace | LanePlace:
        """Where this follower is."""
        lane: LanePlace = getattr(self.place, self.lane)
        return lane

    @property
    def behind(self) -> int:
        """How many events it has not seen."""
        return max(self.head - self.own.seq, 0)

    async def step(self) -> bool:
        """Send the alerts of the next events, and let the others look at them."""
        more = await super().step()
        self.passed()
        return more

    def _limit(self) -> int:
        return self.head

    async def _pace(self, _: int) -> None:
        await asyncio.sleep(0)

    async def _rest(self) -> None:
        """Go on at once."""


class HighRiskFollower(AheadFollower):
    """Sends high-risk alerts whose type calls no person."""

    lane = "high"

    def takes(self, event: Event) -> bool:
        """Check whether an event is of high risk alone."""
        broker = self.broker
        return not calls_people(broker, event, risk=False) and calls_people(
            broker, event
        )


class CallsFollower(AheadFollower):
    """Sends alerts whose type calls people, and those held back until now."""

    lane = "calls"

    def __init__(self, *where: Any, **reached: Any) -> None:
        """See `AlertFollower`."""
        super().__init__(*where, **reached)
        self._faults: deque[AlertMessage] = deque(maxlen=100)

    def takes(self, event: Event) -> bool:
        """Check whether an event calls people by its type."""
        return calls_people(self.broker, event, risk=False)

    def tell(self, message: AlertMessage) -> None:
        """Send an alert that no event has, ahead of all others."""
        self._faults.append(message)

    @property
    def has_more(self) -> bool:
        """Whether something waits that is not in the chain, or is due now."""
        return bool(self._faults) or self._ripe() is not None

    def _ripe(self) -> str | None:
        now = self.broker.clock.now()
        ripe = [(one.due, key) for key, one in self.place.held.items()]
        due, key = min(ripe, default=(None, None))
        return key if due is not None and due <= now else None

    async def step(self) -> bool:
        """Send a fault, a due alert, or the alerts of the next events."""
        if self._faults:
            await self._send(self._faults[0], (), details=False)
            self._faults.popleft()
            return True
        if (key := self._ripe()) is not None:
            held = self.place.held[key]
            message = await self.rebuild(held)
            if message is not None:
                entries = tuple(held.entries)
                if key.startswith(_AFTER):  # for receivers it is no repeat
                    again = message_id(self.broker, self.name, key, entries[0][1])
                    message = replace(message, id=again)
                await self._send(message, entries, details=held.details)
            del self.place.held[key]
            return True
        return await super().step()
