"""A team of brokers answers as one broker would, however their requests interleave."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.interleavings import interleavings, programs
from support.postgres import Database

SEED = 22


async def test_a_team_answers_as_one_broker_does(short: Path, store: Database) -> None:
    """No reply, and nothing after it, differs from those of one broker in some order.

    `make interleavings` runs 1,000 of them.
    """
    async with interleavings(short, store, SEED) as team:
        found = await asyncio.gather(*(team.check(one) for one in programs(SEED, 25)))
    different = [one for one in found if one is not None]
    assert not different, "\n\n".join(map(str, different))
