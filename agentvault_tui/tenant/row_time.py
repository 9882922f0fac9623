"""The time by which sessions and links end: it does not go back while the machine runs.

The store has their ends by the wall clock. If that is set back, the boot clock carries
on from the latest time, over restarts of the tenant too. After a reboot the wall clock
counts alone, as for `clock.Deadline`.
"""

from __future__ import annotations

import json
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.tenant.store import Store

_FACT: Final = "latest_time"
"""The name of the boot's id, and of its latest wall time less its boot time."""
_EXACT_S: Final = 1.0
"""A wall clock that gains less than this is no other time: nothing is written."""


def row_time(store: Store, clock: Clock) -> float:
    """Return the time for ends in a store's rows.

    Args:
        store: the tenant's. In a team its own time counts for all machines.
        clock: the machine's.

    Returns:
        seconds since the epoch; not less than before, by more than a second.
    """
    now, boot = clock.now().timestamp(), clock.boot()
    if store.has_own_time:
        return now
    boot_id, latest = json.loads(store.fact(_FACT) or "[null, 0]")
    if boot_id != clock.boot_id or now - boot > latest + _EXACT_S:
        latest = now - boot
        store.remember(_FACT, json.dumps([clock.boot_id, latest]))
    return float(max(now, boot + latest))
