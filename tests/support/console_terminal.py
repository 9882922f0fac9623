"""The console's program for a pseudo-terminal, and what it writes when it leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from support.terminal import Terminal

_PROGRAM = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
if len(sys.argv) > 3 and sys.argv[3] == "own":
    os.open(os.ttyname(0), os.O_RDWR)  # a session leader's first terminal is its own
from support.manual_clock import ManualClock
from agentvault_tui.console import run
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings
home = Path(sys.argv[2])
settings = Settings.load(Home.locate(home))
sys.exit(run(Path(sys.argv[1]), read_only="read-only" in sys.argv, settings=settings,
             memory_folder=home, config_folder=home,
             clock=ManualClock(datetime.now(UTC)) if "still" in sys.argv else None))
"""
"""With the word ``still`` its clock stands: two paints of the same are the same."""
LEAVING = ("\x1b[?1049l", "\x1b[?25h", "\x1b[?2004l")
CTRL_Q = "\x11"

Open = Callable[..., Terminal]


def opener(socket: Path, folder: Path) -> Open:
    """Return what opens a console of *socket*: with words on its line and variables."""

    def opened(*more: str, **env: str) -> Terminal:
        line = [sys.executable, "-c", _PROGRAM, str(socket), str(folder), *more]
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
