"""Runs every bench in turn and prints which met their targets.

python bench/run.py [NAME…]        all, or the named ones
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHES = (
    "broker",
    "decision",
    "limits",
    "revoke",
    "ledger",
    "past",
    "mirror",
    "console",
    "scale",
    "growth",
    "gateway",
    "mcp",
    "confine",
    "watch",
)


def main(names: list[str]) -> int:
    """Run the benches called *names*; 0 when all met their targets."""
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
        return 2
    verdicts: dict[str, str] = {}
    missed = False
    for name in names or BENCHES:
        print(f"\n== {name}: python bench/{name}.py", flush=True)
        started = time.monotonic()
        line = [sys.executable, HERE / f"{name}.py"]
        code = subprocess.run(line, check=False).returncode
        verdict = "no target missed" if code == 0 else f"targets missed (exit {code})"
        missed = missed or code != 0
        verdicts[name] = f"{verdict}, {time.monotonic() - started:.0f} s"
    print("\n== summary")
    for name, verdict in verdicts.items():
        print(f"{name:10} {verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
