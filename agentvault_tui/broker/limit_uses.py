"""What the rolling windows of limits hold: counted from the chain, reserved at once.

A use is reserved in the turn that decides about it, so that any number of requests at
once pass no limit, and counted once its event is durable. The chain alone says what was
counted: a start reads it back, so that no restart and no change of the clock forgets.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.ledger import Ledger
from agentvault_tui.model import Draft, Event
from agentvault_tui.policy import Inputs, Limit, LimitSet
from agentvault_tui.policy.facts import LARGEST
from agentvault_tui.policy.resources import reads_like

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_COUNTED_A_TURN: Final = 200
"""Recorded uses that are counted in a turn of the event loop, about a millisecond."""
_SPENT: Final = 1024
"""Entries that have left a window before their memory is given back."""

_Kind = tuple[str, str | None]
"""A limit's id, and its currency."""


class WindowStanding(NamedTuple):
    """One window that holds something."""

    limit: Limit
    key: str
    """The agent's id, the fold of a resource or nothing, as the limit counts."""
    used: int
    left: int
    frees_at: datetime | None
    """When something of it leaves the window next."""


_Windows = defaultdict[_Kind, dict[str, "UseWindow"]]


class LimitUses:
    """The windows of the limits in force."""

    def __init__(self, clock: Clock, ledger: Ledger) -> None:
        self._clock = clock
        self._ledger = ledger
        self._limits = LimitSet()
        self._windows: _Windows = defaultdict(dict)
        """By kind, and by whose or of what they are."""
        self._held: dict[str, _Held] = {}
        """What is reserved, by the decision's id."""
        self._latest = 0
        """The latest time that was seen, in microseconds: windows end there."""
        self._loading: asyncio.Task[None] | None = None
        self._meanwhile: list[tuple[str, _Held]] = []
        """What was counted while it is loading."""

    def now(self) -> int:
        """Return the time that windows end at; it never goes back."""
        self._latest = max(self._latest, micros(self._clock.now()))
        return self._latest

    def define(self, limits: LimitSet) -> None:
        """Count by *limits* from now on; what they count anew is read from the chain.

        Until it is, `ready` waits.
        """
        if limits.limits == self._limits.limits:
            self._limits = limits
            return
        self._limits = limits
        if self._loading is not None:
            self._loading.cancel()
        self._loading = asyncio.get_running_loop().create_task(self._load())

    async def ready(self) -> None:
        """Wait until the windows hold what the chain has.

        Raises:
            LedgerError: it cannot be read.
        """
        while self._loading is not None:
            await asyncio.shield(self._loading)

    async def _load(self) -> None:
        """Fill the windows with what the chain counted, and what is reserved."""
        limits, longest = self._limits.limits, timedelta()
        longest = max((one.within for one in limits), default=longest)
        seen: set[str | None] = set()
        filled: _Windows = defaultdict(dict)
        async for latest, uses, untold in self._ledger.counted(longest):
            if latest is not None:
                self._latest = max(self._latest, micros(latest))
            for number, use in enumerate(uses):
                if number % _COUNTED_A_TURN == 0:
                    await asyncio.sleep(0)  # a revocation waits for no history
                if untold:  # all of a million would be looked through by each gc
                    seen.add(use.decision_id)
                self._count(use.agent_id, use.counted, filled)
        # One turn from here on: what was counted meanwhile counts once.
        self._windows = filled
        for decision_id, held in self._meanwhile:
            if decision_id not in seen:
                self._count(held.agent_id, held.counted)
        self._meanwhile.clear()
        for decision_id, held in list(self._held.items()):
            del self._held[decision_id]
            if decision_id not in seen:
                self._hold(decision_id, held)
        self._loading = None

    # One request

    def standings(
        self, limits: Iterable[Limit], inputs: Inputs
    ) -> dict[str, tuple[int, int]]:
        """Return what windows hold and have left before a request, by name in Cedar.

        Of several windows that a limit counts it in, the one with the least left.
        """
        now, found = self.now(), {}
        for limit in limits:
            windows = self._windows[limit.id, limit.currency]
            count = max(
                windows[key].count(now, limit.micros) if key in windows else 0
                for key in limit.keys_of(inputs)
            )
            found[limit.attribute] = min(count, LARGEST), max(0, limit.most - count)
        return found

    def retry_after(self, inputs: Inputs) -> int | None:
        """Return in how many whole seconds a request would fit in all of its limits.

        Returns:
            at least 1, rounded up; None when it never would.
        """
        now, longest = self.now(), 0
        for limit in self._limits.applying(inputs):
            units = limit.units(inputs)
            if units is None or units > limit.most:
                return None
            windows = self._windows[limit.id, limit.currency]
            for key in limit.keys_of(inputs):
                if window := windows.get(key):
                    longest = max(longest, window.fits_in(units, now, limit))
        return max(1, math.ceil(longest / 1_000_000))

    def reserve(
        self, decision_id: str, agent_id: str, counted: Mapping[str, Any]
    ) -> None:
        """Reserve what an answer will count, in the same turn as that is decided.

        Args:
            decision_id: of the decision whose event will hold *counted*.
            agent_id: who uses it.
            counted: as `LimitSet.counted` returns it.
        """
        self.release(decision_id)
        self._hold(decision_id, _Held(agent_id, counted))

    def release(self, decision_id: str | None) -> None:
        """Give back what is reserved for a decision, unless its record is under way."""
        held = self._held.get(decision_id or "")
        if held is not None and not held.submitted:
            del self._held[decision_id or ""]
            held.give_back()

    def submitted(self, draft: Draft, done: asyncio.Future[Any]) -> None:
        """Count what *draft* says once *done*, its commit, is durable.

        One that was cancelled goes on without its caller: it counts.
        """
        decision_id = draft.decision_id or ""
        held = self._held.get(decision_id)
        if held is None:
            return
        self._held[decision_id] = held = held._replace(submitted=True)

        def settle(future: asyncio.Future[Any]) -> None:
            if self._held.get(decision_id) is not held:
                return
            del self._held[decision_id]
            held.give_back()
            if future.cancelled() or future.exception() is None:
                self._count(held.agent_id, held.counted)
                if self._loading is not None:
                    self._meanwhile.append((decision_id, held))

        done.add_done_callback(settle)

    def found(self, recorded: Draft | Event) -> None:
        """Count what is durable and was not reserved here.

        It is of a commit that was reported as failed, or of another broker.
        """
        if recorded.agent_id is None or "counted" not in recorded.detail:
            return
        held = _Held(recorded.agent_id, recorded.detail["counted"])
        self._count(*held[:2])
        if self._loading is not None:
            self._meanwhile.append((recorded.decision_id or "", held))

    def stamp(self, counted: Mapping[str, Any]) -> dict[str, Any]:
        """Return *counted* with the time that it counts from."""
        at = _EPOCH + timedelta(microseconds=self.now())
        return {"at": iso(at), **counted}

    # All of them

    def all(self) -> Iterator[WindowStanding]:
        """Yield what is in use of each limit, in the order of the file."""
        now = self.now()
        for limit in self._limits.limits:
            for key, window in self._windows[limit.id, limit.currency].items():
                if count := window.count(now, limit.micros):
                    left, frees = max(0, limit.most - count), window.frees_at(limit)
                    yield WindowStanding(limit, key, count, left, frees)

    def sweep(self) -> None:
        """Forget windows that hold nothing any more."""
        now, known = self.now(), self._limits.by_id
        for kind, windows in list(self._windows.items()):
            limit = known.get(kind[0])
            for key, window in list(windows.items()):
                if limit is None or not window.count(now, limit.micros):
                    del windows[key]

    def _each(
        self, agent_id: str, counted: Mapping[str, Any], into: _Windows
    ) -> Iterator[tuple[int, dict[str, UseWindow], str]]:
        """Yield the units of each active limit, its windows, and each one's key."""
        for other in counted.get("others", ()):  # further resources of the same call
            yield from self._each(agent_id, other, into)
        known, resource = self._limits.by_id, counted.get("resource")
        fold = reads_like(resource) if resource else None  # once, the literal was there
        for limit_id, used in counted.get("limits", {}).items():
            limit = known.get(limit_id)
            if limit is None or used.get("currency") != limit.currency:
                continue
            units = used["count" if limit.currency is None else "amount"]
            windows = into[limit_id, limit.currency]
            for key in limit.keys(used.get("agents", (agent_id,)), fold):
                yield units, windows, key

    def _hold(self, decision_id: str, held: _Held) -> None:
        entries = []
        for units, windows, key in self._each(
            held.agent_id, held.counted, self._windows
        ):
            window = windows.get(key)
            if window is None:
                window = windows[key] = UseWindow()
            window.held += units
            entries.append((window, units))
        self._held[decision_id] = held._replace(entries=entries)

    def _count(
        self, agent_id: str, counted: Mapping[str, Any], into: _Windows | None = None
    ) -> None:
        """Count a use in the windows in force, or in others that are being filled."""
        at = micros(parse_iso(counted["at"]))
        self._latest = max(self._latest, at)
        into = self._windows if into is None else into
        for units, windows, key in self._each(agent_id, counted, into):
            windows.setdefault(key, UseWindow()).add(at, units)


class _Held(NamedTuple):
    """Units that are reserved."""

    agent_id: str
    counted: Mapping[str, Any]
    submitted: bool = False
    """Whether the event that counts them is on its way to the disk."""
    entries: list[tuple[UseWindow, int]] = []  # noqa: RUF012 - replaced, never filled
    """The windows, with the units of each."""

    def give_back(self) -> None:
        """Give the reserved units back."""
        for window, units in self.entries:
            window.held -= units


class UseWindow:
    """The uses of one limit by one key: times in microseconds, and units of each."""

    __slots__ = ("_start", "_times", "_total", "_units", "held")

    def __init__(self) -> None:
        self._times = array("q")
        self._units = array("q")
        self._start = 0
        """The first use that has not left the window."""
        self._total = 0
        self.held = 0
        """Units that are reserved and not counted yet."""

    def add(self, at: int, units: int) -> None:
        """Count *units* at a time; commits may end in another order than they began."""
        place = bisect_right(self._times, at, self._start)
        self._times.insert(place, at)
        self._units.insert(place, units)
        self._total += units

    def count(self, now: int, within: int) -> int:
        """Return what the window holds at *now*."""
        end, times, start = now - within, self._times, self._start
        if start < len(times) and times[start] <= end:
            self._forget(end)
        return self._total + self.held

    def _forget(self, end: int) -> None:
        """Drop the uses up to *end* from the total."""
        times, start = self._times, self._start
        while start < len(times) and times[start] <= end:
            self._total -= self._units[start]
            start += 1
        if start > _SPENT and start * 2 > len(times):
            del times[:start], self._units[:start]
            start = 0
        self._start = start

    def fits_in(self, units: int, now: int, limit: Limit) -> int:
        """Return in how many microseconds *units* fit."""
        excess = self.count(now, limit.micros) + units - limit.most
        place, within = self._start, limit.micros
        while excess > 0 and place < len(self._times):
            excess -= self._units[place]
            place += 1
        if excess > 0:
            return within  # what is reserved now leaves it then
        return self._times[place - 1] + within - now if place > self._start else 0

    def frees_at(self, limit: Limit) -> datetime | None:
        """Return when something leaves the window next."""
        if self._start == len(self._times):
            return None
        return _EPOCH + timedelta(microseconds=self._times[self._start]) + limit.within


def micros(moment: datetime) -> int:
    """Return a time in microseconds, as `UseWindow` has it."""
    return (moment - _EPOCH) // _MICROSECOND
