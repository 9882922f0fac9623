"""The console's program for a pseudo-terminal, and what it writes when it leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.manual_clock import ManualClock
from support.terminal import Terminal

from agentvault_tui.console import run
from agentvault_tui.console_settings import ConsoleSettings
from agentvault_tui.home import Home

LEAVING = ("\x1b[?1049l", "\x1b[?25h", "\x1b[?2004l")
CTRL_Q = "\x11"

Open = Callable[..., Terminal]


_READ_BY_A_START = ("LANG", "LC_ALL")
_FRESH = (
    "import sys\nfrom support.console_terminal import console\nconsole(*sys.argv[1:])"
)


def console(socket: str, folder: str, *words: str) -> None:
    """Be the console; with the word ``still`` two paints of the same are the same."""
    if "own" in words:
        # A session leader's first terminal is its own.
        os.open(os.ttyname(0), os.O_RDWR)
    home = Path(folder)
    code = run(
        Path(socket),
        read_only="read-only" in words,
        settings=ConsoleSettings.load(Home.locate(home)),
        memory_folder=home,
        config_folder=home,
        clock=ManualClock(datetime.now(UTC)) if "still" in words else None,
    )
    sys.exit(code)


def opener(socket: Path, folder: Path) -> Open:
    """Return what opens a console of *socket*: with words on its line and variables."""

    def opened(*more: str, **env: str) -> Terminal:
        line: list[Any] = [console]
        if not env.keys().isdisjoint(_READ_BY_A_START):
            line = [sys.executable, "-c", _FRESH]
        line += [str(socket), str(folder), *more]
        kept = {name: os.environ[name] for name in ("PATH", "HOME")}
        base = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
        base["PYTHONPATH"] = str(Path(__file__).parent.parent)
        return Terminal(line, {**kept, **base, **env}, columns=120, rows=40)

    return opened


def press(screen: Terminal, keys: str, seen: str) -> None:
    """Write keys, and wait until *seen* stands on the screen.

    Text must not follow a control key at once: the key takes longer to arrive.
    """
    screen.write(keys)
    screen.see(seen)
