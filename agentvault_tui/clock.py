"""Wall clock, boot clock, and deadlines that hold on both.

A clock is passed in, never reached for. Tests pass one that only they move; patching
`time` would stop asyncio.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, Protocol

_SET = timedelta(seconds=1)
"""By so much the clocks may differ before one was set."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LENGTH: Final = re.compile("([1-9][0-9]{0,7})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Clock(Protocol):
    """The rooms' view of time."""

    @property
    def boot_id(self) -> str:
        """Identify this boot: a deadline does not survive a reboot."""
        ...

    def now(self) -> datetime:
        """Return the wall clock, in UTC. It can jump."""
        ...

    def boot(self) -> float:
        """Return seconds since boot, suspend included. It cannot jump."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._boot_id = _read_boot_id()
        # macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC already counts suspend.
        self._boot_clock: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    @property
    def boot_id(self) -> str:
        """Identify this boot."""
        return self._boot_id

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""
        return datetime.now(UTC)

    def boot(self) -> float:
        """Return seconds since boot, suspend included."""
        return time.clock_gettime(self._boot_clock)


class SharedClock:
    """A team's time: its store's, carried on by this machine's boot clock.

    Whatever this machine's wall clock says, all brokers decide by one time. Until the
    store was asked it is the machine's own.
    """

    def __init__(self, own: Clock) -> None:
        """Carry on from *own*, which tells of this machine."""
        self._own = own
        self._agreed: tuple[datetime, float] | None = None

    @property
    def boot_id(self) -> str:
        """Identify this boot."""
        return self._own.boot_id

    def now(self) -> datetime:
        """Return the store's time, in UTC."""
        if self._agreed is None:
            return self._own.now()
        at, boot = self._agreed
        return at + timedelta(seconds=self._own.boot() - boot)

    def boot(self) -> float:
        """Return seconds since boot, suspend included."""
        return self._own.boot()

    def agree(self, at: datetime, sent: float, answered: float) -> None:
        """Set it to the store's time.

        Args:
            at: the store's time.
            sent: the boot clock before it was asked.
            answered: the boot clock after it had answered.
        """
        self._agreed = at, (sent + answered) / 2

    @property
    def ahead(self) -> float:
        """By how many seconds this machine's wall clock is ahead of the store's."""
        return (self._own.now() - self.now()).total_seconds()


class Deadline(NamedTuple):
    """A moment on both clocks: the first one that passes it wins.

    Setting the wall clock back does not revive anything, and neither does a reboot
    (sudo's ticket rule): a deadline from another boot falls back to the wall clock
    alone, which the ledger's own time is checked against at start.
    """

    wall: datetime
    """When, by the wall clock."""
    boot: float
    """When, in seconds of the boot clock."""
    boot_id: str
    """The boot that `boot` counts in."""

    @classmethod
    def after(cls, clock: Clock, seconds: float) -> Deadline:
        """Return the deadline that is *seconds* from now."""
        return cls(
            clock.now() + timedelta(seconds=seconds),
            clock.boot() + seconds,
            clock.boot_id,
        )

    def loaded(self, clock: Clock, latest: datetime) -> Deadline:
        """Return a stored deadline on this boot's clock too.

        Args:
            clock: its wall clock may have been set back while no broker ran.
            latest: the time of the ledger's last event: it is not earlier now.
        """
        left = (self.wall - max(clock.now(), latest)).total_seconds()
        if self.boot_id == clock.boot_id:
            left = min(left, self.boot - clock.boot())
        ends = Deadline.after(clock, left)
        return ends._replace(wall=min(ends.wall, self.wall))

    def remaining(self, clock: Clock) -> float:
        """Return the seconds left, by the clock that gives fewer; never below 0."""
        left = (self.wall - clock.now()).total_seconds()
        if self.boot_id == clock.boot_id:
            left = min(left, self.boot - clock.boot())
        return max(left, 0.0)

    def passed(self, clock: Clock) -> bool:
        """Check whether either clock says it is over."""
        return self.wall <= clock.now() or (
            self.boot_id == clock.boot_id and self.boot <= clock.boot()
        )


def as_set_now(clock: Clock) -> Callable[[Deadline], datetime]:
    """Return the function of deadlines' ends, by the wall clock as it is set now.

    A wall clock that was set back would promise more time than there is. In whole
    seconds: the same deadline always has the same end.
    """
    now, boot, boot_id = clock.now(), clock.boot(), clock.boot_id

    def ends(deadline: Deadline) -> datetime:
        if deadline.boot_id != boot_id:
            return deadline.wall
        by_boot = now + timedelta(seconds=deadline.boot - boot)
        if deadline.wall - by_boot < _SET:
            return deadline.wall
        return (by_boot + timedelta(seconds=0.5)).replace(microsecond=0)

    return ends


def iso(moment: datetime) -> str:
    """Write *moment* as the wire does: RFC 3339, UTC, ``Z``, microseconds."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    # A tenth of the time strftime takes, and the ledger writes several an event.
    return f"{utc.isoformat('T', 'microseconds')[:26]}Z"


def span(seconds: float) -> str:
    """Write how long it took: ``0.120 s``, ``48 s``, ``2 m 3 s``, ``1 d 4 h``."""
    sign, seconds = "-" * (seconds < 0), abs(seconds)
    if seconds < 10:
        return f"{sign}{seconds:.3f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{sign}{days} d {hours} h"
    if hours:
        return f"{sign}{hours} h {minutes} m"
    return f"{sign}{minutes} m {rest} s" if minutes else f"{sign}{rest} s"


def seconds_of(text: str) -> int | None:
    """Read a length of time as people write it: ``90s``, ``30m``, ``24h``, ``7d``."""
    match = _LENGTH.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else None


def parse_iso(text: str) -> datetime:
    """Read an RFC 3339 moment; a missing offset means UTC.

    Raises:
        ValueError: it is not one.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is UTC:  # as the wire has it, five hundred times a second
        return moment
    return (
        moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    )


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        # No such file off Linux. A per-process id is stricter than none: deadlines
        # of an earlier process are then judged by the wall clock alone.
        return f"process-{time.time_ns()}"
