"""Checks what the terminal can do, and asks for confirmation on it."""

from __future__ import annotations

import os
import sys
import termios
import time
from collections.abc import Callable
from typing import Final

import click

from agentvault_tui.errors import UsageError

_ARM_SECONDS: Final = 0.6
"""As in the console: nobody reads a question and answers it in less."""


def confirm(question: str, clock: Callable[[], float] = time.monotonic) -> bool:
    """Ask yes or no, in our own words, about what was just shown; no is the default.

    What was typed before the question stood there answers nothing, and neither does an
    answer that came faster than the question can be read.
    """
    while True:
        if sys.stdin.isatty():
            termios.tcflush(sys.stdin, termios.TCIFLUSH)
        asked = clock()
        agreed = click.confirm(question, default=False, err=True)
        if not agreed or clock() - asked >= _ARM_SECONDS:
            return agreed
        click.echo("That came before the question could be read.", err=True)


def require_screen() -> None:
    """Make sure the console can be drawn and read keys.

    Textual paints on stderr, so that one counts as well.
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
