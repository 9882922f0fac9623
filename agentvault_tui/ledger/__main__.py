"""Verify a home's ledger beside its broker: ``python -m agentvault_tui.ledger``.

Runs at the lowest priority and ends with its stdin. Prints ``{"seq": N}`` for each
step forward, and the `Verification` as the last line.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import sys
import threading
from dataclasses import asdict
from typing import Final

from agentvault_tui.home import Home
from agentvault_tui.ledger.verify import verify_ledger
from agentvault_tui.process import harden

_NICE: Final = 19
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}
"""The number of the system call, for which the standard library has no name."""
_IDLE_CLASS: Final = 3 << 13
_PROBLEM: Final = 1000
"""Characters of a problem that are told: a changed row may be of any length."""


def main() -> int:
    """Verify the ledger of the home given, and print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home")
    given = parser.parse_args()
    harden()
    _yield_to_others()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    found = asdict(
        verify_ledger(Home.locate(given.home), progress=lambda seq: _tell({"seq": seq}))
    )
    if found["problem"]:
        found["problem"] = found["problem"][:_PROBLEM]
    _tell(found)
    return 0


def _tell(line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - the broker reads it


def _yield_to_others() -> None:
    """Take what others leave of processor and disk (sched(7), ioprio_set(2))."""
    os.nice(_NICE)
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    call = _IOPRIO_SET.get(platform.machine())
    if call is not None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).syscall(call, 1, 0, _IDLE_CLASS)


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
