"""Verify a home's ledger next to its broker: ``python -m agentvault_tui.ledger``.

Runs at the lowest priority and ends with its stdin. Prints ``{"seq": N}`` for each
step forward, and the `Verification` as the last line.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from dataclasses import asdict
from typing import Final

from agentvault_tui.home import Home
from agentvault_tui.ledger.verify import verify_ledger
from agentvault_tui.process import end_with_stdin, harden, yield_to_others

_PROBLEM: Final = 1000
"""Characters of a problem that are printed: a changed row may be of any length."""


def main() -> int:
    """Verify the ledger of the home given, and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home")
    given = parser.parse_args()
    harden()
    yield_to_others()
    threading.Thread(target=end_with_stdin, daemon=True).start()
    result = asdict(
        verify_ledger(Home.locate(given.home), progress=lambda seq: _tell({"seq": seq}))
    )
    if result["problem"]:
        result["problem"] = result["problem"][:_PROBLEM]
    _tell(result)
    return 0


def _tell(line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - the broker reads it


if __name__ == "__main__":
    sys.exit(main())
