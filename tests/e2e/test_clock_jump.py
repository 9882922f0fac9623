"""The wall clock is set while a broker serves and a console watches it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.console_terminal import CTRL_Q
from support.patience import PATIENT
from support.terminal import Terminal
from support.vault import PAYMENT, Vault

_PROGRAM = """
import sys
from datetime import timedelta
from pathlib import Path
from agentvault_tui.broker import serve
from agentvault_tui.clock import SystemClock
from agentvault_tui.console import run
from agentvault_tui.gateway import Gateway
from agentvault_tui.home import Home
from agentvault_tui.console_settings import ConsoleSettings
from agentvault_tui.settings import BrokerSettings, Settings

class SetClock(SystemClock):
    def now(self):
        return super().now() + timedelta(seconds=float(told.read_text()))

told = Path(sys.argv[3])
home = Home.locate(Path(sys.argv[2]))
if sys.argv[1] == "serve":
    settings = Settings(broker=BrokerSettings(listen="127.0.0.1:0"))
    sys.exit(serve.run(home, settings, clock=SetClock(), gateway=Gateway))
sys.exit(run(home.socket, read_only=False, settings=ConsoleSettings(), clock=SetClock(),
             memory_folder=home.socket.parent.parent, config_folder=home.config))
"""
"""Both take a clock that a file sets; the boot clock goes on, as it does."""
_TOKEN = re.compile(r" (\d+:)?(\d+):\d\d +1 allowed")
_JUMP = re.compile(r"clock set  [^\d\n]*(\d*)")
_STEPUP = re.compile(r"ends (\d+):\d\d")


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    file = tmp_path / "wall"
    file.write_text("0")
    return file


@contextmanager
def _serving(home: Path, wall: Path) -> Iterator[Vault]:
    line = [sys.executable, "-c", _PROGRAM, "serve", str(home), str(wall)]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        vault = Vault(home, process)
        try:
            yield vault
        finally:
            vault.close()
            process.terminate()
            process.wait(PATIENT)


def _set(wall: Path, seconds: int) -> None:
    part = wall.with_suffix(".part")
    part.write_text(str(seconds))
    part.replace(wall)


def _left(screen: Terminal) -> tuple[tuple[str, str], str]:
    """What the card says is left of the token, and the bar of the request."""
    shown = "\n".join(screen.display)
    token, stepup = _TOKEN.search(shown), _STEPUP.search(shown)
    hours = (token[1] or "", token[2]) if token else ("", "")
    return hours, stepup[1] if stepup else ""


def _jumps(screen: Terminal) -> int:
    """Count the jumps in the feed, where repeats are one row with a count."""
    counts = _JUMP.findall("\n".join(screen.display))
    return sum(int(count or 1) for count in counts)


def test_countdowns_are_right_whichever_way_the_clock_is_set(wall: Path) -> None:
    """Set back it promises no more time than there is; set on it ends what is over."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        home = Path(folder)
        with _serving(home, wall) as vault:
            agent = vault.register("payments-agent", "send:payment", "read:payments")
            agent.token("read:payments")
            agent.token("send:payment", PAYMENT)
            line = [sys.executable, "-c", _PROGRAM, "console", folder, str(wall)]
            env = {"PATH": os.environ["PATH"], "HOME": folder, "LANG": "C.UTF-8"}
            env |= {"TERM": "xterm-256color"}
            with Terminal(line, env, columns=120, rows=40) as screen:
                right = (("", "59"), "4")
                screen.read_until(lambda _: _left(screen) == right)
                _set(wall, -7200)
                screen.read_until(lambda _: _jumps(screen) > 0)
                screen.see("● live")
                screen.read_until(lambda _: _left(screen) == right)
                _set(wall, 1800)
                screen.read_until(lambda _: _jumps(screen) == 2)
                screen.see("expired unanswered")
                screen.read_until(lambda _: _left(screen) == (("", "29"), ""))
                screen.write(CTRL_Q)
                assert screen.finish() == 0
            events = vault.operator.get("/api/audit?type=clock.jump").json()["events"]
            assert len(events) == 2
