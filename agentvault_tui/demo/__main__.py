"""``HOME/demo/approve``: approves as the demo's approver, without a phone."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from agentvault_tui.clock import SystemClock
from agentvault_tui.demo.approver import approve
from agentvault_tui.errors import AgentVaultError


def main(argv: list[str] | None = None) -> int:
    """Approve the step-up that the console shows, and return an exit code."""
    parser = argparse.ArgumentParser(
        prog="approve",
        description="Approve, as the demo's approver, what the console asks for.",
    )
    parser.add_argument("--home", required=True, type=Path, help="the demo's home")
    parser.add_argument("--yes", action="store_true", help="do not ask again")
    parser.add_argument("code", nargs="?", help="default: the one the console shows")
    given = parser.parse_args(argv)
    try:
        return asyncio.run(
            approve(given.home, SystemClock(), given.code, yes=given.yes)
        )
    except AgentVaultError as error:
        print(f"approve: {error.diagnosis()}", file=sys.stderr)  # noqa: T201 - its face
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
