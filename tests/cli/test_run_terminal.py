"""A confined command has a terminal of its own, and cannot reach the user's."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from cli.conftest import Broker
from support.command_line import PROGRAM, Answer
from support.confining import SYSTEM_PYTHON, need_confinement
from support.patience import PATIENT

pytestmark = pytest.mark.slow


_TIOCGETD, _TIOCGEXCL = 0x5424, 0x80045440


class Terminal:
    """A terminal with a shell script in it that calls `run` and goes on."""

    def __init__(self, process: subprocess.Popen[bytes], ours: int, name: str) -> None:
        self.process, self._ours, self.name, self.shown = process, ours, name, b""

    def state(self) -> tuple[object, ...]:
        """Return what a program could have changed for those that follow."""
        there = os.open(self.name, os.O_RDWR | os.O_NOCTTY)
        line = fcntl.ioctl(there, _TIOCGETD, bytes(4))
        exclusive = fcntl.ioctl(there, _TIOCGEXCL, bytes(4))
        size = fcntl.ioctl(there, termios.TIOCGWINSZ, bytes(8))
        attributes = termios.tcgetattr(there)
        os.close(there)
        nice = Path(f"/proc/{self.process.pid}/autogroup").read_text().split()[-1]
        mode = Path(self.name).stat().st_mode
        return line, exclusive, size, attributes, nice, mode

    def type(self, text: bytes) -> None:
        os.write(self._ours, text)

    def until(self, text: bytes) -> bytes:
        """Read until the screen has *text*; return everything that was printed."""
        ends = time.monotonic() + PATIENT
        while text not in self.shown:
            assert time.monotonic() < ends, self.shown
            if select.select([self._ours], [], [], 1)[0]:
                self.shown += os.read(self._ours, 4096)
        return self.shown


Open = Callable[..., AbstractContextManager[Terminal]]
SCRIPT = 'sleep 600 & "$@"; echo code-$?; kill -0 $! && echo sibling-lives; kill $!'


@pytest.fixture
def open_terminal(broker: Broker, coder: str, tmp_path: Path) -> Open:
    """Return how to run a command confined in a terminal."""
    need_confinement()
    for name in ("me", "work"):
        (tmp_path / name).mkdir()

    @contextmanager
    def opened(*words: str, script: str = SCRIPT) -> Iterator[Terminal]:
        ours, theirs = os.openpty()
        name = os.ttyname(theirs)

        def at_terminal() -> None:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        run = [*PROGRAM, "run", "--agent", coder, "--confine", "--", *words]
        with subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", *run],
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            cwd=tmp_path / "work",
            env=broker.env | {"HOME": str(tmp_path / "me")},
            preexec_fn=at_terminal,  # noqa: PLW1509 - no other thread is at work
        ) as process:
            os.close(theirs)
            terminal = Terminal(process, ours, name)
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
    with open_terminal("sh", "-c", script) as terminal:
        terminal.type(b"hello\n")
        terminal.until(b"got-hello")
        terminal.type(b"\x03")
        terminal.until(b"code-5")
        assert b"sibling-lives" in terminal.until(b"sibling-lives")


def test_the_users_terminal_stays_as_it_was(open_terminal: Open) -> None:
    """Mode, line discipline, size and nice value are those of its own terminal."""
    code = (
        "import fcntl, os, termios, time\n"
        "os.fchmod(0, 0o666)\n"
        "os.set_blocking(0, False)\n"
        "fcntl.ioctl(0, termios.TIOCSWINSZ, bytes((5, 0, 5, 0, 0, 0, 0, 0)))\n"
        "fcntl.ioctl(0, termios.TIOCEXCL)\n"
        "open('/proc/self/autogroup', 'w').write('19')\n"
        "print('tried', *os.get_terminal_size(), flush=True)\n"
        "fcntl.ioctl(0, 0x5423, bytes((27, 0, 0, 0)))\n"  # TIOCSETD, N_NULL
    )
    with open_terminal(SYSTEM_PYTHON, "-c", code) as terminal:
        before = terminal.state()
        terminal.until(b"tried 5 5")
        terminal.until(b"code-0")
        assert terminal.state() == before


def test_in_the_background_it_reads_no_keys(
    open_terminal: Open, tmp_path: Path
) -> None:
    """They go to the shell, also if the command asks to be in the foreground."""
    mark, got = tmp_path / "work/begun", tmp_path / "work/got"
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        "terminal = os.open('/dev/tty', os.O_RDWR)\n"
        "os.setpgid(0, 0)\n"
        "os.tcsetpgrp(terminal, os.getpgrp())\n"
        "open(sys.argv[1], 'w').close()\n"
        "keys = os.read(terminal, 100)\n"
        "open(sys.argv[2], 'wb').write(keys)\n"
    )
    words = (SYSTEM_PYTHON, "-c", code, str(mark), str(got))
    script = 'set -m; "$@" & read word; echo shell-$word; kill %1; wait; echo end'
    with open_terminal(*words, script=script) as terminal:
        ends = time.monotonic() + PATIENT
        while not mark.exists():
            assert time.monotonic() < ends, terminal.shown
            time.sleep(0.01)
        terminal.type(b"hunter2\n")
        terminal.until(b"shell-hunter2")
        terminal.until(b"end")
    assert not got.exists()


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
    with open_terminal("sh", "-c", shell, code) as terminal:
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
    with open_terminal(SYSTEM_PYTHON, "-c", code) as terminal:
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


def connected(family: int) -> tuple[socket.socket, socket.socket]:
    if family == socket.AF_UNIX:
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_socket_as_standard_stream_is_copied(
    broker: Broker, coder: str, tmp_path: Path, family: int
) -> None:
    """The command gets pipes: a socket leads to the network that it was made in."""
    need_confinement()
    for name in ("me", "work"):
        (tmp_path / name).mkdir()
    script = "cat; stat -Lc %F /dev/stdin /dev/stdout /dev/stderr; cat /dev/stdin"
    line = [*PROGRAM, "run", "--agent", coder, "--confine", "--", "sh", "-c", script]
    ours, theirs = connected(family)
    with ours, theirs:
        ours.sendall(b"question\n")
        ours.shutdown(socket.SHUT_WR)
        done = subprocess.run(
            line,
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            cwd=tmp_path / "work",
            env=broker.env | {"HOME": str(tmp_path / "me")},
            timeout=PATIENT,
            check=False,
        )
        theirs.close()
        with ours.makefile() as answer:
            lines = answer.read().splitlines()
    assert done.returncode == 0, lines
    assert lines[:4] == ["question", "fifo", "fifo", "fifo"]


def test_input_that_does_not_end_holds_nothing_up(
    broker: Broker, coder: str, tmp_path: Path
) -> None:
    """The run ends with its command, while its standard input is still open."""
    need_confinement()
    for name in ("me", "work"):
        (tmp_path / name).mkdir()
    line = [*PROGRAM, "run", "--agent", coder, "--confine", "--", "head", "-n1"]
    with subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path / "work",
        env=broker.env | {"HOME": str(tmp_path / "me")},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"first\nsecond\n")
        process.stdin.flush()
        assert process.wait(PATIENT) == 0
        assert process.stdout.read() == b"first\n"


def test_it_ends_at_a_terminal_that_its_session_does_not_have() -> None:
    """Such as one that was hung up: SIGCONT follows, and ends nothing."""
    code = (
        "import os, signal\n"
        "from agentvault_tui.cli.run_terminal import CommandStreams\n"
        "streams = CommandStreams()\n"
        "streams.begin()\n"
        "os.write(streams.numbers[1], b'shown')\n"
        "os.kill(os.getpid(), signal.SIGCONT)\n"
        "streams.restore()\n"
    )
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        start_new_session=True,
        timeout=PATIENT,
        check=False,
    )
    shown = os.read(ours, 100)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, shown) == (0, b"shown")


@pytest.mark.parametrize("output", [subprocess.PIPE, subprocess.DEVNULL])
def test_in_a_pipeline_the_next_program_gets_the_keys(output: int) -> None:
    """The command's input ends at once if `run` writes into a pipe."""
    code = (
        "import os, sys\n"
        "from agentvault_tui.cli.run_terminal import CommandStreams\n"
        "streams = CommandStreams()\n"
        "given = streams.numbers[0]\n"
        "sys.stderr.write('keys' if os.isatty(given) else repr(os.read(given, 9)))\n"
        "streams.restore()\n"
    )
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=output,
        stderr=subprocess.PIPE,
        start_new_session=True,
        timeout=PATIENT,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert done.stderr == (b"b''" if output == subprocess.PIPE else b"keys")
