"""This broker among others: heartbeats, its lease, confirmations, and the working one.

Each broker says twice a second in the store that it lives and up to which event it has
followed. It holds a lease of two seconds from the start of its last heartbeat, by its
own boot clock. Without the lease no call continues here, so a revoking broker knows
that a broker that confirms nothing carries no call either. One of them holds a lease of
eight seconds on the work that is done once for all: steps at the tenant, alerts, the
tenant's log.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from agentvault_tui import __version__
from agentvault_tui.clock import Clock, SharedClock, iso
from agentvault_tui.errors import (
    AgentVaultError,
    LedgerBusyError,
    LedgerError,
    RefusedError,
)
from agentvault_tui.ledger import Ledger
from agentvault_tui.operator_api.ending import ConfirmedInfo

if TYPE_CHECKING:  # it imports psycopg, which few need
    from agentvault_tui.ledger.shared_log import SharedLog

LEASE: Final = 2.0
"""Seconds from the beginning of a heartbeat for which calls may go on."""
WORK: Final = 8.0
"""Seconds for which one broker does the team's single work, if it does not renew
this."""
_MARGIN: Final = 2.0
"""Seconds before the end of that lease at which the work ends here."""
_EVERY: Final = 0.5
_ASKED_EVERY: Final = 0.005
"""Seconds between two looks at confirmations, while there is a waiter."""
_CONFIRMED_WITHIN: Final = 2.5
"""Seconds after which a revocation is answered whatever others said."""
_LAG: Final = 250.0
"""Milliseconds that a broker may take to know the store's head."""
_CLOCK: Final = 30.0
"""Seconds that its clock may differ from the store's."""
_WORK_NAME: Final = "work"
log = logging.getLogger("agentvault.team")


class Said(msgspec.Struct):
    """A broker's heartbeat."""

    run: str
    """Random, of this process: two that were given one id differ in it."""
    host: str
    version: str
    since: str
    seq: int
    """The last event that it has followed."""
    policy: str
    lag_ms: float | None
    """How long it took to know the store's head; None where the store did not say."""
    clock: float = 0.0
    """Seconds that its clock is ahead of the store's."""
    tenant: str = ""
    """Its tenant's issuer; empty where that is an embedded one that it alone serves."""
    watching: bool = False
    """Whether a console listens there, so that calls are reported more often."""
    key: str = ""
    """The id of the team's key that it has; empty where it has none."""
    channel: str = ""
    """The channel on which it is notified; see `notifier`."""


class Member(NamedTuple):
    """One broker of the team, as the store tells of it."""

    id: str
    beat: Said
    seen_at: datetime
    """By the store's clock."""
    age: float
    """Seconds since then."""

    @property
    def alive(self) -> bool:
        """Whether it may still hold its lease."""
        return self.age < LEASE


class OneBroker:
    """A broker that shares its ledger with no other: it waits for none."""

    id = run_id = ""
    """This broker's id and process: it needs none."""
    seq = 0
    members: tuple[Member, ...] = ()
    replaced = False
    """Whether another process has this broker's id."""

    def lease_over(self) -> bool:
        """Calls may always continue: all revocations are known here."""
        return False

    def works(self) -> bool:
        """This broker does all work itself."""
        return True

    def alone(self, _: str) -> AbstractAsyncContextManager[None]:
        """No other broker works at the same time; see `Team.alone`."""
        return nullcontext()

    def gone(self, _: str) -> bool:
        """No other broker can end."""
        return False

    def standing(self) -> list[tuple[Member, str | None]]:
        """No other broker can be out of step."""
        return []

    def unnotified(self) -> UnsetType:
        """No other broker has to be notified."""
        return UNSET

    async def confirmed(self, _: int) -> UnsetType:
        """No other broker has to confirm."""
        return UNSET

    def soon(self) -> None:
        """No other broker waits."""

    async def run(self, _: Callable[[], None]) -> None:
        """No other broker hears that this one lives."""

    async def leave(self) -> None:
        """No other broker hears that this one stops."""


class Team:
    """The brokers that share one log, as this one knows them."""

    def __init__(
        self,
        ledger: Ledger,
        shared: SharedLog,
        clock: Clock,
        policy: Callable[[], str],
        *,
        tenant: str,
        key: Callable[[], tuple[str, str]],
        differing: Callable[[str], Sequence[str]] = lambda _: (),
        end_calls: Callable[[], None] = lambda: None,
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        """Be one of the brokers that write to *shared*; know no other yet.

        Args:
            ledger: this broker's.
            shared: the team's log.
            clock: the clock.
            policy: returns the versions of the policy and the files in effect.
            tenant: the tenant's issuer; empty where no other broker serves it.
            key: returns the ids of the team's key that is here, and that is in effect.
            differing: returns the settings of another broker that differ from here.
            end_calls: called when no call may go on.
            notify: called when another broker came, went, or fell out of step.
        """
        self.id = shared.broker_id
        self.seq = ledger.head.seq
        """The last event that this broker's memory has."""
        self.members: tuple[Member, ...] = ()
        self.watching: Callable[[], bool] = lambda: False
        """Tells whether a console listens here."""
        self._ledger = ledger
        self._clock = clock
        self._policy = policy
        self._tenant = tenant
        self._key = key
        self._differing = differing
        self._end_calls, self._notify = end_calls, notify
        self._shared = shared
        self.run_id: Final = secrets.token_hex(8)
        """Random, of this process."""
        self._since = iso(clock.now())
        self._clock_ahead = 0.0
        self._until = float("-inf")
        self._works_until = float("-inf")
        self._soon = asyncio.Event()
        self.replaced = False
        """Whether another process has this broker's id."""

    # Leases

    def lease_over(self) -> bool:
        """Check whether this broker must carry no call, by its boot clock."""
        return self.replaced or self._clock.boot() >= self._until

    def works(self) -> bool:
        """Check whether this broker does the single work of the whole team."""
        return not self.replaced and self._clock.boot() < self._works_until

    async def join(self) -> None:
        """Say for the first time that this broker lives.

        A process that ended a moment ago may have had the same id: it is waited for.

        Raises:
            RefusedError: another live process has it.
            LedgerError: the store is away; `run` goes on trying.
        """
        until = self._clock.boot() + LEASE + _EVERY
        while True:
            try:
                await self._beat()
            except RefusedError:
                if self._clock.boot() >= until:
                    raise
                await asyncio.sleep(_EVERY / 5)
            else:
                return

    async def run(self, replaced: Callable[[], None]) -> None:
        """Say so again and again, until cancelled.

        Args:
            replaced: called once another process has this broker's id, as the end.
        """
        while True:
            try:
                await self._beat()
            except RefusedError as error:
                log.error("%s", error.diagnosis())  # noqa: TRY400 - it says it all
                self.replaced = True
                self._ledger.distrust("is another process's now")
                self._end_calls()
                replaced()
                return
            except AgentVaultError as error:
                log.warning("no heartbeat: %s", error.what)
            self._soon.clear()
            left = max(self._until - self._clock.boot(), 0.0)
            try:
                async with asyncio.timeout(min(_EVERY, left or _EVERY)):
                    await self._soon.wait()
            except TimeoutError:
                if self.lease_over():
                    self._end_calls()

    def soon(self) -> None:
        """Say at once how far this broker has followed: somebody waits for it."""
        self._soon.set()

    async def _beat(self) -> None:
        lag, clock = await self._lag(), self._clock
        began = clock.boot()
        beat = Said(
            run=self.run_id,
            host=platform.node(),
            version=__version__,
            since=self._since,
            seq=self.seq,
            policy=self._policy(),
            lag_ms=lag,
            clock=round(self._clock_ahead, 3),
            tenant=self._tenant,
            watching=self.watching(),
            key=self._key()[0],
            channel=self._shared.listener.channel,
        )
        doc = msgspec.json.encode(beat)
        if not await self._shared.hold(self.id, beat.run, doc, LEASE):
            raise RefusedError(
                f"another process is the broker {self.id}",
                "its home was copied: remove the file broker.id from the copy",
            )
        self._until = began + LEASE
        if await self._shared.hold(_WORK_NAME, beat.run, b"{}", WORK):
            self._works_until = began + WORK - _MARGIN
        before = [(one.id, why) for one, why in self.standing()]
        await self._look()
        if before != [(one.id, why) for one, why in self.standing()]:
            self._notify()

    async def _lag(self) -> float | None:
        began = self._clock.boot()
        try:
            await self._ledger.confirm()
        except LedgerError:
            return None
        return round((self._clock.boot() - began) * 1000, 1)

    async def _look(self) -> None:
        now, holders = await self._shared.holders()
        clock = self._clock
        if isinstance(clock, SharedClock):
            self._clock_ahead = clock.ahead
        self.members = tuple(
            Member(name, beat, now - timedelta(seconds=age), age)
            for name, doc, age in holders
            if (beat := _read(doc)) is not None  # or what one does for all
        )

    async def leave(self) -> None:
        """Say that this broker stops."""
        await self._shared.release((self.id, _WORK_NAME), self.run_id)

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[float]:
        """Do in a block the work that one broker of the team does at a time.

        One that dies in it is waited for as long as its lease lasts, eight seconds.

        Args:
            name: the work; one task of a broker at a time has it.

        Yields:
            its maximum duration in seconds, with time left to record the result.

        Raises:
            LedgerError: the store is away, or another broker goes on doing it.
        """
        clock = self._clock
        until = clock.boot() + WORK + _MARGIN
        while True:
            began = clock.boot()
            if await self._shared.hold(name, self.run_id, b"{}", WORK):
                break
            if began >= until:
                raise LedgerBusyError(f"another broker has {name}", "ask again shortly")
            await asyncio.sleep(_EVERY / 10)
        try:
            yield began + WORK - _MARGIN - clock.boot()
        finally:
            with suppress(LedgerError):  # it ends by itself
                await self._shared.release((name,), self.run_id)

    # Others

    def others(self) -> list[Member]:
        """Return the other brokers that live."""
        return [one for one in self.members if one.id != self.id and one.alive]

    def unnotified(self) -> tuple[ConfirmedInfo, ...]:
        """Return the other brokers that were there when the store answered last."""
        ids = sorted(one.id for one in self.others())
        return tuple(ConfirmedInfo(id=one, confirmed=False, ms=0.0) for one in ids)

    def gone(self, run: str) -> bool:
        """Check whether a process of a broker ended, or said nothing for long.

        That is as long as the work it did is left to it. One that began a moment ago
        may not be known yet.
        """
        here = any(one.beat.run == run and one.age < WORK for one in self.members)
        return bool(self.members) and not here

    def standing(self) -> list[tuple[Member, str | None]]:
        """Return each broker, and why it is not in step, if it is not."""
        return [(one, self._reason(one)) for one in self.members]

    def _reason(self, member: Member) -> str | None:
        beat = member.beat
        if not member.alive:
            return "it says nothing any more: look at its machine"
        if beat.version != __version__:
            return f"it is of version {beat.version}"
        _, in_force = self._key()
        if in_force and beat.key != in_force:
            return "it has not the team's key: agentvault team key import there"
        if beat.lag_ms is None or beat.lag_ms > _LAG:
            return "it is behind the store"
        if beat.policy != self._policy():
            return "another policy, or another file, is in force there"
        if abs(beat.clock) > _CLOCK:
            return f"its clock differs by {beat.clock:+.0f} s"
        if member.id != self.id and (names := self._differing(member.id)):
            return f"its config.toml differs from here: {', '.join(names)}"
        return None

    async def confirmed(self, seq: int) -> tuple[ConfirmedInfo, ...]:
        """Wait until each other broker has followed event *seq*, as `heard` does."""

        async def followed() -> set[str]:
            return {one.id for one in self.members if one.beat.seq >= seq}

        return await self.heard(followed)

    async def heard(
        self, answered: Callable[[], Awaitable[Container[str]]]
    ) -> tuple[ConfirmedInfo, ...]:
        """Wait until each other broker has answered, or has no lease any more.

        Args:
            answered: returns the ids of those that have; asked again and again.

        Returns:
            each broker's confirmation, and after how many ms; after 2,500 ms at most.
        """
        clock = self._clock
        began, confirmed = clock.boot(), dict[str, ConfirmedInfo]()
        waiting = {one.id for one in self.others()}
        while waiting and (spent := clock.boot() - began) < _CONFIRMED_WITHIN:
            have: Container[str] = ()
            try:
                await self._look()
                have = await answered()
            except LedgerError as error:
                log.warning("what others answered is not known: %s", error.what)
            alive = {one.id for one in self.members if one.alive}
            for name in tuple(waiting):
                if name in have or name not in alive:
                    ms = round((clock.boot() - began) * 1000, 1)
                    confirmed[name] = ConfirmedInfo(
                        id=name, confirmed=name in have, ms=ms
                    )
                    waiting.discard(name)
            if waiting:
                await asyncio.sleep(_ASKED_EVERY if spent < 0.1 else 10 * _ASKED_EVERY)
        ms = round((clock.boot() - began) * 1000, 1)
        late = (
            ConfirmedInfo(id=one, confirmed=False, ms=ms) for one in sorted(waiting)
        )
        return (*(confirmed[name] for name in sorted(confirmed)), *late)


def _read(doc: bytes) -> Said | None:
    try:
        return msgspec.json.decode(doc, type=Said)
    except msgspec.DecodeError:
        return None  # of another version


async def while_working(
    works: Callable[[], bool], work: Callable[[], Awaitable[None]]
) -> None:
    """Run *work* while this broker is the one that does it; until cancelled.

    Args:
        works: tells whether it is; looked at a few times a second.
        work: runs until it is cancelled; made again each time.
    """
    while True:
        while not works():  # noqa: ASYNC110 - a clock has no event
            await asyncio.sleep(_EVERY)
        task = asyncio.ensure_future(work())
        try:
            while works() and not task.done():
                await asyncio.wait({task}, timeout=_EVERY)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
