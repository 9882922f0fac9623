"""Rolling windows of limits: read from the store as they are needed, reserved at once.

A use is reserved in the turn that decides about it, so that any number of requests at
once pass no limit, and counted when its event is durable. The store has all counted
uses (`ledger.uses`); memory has the totals of the windows that requests touch and the
oldest uses in them, and the reserved ones.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import Clock, iso
from agentvault_tui.ledger import Ledger
from agentvault_tui.ledger.uses import (
    MODULUS,
    WindowKey,
    counted_at,
    micros,
    moment,
    read_windows,
)
from agentvault_tui.model import Draft, Event
from agentvault_tui.policy import Inputs, Limit, LimitSet
from agentvault_tui.policy.facts import LARGEST

_READ: Final = 64
"""Uses that are read at once."""
_IN_MEMORY: Final = 4096
"""Uses of a window in memory, and windows that a sweep leaves there."""


class WindowStanding(NamedTuple):
    """One window that holds something."""

    limit: Limit
    key: str
    """The agent's id, the fold of the resource, or empty; see `Limit.keys`."""
    used: int
    left: int
    frees_at: datetime | None
    """When something of it leaves the window next."""


class LimitUses:
    """The windows of the active limits."""

    def __init__(self, clock: Clock, ledger: Ledger) -> None:
        self._clock = clock
        self._ledger = ledger
        self._limits = LimitSet()
        self._windows: dict[WindowKey, UseWindow] = {}
        """Those that requests touched since the last sweep."""
        self._held: dict[str, _Held] = {}
        """The reserved uses, by the decision's id."""
        self._reserved: dict[WindowKey, int] = {}
        """The same by window."""
        self._latest = ledger.uses.latest()
        """The latest time that was seen, in microseconds: windows end there."""
        ledger.listeners.event.append(self.count)

    def now(self) -> int:
        """Return the time that windows end at; it never goes back."""
        self._latest = max(self._latest, micros(self._clock.now()))
        return self._latest

    def define(self, limits: LimitSet) -> None:
        """Use *limits* from now on: the store has counted for any of them."""
        before, self._limits = self._limits.limits, limits
        if limits.limits == before:
            return
        self._windows.clear()
        self._reserved.clear()
        held, self._held = self._held, {}
        for decision_id, one in held.items():
            self.reserve(decision_id, one.agent_id, one.counted)
            again = self._held[decision_id]
            self._held[decision_id] = again._replace(submitted=one.submitted)

    # One request

    def standings(
        self, limits: Iterable[Limit], inputs: Inputs
    ) -> dict[str, tuple[int, int]]:
        """Return the use and rest of windows before a request, by name in Cedar.

        If a limit counts the request in several windows, the fullest one decides.

        Raises:
            LedgerError: the store cannot be read.
        """
        now, fold, uses = self.now(), inputs.facts.fold, {}
        windows, reserved = self._windows, self._reserved
        for limit in limits:
            within, fullest = limit.micros, 0
            for key in limit.windows_of(inputs, fold):
                window = windows.get(key) or self._window(key, within)
                count = window.count(now, within) + reserved.get(key, 0)
                fullest = max(fullest, count)
            left = limit.most - fullest
            uses[limit.attribute] = min(fullest, LARGEST), max(0, left)
        return uses

    def retry_after(self, inputs: Inputs) -> int | None:
        """Return in how many whole seconds a request would fit in all of its limits.

        Returns:
            at least 1, rounded up; None when it never would.
        """
        now, fold, longest = self.now(), inputs.facts.fold, 0
        for limit in self._limits.applying(inputs):
            units = limit.units(inputs)
            if units is None or units > limit.most:
                return None
            for window in limit.windows_of(inputs, fold):
                excess = self._reserved.get(window, 0) + units - limit.most
                within = limit.micros
                fits_in = self._window(window, within).frees(excess, now, within)
                longest = max(longest, fits_in)
        return max(1, math.ceil(longest / 1_000_000))

    def _window(self, key: WindowKey, within: int) -> UseWindow:
        """Return a window, read from the store unless it is in memory."""
        if (window := self._windows.get(key)) is None:
            seq, uses = self._ledger.head.seq, self._ledger.uses
            stored = uses.window(key, seq)
            window = UseWindow()
            if stored is not None:
                window = StoredUses(self._ledger, *stored)
            window.seq = seq
            window.leave(self.now() - within)
            self._windows[key] = window
        return window

    def reserve(
        self, decision_id: str, agent_id: str, counted: Mapping[str, Any]
    ) -> None:
        """Reserve the uses that an answer will count, in the turn of its decision.

        Args:
            decision_id: of the decision whose event will hold *counted*.
            agent_id: who uses it.
            counted: as `LimitSet.counted` returns it.
        """
        self.release(decision_id)
        units = self._units(agent_id, counted)
        self._held[decision_id] = _Held(agent_id, counted, units)
        for window, more in units:
            self._reserved[window] = self._reserved.get(window, 0) + more

    def release(self, decision_id: str | None) -> None:
        """Release a decision's reserved uses, unless its record is under way."""
        held = self._held.get(decision_id or "")
        if held is not None and not held.submitted:
            self._give_back(decision_id or "")

    def submitted(self, draft: Draft, done: asyncio.Future[Any]) -> None:
        """Release the uses of *draft* if *done*, its commit, fails.

        If it does not, its event gives it back when it counts.
        """
        decision_id = draft.decision_id or ""
        held = self._held.get(decision_id)
        if held is None:
            return
        self._held[decision_id] = held._replace(submitted=done)

        def settle(_: asyncio.Future[Any]) -> None:
            held = self._held.get(decision_id)
            if held is not None and held.submitted is done:
                self._give_back(decision_id)

        done.add_done_callback(settle)

    def _give_back(self, decision_id: str) -> None:
        for window, units in self._held.pop(decision_id).units:
            if left := self._reserved[window] - units:
                self._reserved[window] = left
            else:
                del self._reserved[window]

    def _units(
        self, agent_id: str | None, counted: Mapping[str, Any]
    ) -> list[tuple[WindowKey, int]]:
        """Return the units in each window of the active limits; see `units_of`."""
        window_units, limits = list[tuple[WindowKey, int]](), self._limits.by_id
        holder = (agent_id or "",)
        for part in (counted, *counted.get("others", ())):
            resource = part.get("resource")
            for name, used in part.get("limits", {}).items():
                limit = limits.get(name)
                if limit is None or used.get("currency", "") != limit.counted_in:
                    continue
                units = used["count" if limit.currency is None else "amount"]
                agents = used.get("agents", holder)
                for window in limit.windows(agents, resource):
                    window_units.append((window, units))
        return window_units

    def count(self, event: Event) -> None:
        """Count a durable event, of this broker or another, instead of its reserve."""
        counted, decision_id = event.detail.get("counted"), event.decision_id or ""
        if counted is None:
            return
        held = self._held.get(decision_id)
        if held is not None and held.submitted:
            self._give_back(decision_id)
        at = counted_at(counted, event.time)
        self._latest, touched = max(self._latest, at), list[UseWindow]()
        for key, units in self._units(event.agent_id, counted):
            window = self._windows.get(key)
            if window is not None and window.seq < event.seq:
                window.add(at, units)
                touched.append(window)
        for window in touched:  # an event may use one several times
            window.seq = event.seq

    def stamp(self, counted: Mapping[str, Any]) -> dict[str, Any]:
        """Return *counted* with the time that it counts from."""
        return {"at": iso(moment(self.now())), **counted}

    # All of them

    async def all(self) -> list[WindowStanding]:
        """Read the use of each limit, in the order of the file."""
        limits, now = self._limits.limits, self.now()
        kinds = [(*one.kind, now - one.micros) for one in limits]
        reserved = self._reserved.copy()
        stored = await self._ledger.read(read_windows, kinds, self._ledger.head.seq)
        windows = []
        for limit, standings in zip(limits, stored, strict=True):
            used = {one.key: (one.used, one.first) for one in standings}
            waiting = {k[3]: n for k, n in reserved.items() if k[:3] == limit.kind}
            for key in {**used, **waiting}:
                count, first = used.get(key, (0, None))
                count += waiting.get(key, 0)
                left = max(0, limit.most - count)
                frees = None if first is None else moment(first) + limit.within
                windows.append(WindowStanding(limit, key, count, left, frees))
        return windows

    def sweep(self) -> None:
        """Forget windows in memory that hold nothing any more, all if they are many."""
        now = self.now()
        if len(self._windows) > _IN_MEMORY:
            self._windows.clear()
        for key, window in list(self._windows.items()):
            limit = self._limits.by_id[key[0]]
            if not window.count(now, limit.micros):
                del self._windows[key]


class _Held(NamedTuple):
    """Units that are reserved."""

    agent_id: str
    counted: Mapping[str, Any]
    units: list[tuple[WindowKey, int]]
    """In each window of the active limits."""
    submitted: asyncio.Future[Any] | None = None
    """The commit of the event that counts them, once it is on its way to the disk."""


class UseWindow:
    """The uses of one limit by one key, in the order in which they leave."""

    __slots__ = ("_ahead", "_at", "_before", "_place", "_total", "seq")

    def __init__(self) -> None:
        self._ahead: list[tuple[int, int]] = []
        """The oldest uses: the time of each, and the total before it."""
        self._place = 0
        """The first of those that has not left the window."""
        self._total = self._before = self._at = 0
        """The sum of all uses, of those that have left, and the time of the last."""
        self.seq = 0
        """The event up to which it was read: it is in it already."""

    def add(self, at: int, units: int) -> None:
        """Count *units* at a time, at the earliest that of the use before."""
        self._at = max(self._at, at)
        self._ahead.append((self._at, self._total))
        self._total = (self._total + units) % MODULUS

    def count(self, now: int, within: int) -> int:
        """Return the units in the window at *now*."""
        ahead, place, end = self._ahead, self._place, now - within
        if place < len(ahead) and ahead[place][0] <= end:
            self.leave(end)
        return (self._total - self._before) % MODULUS

    def leave(self, end: int) -> None:
        """Take the uses up to a time out of the window."""
        ahead, place = self._ahead, self._place
        while place < len(ahead) and ahead[place][0] <= end:
            place += 1
        if place > _READ and place * 2 > len(ahead):
            del ahead[:place]
            place = 0
        self._place = place
        self._before = ahead[place][1] if place < len(ahead) else self._total

    def frees(self, units: int, now: int, within: int) -> int:
        """Return in how many microseconds the window holds at most -*units*."""
        excess = self.count(now, within) + units
        if excess <= 0:
            return 0
        if excess > (self._total - self._before) % MODULUS:
            return within  # what is reserved now leaves it then
        return self._used_at(excess) + within - now

    def _used_at(self, units: int) -> int:
        """Return the time of the use with which the window reached *units*."""
        after = self._ahead[self._place + 1 :]
        for place, (_, before) in enumerate(after, self._place):
            if (before - self._before) % MODULUS >= units:
                return self._ahead[place][0]
        return self._at


class StoredUses(UseWindow):
    """A window with more uses in the store than in memory."""

    __slots__ = ("_ledger", "_more", "_number")

    def __init__(self, ledger: Ledger, number: int, at: int, total: int) -> None:
        """Read the uses of window *number* when they are needed; see `leave`."""
        super().__init__()
        self._ledger = ledger
        self._number = number
        self._at, self._total = at, total
        self._more = True
        """Whether the store may have uses behind those in memory."""

    def add(self, at: int, units: int) -> None:
        """Count *units*; where not all are in memory, this one is not either."""
        super().add(at, units)
        if self._more:
            self._ahead.pop()
        elif len(self._ahead) > _IN_MEMORY:
            del self._ahead[self._place + _READ :]
            self._more = True

    def leave(self, end: int) -> None:
        """Take uses out, and read the next ones when all in memory have left."""
        super().leave(end)
        if self._more and self._place == len(self._ahead):
            uses = self._ledger.uses.uses(self._number, end, self.seq, _READ)
            self._ahead, self._place, self._more = uses, 0, len(uses) == _READ
            self._before = uses[0][1] if uses else self._total

    def _used_at(self, units: int) -> int:
        if self._more and (self._ahead[-1][1] - self._before) % MODULUS < units:
            reached_at = self._ledger.uses.reached_at
            return reached_at(self._number, self._before, units, self._at)
        return super()._used_at(units)
