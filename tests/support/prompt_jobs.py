"""Runs a broker's jobs at the priority of the test that waits for them.

At their own they take what others leave of the processor (`process.yield_to_others`),
and a run of tests leaves nothing: advice that takes half a second took 15.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

_ROOMS: Final = {"agentvault_tui.ledger", "agentvault_tui.watch"}
_BEGIN: Final = (
    "import runpy, sys; from agentvault_tui import process;"
    " process.yield_to_others = lambda: None;"
    " runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_start: Final = asyncio.create_subprocess_exec


async def start(*line: str, **more: Any) -> asyncio.subprocess.Process:
    """Start a program as asyncio does, and a job of a broker as tests need it."""
    words = list(line)
    if words[3:4] == ["-m"] and words[4] in _ROOMS:
        words[3:4] = ["-c", _BEGIN]
    return await _start(*words, **more)
