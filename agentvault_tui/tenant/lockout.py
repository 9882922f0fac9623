"""Counts failed sign-ins per lane, person and factor; locks for growing times."""

from __future__ import annotations

from typing import Final, Literal

from agentvault_tui.clock import Clock
from agentvault_tui.tenant.store import Store

Factor = Literal["password", "otp"]

FREE_TRIES: Final = 5
"""Tries before the first lock."""
_FIRST_LOCK: Final = 30.0
"""Seconds; each further failure doubles it."""
_LONGEST: Final[dict[Factor, float]] = {"password": 60.0, "otp": 900.0}
"""Passwords are generated with 100 bits, so their lock only slows. One-time codes have
20 bits and are asked for only after the right password: theirs is the long one."""
_LANES: Final = 1000


class Lockouts:
    """The tries of each person in each lane, kept over restarts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Count in *store*."""
        self._store = store
        self._clock = clock

    def charge(self, who: str, factor: Factor) -> float:
        """Take one try before it is looked at, so that parallel ones all count.

        Returns:
            0.0, or the seconds to wait: then the try was not taken.
        """
        now = self._clock.now().timestamp()
        with self._store.transaction():
            row = self._store.one(
                "SELECT failures, locked_until FROM lockouts "
                "WHERE who = ? AND factor = ?",
                who,
                factor,
            )
            failures = 0 if row is None else int(row["failures"])
            # The wall clock, set back by a year, must not lock for a year.
            left = 0.0 if row is None else float(row["locked_until"]) - now
            if left > 0:
                return min(left, _LONGEST[factor])
            failures += 1
            self._store.change(
                "INSERT OR REPLACE INTO lockouts VALUES (?, ?, ?, ?, ?)",
                who,
                factor,
                failures,
                now + _lock(failures, factor),
                now,
            )
            self._forget_lanes()
        return 0.0

    def clear(self, who: str, factor: Factor) -> None:
        """Forget the tries: the last one was right."""
        self._store.change(
            "DELETE FROM lockouts WHERE who = ? AND factor = ?", who, factor
        )

    def _forget_lanes(self) -> None:
        """Keep what anybody can cause from filling the disk.

        Only what counts for a person alone, and so took their password, stays.
        """
        self._store.change(
            "DELETE FROM lockouts WHERE who IN (SELECT who FROM lockouts "
            "WHERE who LIKE '% %' ORDER BY last_at DESC LIMIT -1 OFFSET ?)",
            _LANES,
        )


def _lock(failures: int, factor: Factor) -> float:
    if failures < FREE_TRIES:
        return 0.0
    doubled = _FIRST_LOCK * 2.0 ** min(failures - FREE_TRIES, 16)
    return min(doubled, _LONGEST[factor])
