"""The command line: parses an operator's commands and calls the rooms."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Be the ``agentvault`` program; a hook starts without all that others need."""
    if sys.argv[1:2] == ["hook"]:
        from agentvault_tui.cli import hook

        code = hook.main(sys.argv[2:])
        if code is not None:
            sys.exit(code)
    from agentvault_tui.cli import app

    app.main()
