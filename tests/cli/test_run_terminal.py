"""A confined command has the terminal, and reaches nothing outside through it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli.conftest import PROGRAM, Broker
from support.command_line import Answer
from support.confining import SYSTEM_PYTHON, need_confinement
from support.patience import PATIENT

pytestmark = pytest.mark.slow


class Terminal:
    """A terminal with a shell script in it that calls `run` and goes on."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int) -> None:
        self.process, self._ours, self.shown = process, ours, b""

    def type(self, text: bytes) -> None:
        os.write(self._ours, text)

    def until(self, text: bytes) -> bytes:
        """Read until the screen has *text*; return all that it has had."""
        ends = time.monotonic() + PATIENT
        while text not in self.shown:
            assert time.monotonic() < ends, self.shown
            if select.select([self._ours], [], [], 1)[0]:
                self.shown += os.read(self._ours, 4096)
        return self.shown


Open = Callable[..., object]


@pytest.fixture
def open_terminal(broker: Broker, coder: str, tmp_path: Path) -> Open:
    """Return how to run a command confined in a terminal."""
    need_confinement()
    for name in ("me", "work"):
        (tmp_path / name).mkdir()

    @contextmanager
    def opened(*words: str) -> Iterator[Terminal]:
        ours, theirs = os.openpty()

        def at_terminal() -> None:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        run = [*PROGRAM, "run", "--agent", coder, "--confine", "--", *words]
        script = 'sleep 600 & "$@"; echo code-$?; kill -0 $! && echo sibling-lives'
        with subprocess.Popen(
            ["/bin/sh", "-c", f"{script}; kill $!", "sh", *run],
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            cwd=tmp_path / "work",
            env=broker.env | {"HOME": str(tmp_path / "me")},
            preexec_fn=at_terminal,  # noqa: PLW1509 - no other thread is at work
        ) as process:
            os.close(theirs)
            terminal = Terminal(process, ours)
            try:
                yield terminal
                assert process.wait(PATIENT) == 0
            finally:
                process.kill()
                os.close(ours)

    return opened


def test_it_reads_the_terminal_and_ctrl_c_is_its_own(open_terminal: Open) -> None:
    """It is the terminal's foreground, which comes back to the script afterwards."""
    script = "trap 'exit 5' INT; read word; echo got-$word; while :; do sleep 0.1; done"
    with open_terminal("sh", "-c", script) as terminal:  # type: ignore[attr-defined]
        terminal.type(b"hello\n")
        terminal.until(b"got-hello")
        terminal.type(b"\x03")
        terminal.until(b"code-5")
        assert b"sibling-lives" in terminal.until(b"sibling-lives")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP])
def test_a_signal_to_its_group_reaches_nothing_outside(
    open_terminal: Open, number: int
) -> None:
    """Neither `run`, which records its attempts, nor the script and its children."""
    code = (
        "import os, signal, subprocess, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); time.sleep(0.3); os.kill(int(sys.argv[2]), 9); os._exit(0)\n"
        "os.kill(0, int(sys.argv[1]))\n"
        "time.sleep(600)\n"
    )
    shell = f'exec {SYSTEM_PYTHON} -c "$0" {number:d} $$'
    with open_terminal("sh", "-c", shell, code) as terminal:  # type: ignore[attr-defined]
        shown = terminal.until(b"sibling-lives")
        assert shown.index(b"0 refused") < shown.index(b"code-137")


def test_it_cannot_hold_up_its_own_end(
    open_terminal: Open, av: Callable[..., Answer], coder: str, tmp_path: Path
) -> None:
    """It stops the terminal's output, for which the signal does not wait."""
    mark = tmp_path / "work/begun"
    code = (
        "import os, signal, termios, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
        "termios.tcflow(0, termios.TCOOFF)\n"
        f"open({str(mark)!r}, 'w').close()\n"
        "time.sleep(600)\n"
    )
    with open_terminal(SYSTEM_PYTHON, "-c", code) as terminal:  # type: ignore[attr-defined]
        ends = time.monotonic() + PATIENT
        while not mark.exists():
            assert time.monotonic() < ends
            time.sleep(0.01)
        av("agents", "revoke", coder, "--reason", "test")
        terminal.until(b"code-7")
        assert b"is stopped: its agent was revoked" in terminal.shown


def test_files_as_standard_streams_stay_as_they_are(
    broker: Broker, coder: str, tmp_path: Path
) -> None:
    """The command reads and appends, as it was let, and does nothing else to them."""
    need_confinement()
    for name in ("me", "work"):
        (tmp_path / name).mkdir()
    given, log = tmp_path / "given", tmp_path / "log"
    given.write_text("the question\n")
    given.chmod(0o640)
    log.write_text("an earlier line\n")
    script = (
        "cat; echo answer; echo error >&2; echo x > /proc/self/fd/0;"
        " chmod 666 /proc/self/fd/0; : > /proc/self/fd/1;"
        " echo last"
    )
    line = [*PROGRAM, "run", "--agent", coder, "--confine", "--", "sh", "-c", script]
    with given.open("rb") as stdin, log.open("ab") as output:
        done = subprocess.run(
            line,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd=tmp_path / "work",
            env=broker.env | {"HOME": str(tmp_path / "me")},
            timeout=PATIENT,
            check=False,
        )
    text = log.read_text()
    assert done.returncode == 0, text
    assert given.read_text() == "the question\n"
    assert given.stat().st_mode & 0o777 == 0o640
    lines = text.splitlines()
    assert lines[:4] == ["an earlier line", "the question", "answer", "error"]
    assert "last" in lines
    assert lines.count("an earlier line") == 1
    assert "0 refused" in lines[-1]
