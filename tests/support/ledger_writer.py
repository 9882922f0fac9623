"""A process that commits as fast as it can and says which commits were acknowledged.

It writes one line a durable commit, ``SEQ HASH``, and is killed by the test at a moment
of the test's choosing.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from support.ledger_kit import agent, decision, token

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger

_CALLERS = 16


async def main(home: Home, run: str) -> None:
    """Commit until killed."""
    clock = SystemClock()
    ledger = await Ledger.open(home, clock=clock)

    async def caller(number: int) -> None:
        count = 0
        while True:
            count += 1
            name = f"tok_{run}_{number}_{count}"
            (event,) = await ledger.commit(
                decision(f"agt_{number}", token=name),
                changes=[token(clock, name, f"agt_{number}"), agent(f"agt_{number}")],
            )
            os.write(1, f"{event.seq} {event.hash} {name}\n".encode())

    await asyncio.gather(*(caller(number) for number in range(_CALLERS)))


def run(folder: str, name: str) -> None:
    """Be that process."""
    asyncio.run(main(Home(Path(folder), Path(folder)), name))
