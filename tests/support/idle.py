"""Waits until an app has nothing left to do: it looks, where Textual's pilot guesses.

The pilot's own waits for 20 ms at least, twice a key, and takes a process that used no
processor for one that has done its work: not so where others keep the processor busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import textual.app
import textual.pilot
from textual._context import active_app
from textual.app import ScreenStackError

SERVED: set[asyncio.AbstractEventLoop] = set()
"""Loops in other threads that answer this one: an answer under way is work left."""
_ROUNDS = 2
"""An answer may come and its next question leave while one look is taken."""
_STEP = 0.001
_TURNS = 50
"""Turns of the loop between two looks at the clock."""


def install() -> None:
    """Let the pilot wait so, in every test of this process."""
    textual.app.wait_for_idle = textual.pilot.wait_for_idle = wait_for_idle


async def wait_for_idle(min_sleep: float = 0, max_sleep: float = 1) -> None:
    """Return when loop, threads and servers wait for time to pass or for a key.

    *max_sleep* is for an app that is never done, as under a flood: seconds of work of
    this process's own, for others may have the processor meanwhile.
    """
    del min_sleep  # there is nothing a longer wait would show
    here = asyncio.get_running_loop()
    deadline = time.process_time() + max_sleep
    quiet = 0
    while quiet < _ROUNDS and time.process_time() < deadline:
        await _drained(here, deadline)
        if _threads_work(here):
            quiet = 0
            await asyncio.sleep(_STEP)
            continue
        elsewhere = [await _asked(loop) for loop in list(SERVED)]
        quiet = quiet + 1 if all(elsewhere) and _quiet(here) else 0


async def _drained(here: asyncio.AbstractEventLoop, deadline: float) -> None:
    """Let *here* run all it has, and draw what changed instead of at the next frame."""
    busy, turns = True, 0
    # That clock takes as long to read as many turns of the loop.
    while busy and ((turns := turns + 1) % _TURNS or time.process_time() < deadline):
        await asyncio.sleep(0)
        busy = not _quiet(here)
        if not busy and (app := active_app.get(None)) is not None:
            with contextlib.suppress(ScreenStackError):  # it is leaving
                _frame(app)
            busy = not _quiet(here)


def _frame(app: Any) -> None:
    """Do now what Textual leaves to a timer of less than 20 ms."""
    if app._resize_timer is not None:
        app._check_resize()
    for covered in app._background_screens:
        if covered._update_timer._active.is_set():
            covered._on_timer_update()
    app.screen._on_timer_update()


def _quiet(loop: Any) -> bool:
    """Tell whether *loop* would wait now; to be asked in its own thread."""
    return not loop._ready and not loop._selector.select(0)


def _threads_work(loop: Any) -> bool:
    pool: ThreadPoolExecutor | None = loop._default_executor
    return pool is not None and len(pool._threads) > pool._idle_semaphore._value


async def _asked(loop: asyncio.AbstractEventLoop) -> bool:
    """Ask *loop*, between two of its callbacks, whether it is quiet."""
    here = asyncio.get_running_loop()
    answer = here.create_future()

    def look() -> None:
        here.call_soon_threadsafe(answer.set_result, _quiet(loop))

    try:
        # One turn later: what woke the loop up to be asked is no work.
        loop.call_soon_threadsafe(loop.call_soon, look)
    except RuntimeError:  # closed
        return True
    await asyncio.wait({answer}, timeout=1)  # it may have ended without a look
    return not answer.done() or bool(answer.result())
