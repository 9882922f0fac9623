"""Waiting that an event cuts short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds; tests move a clock instead."""


async def unless(event: asyncio.Event, work: Coroutine[object, object, T]) -> T | None:
    """Await *work*, but drop it as soon as *event* is set."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, stop):
            one.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


async def nap(sleep: Sleep, seconds: float) -> None:
    """Sleep as *sleep* does, as a coroutine that `unless` can drop."""
    await sleep(seconds)
