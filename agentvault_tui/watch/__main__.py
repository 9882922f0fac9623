"""Do one job over a home's history: ``python -m agentvault_tui.watch``.

The first line of stdin is the job, stdout its answer, both JSON. If its policy is
refused, stdout is the error and its remedy, and the exit code `REFUSED`. Runs at the
lowest priority and ends with its stdin.
"""

from __future__ import annotations

import argparse
import sys
import threading

import msgspec

from agentvault_tui.errors import PolicyError
from agentvault_tui.home import Home
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.process import end_with_stdin, harden, yield_to_others
from agentvault_tui.watch.jobs import REFUSED, Job


def main() -> int:
    """Read the job, do it, and print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home")
    given = parser.parse_args()
    harden()
    yield_to_others()
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    try:
        answer = job.run(Home.locate(given.home))
    except PolicyError as error:
        sys.stdout.buffer.write(msgspec.json.encode((error.what, error.remedy)))
        return REFUSED
    sys.stdout.buffer.write(encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
