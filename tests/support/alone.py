"""Keeps a run to itself: no terminal, an environment a test, nothing left behind.

A test that asks where nobody answers would ask whoever runs the tests, on their own
terminal. What a test leaves, a process or a file, is found at the end of the run: all
of it has the run's mark in its environment, or is in the run's folder.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import termios
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from multiprocessing import util
from pathlib import Path
from typing import Final

import pytest

_MARK: Final = "AV_TEST_RUN"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the run makes a folder of its own in it
_ROOM: Final = 2**31
_TESTS: Final = "t"
"""The part of the run's folder that has pytest's own."""
_LAST: Final = -200
_ROOT: Final = Path(__file__).parent.parent.parent
_FOLDER: Final = pytest.StashKey[Path]()
_BEFORE: Final = pytest.StashKey[set[str]]()
_LEFT: Final = pytest.StashKey[list[str]]()


def _is_first(config: pytest.Config) -> bool:
    """Tell whether this process was started by a person, and is no worker of xdist."""
    return not hasattr(config, "workerinput")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of this wait for less."""
    parser.addini("gone_within", "seconds that processes have to end in", default="15")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the run its folder and mark, and this process no terminal."""
    if _is_first(config):
        os.environ[_MARK] = secrets.token_hex(8)
        config.stash[_BEFORE] = set(_lasting_files())
        folder = config.stash[_FOLDER] = _own_folder()
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        if config.option.basetemp is None:
            config.option.basetemp = str(folder / _TESTS)
    if not (_is_first(config) and config.getoption("numprocesses", None)):
        leave_terminal()


def _own_folder() -> Path:
    """Make the run's folder: in memory, where there is room.

    A disk takes 4 ms to flush and a test flushes often, which is all it waits for. Its
    name is short: a socket's path may have 108 bytes.
    """
    where = None
    if "TMPDIR" not in os.environ and _MEMORY.is_dir():
        room = os.statvfs(_MEMORY)
        free, runs = room.f_bavail * room.f_frsize, not room.f_flag & os.ST_NOEXEC
        if runs and os.access(_MEMORY, os.W_OK) and free > _ROOM:
            where = _MEMORY
    folder = Path(tempfile.mkdtemp(prefix="av-", dir=where))
    folder.chmod(0o711)  # PostgreSQL has a user of its own
    return folder


def leave_terminal() -> None:
    """Give up the terminal: from now on ``/dev/tty`` cannot be opened (tty(4)).

    Ctrl+c still arrives: it is sent to the group of processes in the foreground.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return
    # The kernel hangs up on the group of a session's leader.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    finally:
        signal.signal(signal.SIGHUP, before)
        os.close(terminal)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Restore what a test, or a library it uses, left in the environment."""
    before = dict(os.environb._data)  # type: ignore[attr-defined]
    try:
        return (yield)
    finally:
        if os.environb._data != before:  # type: ignore[attr-defined]
            for name in os.environb.keys() - before.keys() - {b"PYTEST_CURRENT_TEST"}:
                del os.environb[name]
            os.environb.update(before)


# At the end


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that left something behind; remove its folder unless it failed."""
    config = session.config
    if (folder := config.stash.get(_FOLDER, None)) is None:
        return
    left = config.stash[_LEFT] = [
        *_left_processes(float(config.getini("gone_within"))),
        *_left_files(config, folder),
    ]
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        # After Python's own: its helpers have a folder in it until this process ends.
        last = {"args": (folder,), "kwargs": {"ignore_errors": True}}
        util.Finalize(None, shutil.rmtree, **last, exitpriority=_LAST)


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Name it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    for one in config.stash.get(_LEFT, ()):
        if reporter is not None:
            reporter.write_line(f"LEFT BEHIND {one}", red=True)


def _left_processes(seconds: float) -> list[str]:
    """Return the processes of the run that do not end in time; Linux tells."""
    ends = time.monotonic() + seconds
    while left := list(_marked()):
        if time.monotonic() > ends:
            return left
        time.sleep(0.05)
    return []


def _marked() -> Iterator[str]:
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or is another user's
            if int(entry.name) == os.getpid() or mark not in _words(entry / "environ"):
                continue
            line = b" ".join(_words(entry / "cmdline")).decode(errors="replace")
            # Python's helpers end when this process does.
            helps = "multiprocessing.forkserver" in line or "resource_tracker" in line
            if line and not (helps and _parent(entry) == os.getpid()):
                yield f"process {entry.name}: {line:.200}"


def _words(file: Path) -> list[bytes]:
    return file.read_bytes().rstrip(b"\0").split(b"\0")


def _parent(entry: Path) -> int:
    return int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def _left_files(config: pytest.Config, folder: Path) -> Iterator[str]:
    # Of Python's helpers that end with this process, and of pytest itself.
    own = (_TESTS, "pymp-")
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(own):
            yield f"file: {path}"
    for path in sorted(set(_lasting_files()) - config.stash[_BEFORE]):
        yield f"file: {path}"


def _lasting_files() -> Iterator[str]:
    """Yield what tests could leave in the tester's home and in the clone."""
    home = Path.home()
    for place in (".", ".config", ".cache", ".local/share", ".local/state"):
        yield from map(str, (home / place).glob("*agentvault*"))
    with suppress(OSError):  # no git
        line = ("git", "status", "--porcelain", "--untracked-files=all")
        said = subprocess.run(line, cwd=_ROOT, capture_output=True, check=False)
        for word in said.stdout.decode(errors="replace").splitlines():
            if word.startswith("??"):
                yield str(_ROOT / word[3:])
