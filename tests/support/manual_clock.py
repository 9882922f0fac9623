"""A clock that only tests move."""

from __future__ import annotations

from datetime import datetime, timedelta


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(
        self, now: datetime, boot: float = 1000.0, boot_id: str = "b0"
    ) -> None:
        self._now = now
        self._boot = boot
        self._boot_id = boot_id

    @property
    def boot_id(self) -> str:
        """Identify this boot."""
        return self._boot_id

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""
        return self._now

    def boot(self) -> float:
        """Return seconds since boot."""
        return self._boot

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._now += timedelta(seconds=seconds)
        self._boot += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back; the boot clock does not follow."""
        self._now += timedelta(seconds=seconds)

    def reboot(self, boot_id: str) -> None:
        """Start counting anew under another boot id."""
        self._boot = 0.0
        self._boot_id = boot_id
