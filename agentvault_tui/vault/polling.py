"""Polling for a device code (RFC 8628 section 3.5): how often, how long, until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from agentvault_tui.vault.device import (
    SLOWER,
    Cancelled,
    DeviceFlow,
    End,
    Expired,
    Pending,
    Poll,
    SlowDown,
    Unavailable,
)
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.waiting import nap, unless

_SLOWEST: Final = 30.0
"""Seconds between polls while the tenant does not answer."""
MARGIN: Final = 0.25
"""Seconds on top of each interval. A tenant that counts between what it receives sees
less than we wait when a request travels faster than the one before, and its slow_down
costs five seconds for good."""


async def poll_until_ended(
    tenant: Tenant,
    flow: DeviceFlow,
    ask: Callable[[], Coroutine[Any, Any, Poll]],
    *,
    cancel: asyncio.Event,
    on_poll: Callable[[Poll], None] | None = None,
) -> End:
    """Poll until the person decided, the code ran out, or *cancel* is set.

    The interval counts from the receipt of the last answer; each slow_down makes it
    longer for good, an outage only until it is over.

    Args:
        tenant: whose clock and sleep are used.
        flow: the started flow.
        ask: asks the token endpoint once.
        cancel: set it to stop at once, also amid a request.
        on_poll: told of every answer, for showing the state of the flow.
    """
    interval = flow.interval + MARGIN
    pause = interval
    while True:
        left = flow.expires.remaining(tenant.clock)
        await unless(cancel, nap(tenant.sleep, min(pause, left)))
        if cancel.is_set():
            return Cancelled()
        if flow.expires.passed(tenant.clock):
            return Expired()
        result = await unless(cancel, ask())
        if result is None or cancel.is_set():
            return Cancelled()
        if on_poll is not None:
            on_poll(result)
        match result:
            case Pending():
                pause = interval
            case SlowDown():
                interval += SLOWER
                pause = max(result.retry_after or 0.0, interval)
            case Unavailable():
                slower = max(min(pause * 2, _SLOWEST), interval)
                pause = max(result.retry_after or 0.0, slower)
            case _:
                return result
