"""When to look for something to paint: at news, at each second, and not too often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import LinkState

PULSES: Final = {"fast": 0.25, "slow": 0.5}
"""Seconds that at least pass between two looks, by the kind of link."""
_AFTER: Final = 0.01
"""Seconds after a new second, for whoever looks before it shows it a second late."""


async def beats(mirror: Mirror, pulse: float) -> AsyncIterator[None]:
    """Yield at each second and sooner when *mirror* has news, *pulse* apart.

    While the console opens each news is shown at once: there are a handful.
    """
    news = asyncio.Event()
    mirror.listeners.add(news.set)
    try:
        while True:
            news.clear()
            second = mirror.clock.now().timestamp() // 1 + 1 + _AFTER
            yield
            opening = mirror.link.state is LinkState.CONNECTING
            await asyncio.sleep(0 if opening else pulse)
            # News just before a second is no reason to miss it, nor is a clock set back
            # one to wait for the second that was.
            left = second - mirror.clock.now().timestamp()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(left, 0), 1 + _AFTER)):
                    await news.wait()
    finally:
        mirror.listeners.discard(news.set)
