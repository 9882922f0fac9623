"""Measure the turns of the event loop."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LONGEST_S = 0.08
"""Of processor time in one turn; each tested input once took several times as long."""


@asynccontextmanager
async def short_turns() -> AsyncIterator[None]:
    """Check that no turn of the loop is long while a block runs."""
    turns = [0.0]

    async def measure() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            turns.append(time.thread_time() - began)

    measuring = asyncio.create_task(measure())
    gc.disable()  # a collection of this process is as long as its tests have objects
    try:
        yield
    finally:
        gc.enable()
        measuring.cancel()
    assert max(turns) < LONGEST_S, max(turns)
