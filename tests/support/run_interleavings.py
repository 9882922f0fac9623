"""Run many interleavings, and print those that no single broker explains.

``make interleavings`` runs 1,000 and prints the seed, with which it can be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

from support.interleavings import Difference, interleavings, programs
from support.postgres import Cluster

_AT_ONCE = 100
"""Programs of one team: their agents stay in memory."""


async def _run(folder: Path, cluster: Cluster, seed: int, count: int) -> int:
    different = 0
    every = list(programs(seed, count))
    for start in range(0, count, _AT_ONCE):
        place = folder / f"{start}"
        place.mkdir()
        async with interleavings(place, cluster.store(), seed + start) as team:
            part = every[start : start + _AT_ONCE]
            found = await asyncio.gather(*(team.check(one) for one in part))
        for one in filter(None, found):
            different += 1
            if isinstance(one, Difference):
                print(one, end="\n\n", flush=True)
        print(f"{start + len(part)} of {count}, {different} different", flush=True)
    return different


def main() -> int:
    """Run them; return 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="av") as name:
        folder = Path(name)
        folder.chmod(0o755)
        cluster = Cluster(folder / "pg")
        cluster.create()
        cluster.start()
        try:
            cluster.prepare()
            work = folder / "w"
            work.mkdir()
            different = asyncio.run(_run(work, cluster, asked.seed, asked.count))
        finally:
            cluster.stop(signal.SIGQUIT)
    spent = time.monotonic() - began
    print(f"{asked.count} interleavings, {different} different, {spent:.0f} s")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
