"""How a test waits for what must come, and how long: longer than any machine takes.

It costs nothing where the thing comes, and a test has two minutes in all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PATIENT: Final = 60.0
"""Seconds."""


async def until(done: Callable[[], object]) -> None:
    """Wait until *done*, which something that has no event makes so.

    Args:
        done: is asked again and again; it must be cheap.

    Raises:
        TimeoutError: it is not so after `PATIENT` seconds.
    """
    async with asyncio.timeout(PATIENT):
        while not done():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.002)
