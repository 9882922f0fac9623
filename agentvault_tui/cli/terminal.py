"""Whether there is a terminal a full-screen console can be drawn on."""

from __future__ import annotations

import os
import sys

from agentvault_tui.errors import UsageError


def require_screen() -> None:
    """Make sure the console can be drawn and read keys.

    Textual paints on stderr, so that one counts as well.

    Raises:
        UsageError: it cannot, with what can be done instead.
    """
    if os.environ.get("TERM", "") in {"", "dumb"}:
        raise UsageError(
            "this terminal cannot draw the console (TERM is dumb or not set)",
            "use `agentvault console --plain`, or `agentvault audit tail --follow`",
        )
    for name, stream in (
        ("standard input", sys.stdin),
        ("standard output", sys.stdout),
        ("standard error", sys.stderr),
    ):
        if stream is None or not stream.isatty():
            raise UsageError(
                f"the console needs a terminal, and {name} is none",
                "use `agentvault console --plain`, or `agentvault audit tail --follow`",
            )
