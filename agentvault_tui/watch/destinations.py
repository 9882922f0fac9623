"""Works for each destination of ``alerts.toml``, and of the files that it replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.secret_uses import OpenSecret
from agentvault_tui.broker.team import while_working
from agentvault_tui.broker.team_copies import put
from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import LedgerError
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Draft, Event, EventType
from agentvault_tui.watch.alert_followers import (
    GIVE_UP,
    AlertFollower,
    CallsFollower,
    DeadAlert,
    HighRiskFollower,
)
from agentvault_tui.watch.chain import Chain
from agentvault_tui.watch.config import LOOSENED, AlertsFile, SinkTable
from agentvault_tui.watch.exporters import EXPORTERS
from agentvault_tui.watch.messages import calls_people, message_id
from agentvault_tui.watch.outbox import (
    PLACE,
    ExportFollower,
    Follower,
    KeptPlace,
    SinkPlace,
)
from agentvault_tui.watch.replaced import (
    REPLACED,
    Replaced,
    ReplacedSink,
)
from agentvault_tui.watch.senders import SENDERS

_Lane = TypeVar("_Lane", bound=AlertFollower)


class Destinations:
    """The destinations of the active file, by name, and replaced ones, by `key_of`."""

    def __init__(
        self,
        broker: Broker,
        secret: OpenSecret,
        bury: Callable[[DeadAlert], Awaitable[None]],
    ) -> None:
        """Work for none yet.

        Args:
            broker: the broker.
            secret: opens an encrypted secret by its name.
            bury: records an alert that is given up.
        """
        self.broker = broker
        self.file = AlertsFile()
        self.replaced = Replaced(broker)
        self.callers: dict[str, CallsFollower] = {}
        self._chain = Chain(broker)
        self._secret, self._bury = secret, bury
        self._followers: dict[str, Follower[Any]] = {}
        """Alerts that go ahead of others have separate places."""
        self._high: dict[str, HighRiskFollower] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}

    def __iter__(self) -> Iterator[str]:
        """Yield the key of each destination."""
        yield from self._followers

    def followers(self, key: str) -> list[Follower[Any]]:
        """Return the followers of a destination, the one that calls people first."""
        ahead = (self.callers.get(key), self._high.get(key))
        return [*(one for one in ahead if one), self._followers[key]]

    def problem_of(self, key: str) -> str | None:
        """Return why the latest try at a destination failed, or the next will."""
        tried = (one.problem for one in self.followers(key) if one.problem)
        # A secret that is missing is known before the first alert needs it.
        return next(tried, None) or self._followers[key].outlet.secret_problem()

    def committed(self, events: Sequence[Event], *, wake: bool) -> None:
        """Take events that have just become durable; *wake* whom they concern."""
        if self.replaced.is_starting and any(map(self._is_start, events)):
            self.replaced.is_starting = False
        if self._followers:
            self._chain.take(events)
        if wake and any(calls_people(self.broker, one) for one in events):
            for ahead in (*self.callers.values(), *self._high.values()):
                ahead.wake()

    def _is_start(self, event: Event) -> bool:
        """Check whether an event records that this process started."""
        brokers, detail = self.broker.team.brokers, event.detail
        own = detail.get("pid") == os.getpid()
        own = own and detail.get("broker", "") == brokers.id
        return own and event.type is EventType.BROKER_STARTED

    def wake(self) -> None:
        """Wake each follower that has something to do."""
        for key in self._followers:
            for follower in self.followers(key):
                follower.wake()

    async def follow(self, file: AlertsFile) -> None:
        """Work for exactly the destinations of *file*, and for replaced ones."""
        self.file = file
        self.replaced.load()
        for key, follower in list(self._followers.items()):
            same = file.sinks.get(key) == follower.outlet.sink and (
                file.routes_to(key) == follower.routes
            )
            if not same and key not in self.replaced.rows:
                await self._stop(key)
        await self._follow_replaced()
        for name, sink in file.sinks.items():
            if name not in self._followers:
                await self._begin(name, name, sink)
        await self._forget_places()

    async def _forget_places(self) -> None:
        """Forget places of destinations that are gone, if this broker works for them.

        Alerts of a time without the sink are old news; exports go on where they were.
        """
        meta = self.broker.recording.meta
        works = self.broker.team.brokers.works()
        for key in [key for key in meta if works and key.startswith(PLACE)]:
            name = key.removeprefix(PLACE)
            exports = msgspec.json.decode(meta[key], type=SinkPlace).exports
            left = name not in self.file.sinks and name not in self.replaced.rows
            if left and ("!" in name or not exports):
                await self._keep(key, None)

    async def _follow_replaced(self) -> None:
        """Work for the replaced destinations that the active file does not have."""
        works, meta = self.broker.team.brokers.works(), self.broker.recording.meta
        for key, row in self.replaced.rows.items():
            if not works or key in self._followers:
                continue
            if f"{PLACE}{key}" not in meta:
                same = self.file.sinks.get(row.name) == row.sink
                if same:  # the follower of the active file sends its events
                    continue
                # From where the destination of that name was, the same one until now.
                if place := meta.get(f"{PLACE}{row.name}"):
                    await self._keep(f"{PLACE}{key}", place)
            await self._begin(key, row.name, row.sink, row.head)

    async def settle(self) -> None:
        """End the work for replaced destinations that have all their events."""
        if not self.replaced.rows:
            return
        self.replaced.load()
        if not self.broker.team.brokers.works():
            for key in self.replaced.rows.keys() & self._followers.keys():
                await self._stop(key)
            return
        await self._follow_replaced()
        for key, row in list(self.replaced.rows.items()):
            if row.until is not None:
                await self._end_if_done(key, row)
            elif self.replaced.may_close(row):
                head = self.broker.ledger.head.seq
                closed = msgspec.structs.replace(row, until=head)
                self.replaced.rows[key] = closed
                await self._keep(REPLACED + key, closed.encode())

    async def _end_if_done(self, key: str, row: ReplacedSink) -> None:
        """End the work by a row once its last event is sent, or after a day."""
        separate = key in self._followers
        place = self._followers[key if separate else row.name].place
        reached, now = min(part.seq for part in place.parts), self.broker.clock.now()
        done = reached >= (row.until or 0)
        if separate and done:
            for held in place.held.values():
                held.due = min(held.due, now)  # it would wait for its digest
            done = not place.held
        if not done and now - row.at < GIVE_UP:
            return
        drafts = [] if done or not separate else [dead_draft(self._late(key, row))]
        if separate:
            await self._stop(key)
        stored = [f"{one}{key}" for one in (REPLACED, PLACE)]
        try:
            await self.broker.record(*drafts, changes=[Meta(n, None) for n in stored])
        except LedgerError:
            return  # a later look tries again
        for name in stored:
            self.broker.recording.meta.pop(name, None)
        self.replaced.load()
        await self._forget_places()

    def _late(self, key: str, row: ReplacedSink) -> DeadAlert:
        """Return all that a replaced destination did not take, as one alert."""
        return DeadAlert(
            id=message_id(self.broker, row.name, REPLACED, row.until),
            sink=row.name,
            kind=LOOSENED,
            title="",
            entries=((LOOSENED, row.until or 0),),
            details=False,
            at=row.at,
            died_at=self.broker.clock.now(),
            problem=self.problem_of(key) or "it takes events too slowly",
        )

    async def _bury_replaced(self, dead: DeadAlert) -> None:
        """Record a dead alert only: it cannot be sent again without its destination."""
        await self.broker.record(dead_draft(dead))

    async def _begin(
        self, key: str, name: str, sink: SinkTable, head: int | None = None
    ) -> None:
        """Work for a destination from its stored place on.

        Args:
            key: its name, or `key_of` a replaced destination.
            name: its name, for receivers.
            sink: how it is reached.
            head: of a replaced one, the last event before its edit; None: it is active.
        """
        place = await self._place(key, sink, head)
        where = name, self._chain, KeptPlace(self.broker, key, place)
        more: dict[str, Any] = {"earlier": self.replaced.routes_to(name, sink)}
        if head is not None:
            more["last"] = lambda: self.replaced.until(key)
        more["routes"] = self.file.routes_to(name) if head is None else ()
        if sink.exports:
            outlet = EXPORTERS[sink.kind](*self.reached(sink))
            self._followers[key] = ExportFollower(*where, outlet=outlet, **more)
        else:
            # Three, each with a connection of its own: none waits for another.
            def made(kind: type[_Lane]) -> _Lane:
                outlet = SENDERS[sink.kind](*self.reached(sink))
                bury = self._bury if head is None else self._bury_replaced
                return kind(*where, outlet=outlet, bury=bury, **more)

            self.callers[key] = made(CallsFollower)
            self._high[key] = made(HighRiskFollower)
            self._followers[key] = follower = made(AlertFollower)
            self.callers[key].passed = self._high[key].passed = follower.wake
        # What is under way ends with the lease, before another broker may begin it.
        self._tasks[key] = [
            asyncio.create_task(
                while_working(self.broker.team.brokers.works, one.run),
                name=f"sink {name}",
            )
            for one in self.followers(key)
        ]

    async def _place(self, key: str, sink: SinkTable, head: int | None) -> SinkPlace:
        """Return the place of a destination; store that of a new one."""
        stored_at, last = f"{PLACE}{key}", self.broker.ledger.head.seq
        if stored := self.broker.recording.meta.get(stored_at):
            place = msgspec.json.decode(stored, type=SinkPlace)
        if not stored or place.exports != sink.exports:
            # The event of an edit goes to the destinations that it adds, too.
            rows = self.replaced.rows.values()
            edits = [one.head for one in rows if one.until is None]
            first = 0 if sink.exports else min([last, *edits])
            place = SinkPlace(first if head is None else head, sink.exports)
            await self._keep(stored_at, msgspec.json.encode(place).decode())
        place.seq = min(place.seq, last)
        for row in self.replaced.rows.values() if self.broker.team.files else ():
            # The event of another broker's edit may have been passed before that was
            # known here: the destinations of this name look at it again.
            if row.until is None and row.name == key.partition("!")[0]:
                for part in place.parts:
                    part.seq = min(part.seq, row.head)
        return place

    def reached(self, sink: SinkTable) -> tuple[SinkTable, OpenSecret, Clock]:
        """Return the arguments of its sender or exporter."""
        return sink, self._secret, self.broker.clock

    async def _stop(self, key: str) -> None:
        tasks = self._tasks.pop(key)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for follower in self.followers(key):
            await follower.save()
            await follower.outlet.aclose()
        del self._followers[key]
        for ahead in (self.callers, self._high):
            ahead.pop(key, None)

    async def _keep(self, key: str, text: str | None) -> None:
        """Store a small value, or forget it; if that fails, a later look does."""
        put(self.broker.recording.meta, key, text)
        with contextlib.suppress(LedgerError):
            await self.broker.record(changes=[Meta(key, text)])

    async def aclose(self) -> None:
        """Stop all work, and store its place."""
        for key in list(self._tasks):
            await self._stop(key)


def dead_draft(dead: DeadAlert) -> Draft:
    """Return the event that an alert is given up."""
    return Draft(
        EventType.ALERT_DEAD,
        SYSTEM,
        resource=dead.sink,
        reason=dead.problem,
        detail={
            "alert": dead.id,
            "kind": dead.kind,
            "since": iso(dead.at),
            "events": [seq for _, seq in dead.entries[:20]],
        },
    )
