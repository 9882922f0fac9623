"""Drive a corpus at every server that is installed, and print a line for each."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from differential.corpus import corpus
from differential.driving import HEADING, drive
from differential.servers import SERVERS


def main() -> int:
    """Return 1 where a server read a call otherwise than the ledger has it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    options.add_argument("--server", action="append", default=[])
    options.add_argument("--show", type=int, default=5, help="differences of a server")
    chosen = options.parse_args()
    asked = [s for s in SERVERS if not chosen.server or s.name in chosen.server]
    missing = {server.name: server.missing() for server in asked}
    here = [server for server in asked if missing[server.name] is None]
    print(f"seed {chosen.seed}: repeat with --seed {chosen.seed}")
    for name, reason in missing.items():
        if reason is not None:
            print(f"left out: {name} needs {reason}")
    each, differences = -(-chosen.cases // max(1, len(here))), 0
    print(HEADING)
    for server in here:
        cases = corpus(each, chosen.seed + SERVERS.index(server))
        tally = asyncio.run(drive(server, cases))
        print(tally.row(), flush=True)
        for text in tally.differences[: chosen.show]:
            print(f"  - {text}", flush=True)
        differences += len(tally.differences)
    return min(1, differences)


if __name__ == "__main__":
    sys.exit(main())
