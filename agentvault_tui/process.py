"""Hardens a process, starts the tenant as a child, and formats the log."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import platform
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from agentvault_tui.clock import iso
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.text import visible

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_PR_SET_DUMPABLE: Final = 4
_NICE: Final = 19
_NOTIFY_SECONDS: Final = 1.0
"""How long the service manager may leave a message unread."""
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}
"""The number of the system call, for which the standard library has no name."""
_IDLE_CLASS: Final = 3 << 13


def harden() -> None:
    """Make files private, forbid core dumps, and exclude same-uid processes.

    Without ``PR_SET_DUMPABLE`` another process of the same user reads
    ``/proc/PID/environ`` and attaches a debugger.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def yield_to_others() -> None:
    """Use the processor and disk only when others do not (sched(7), ioprio_set(2))."""
    os.nice(_NICE)
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    call = _IOPRIO_SET.get(platform.machine())
    if call is not None:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).syscall(call, 1, 0, _IDLE_CLASS)


def end_with_stdin() -> None:
    """End this process once no process holds the other end of its stdin."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def notify(state: str) -> None:
    """Notify the service manager of this process's state (sd_notify(3)).

    Args:
        state: ``READY=1``, ``WATCHDOG=1`` or ``STOPPING=1``. Nothing is done where no
            manager asked for it.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.settimeout(_NOTIFY_SECONDS)
        manager.sendto(state.encode(), path.replace("@", "\0", 1))


def watchdog_seconds() -> float | None:
    """Return how often at least a service manager wants ``WATCHDOG=1``, if it does.

    It ends a process that is silent for longer (sd_watchdog_enabled(3)).
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 1_000_000
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours that ends when its stdin closes, so not later than we do."""

    process: subprocess.Popen[bytes]
    pair: socket.socket
    """Our end of a socket pair; the child gets the number of its own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it at once: the process that started it has stopped it in good order."""
        self.close()
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Let go of it: it ends. Its output until then can still be read."""
        assert self.process.stdin is not None  # noqa: S101 - both are pipes
        assert self.process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.pair.close()
        if self.process.returncode is not None:
            self.process.stdout.close()


def home_arguments(home: Home) -> tuple[str, ...]:
    """Return the arguments that give a child process of ours its home.

    One in two folders is the platform's own, which the child finds by itself.
    """
    return ("--home", str(home.data)) if home.data == home.config else ()


_INHERITED: Final = (
    *("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TMPDIR"),
    *("TZ", "USER"),
)


async def start_program(
    command: Sequence[str], stdin: int
) -> asyncio.subprocess.Process:
    """Start a program that is not ours: its input is *stdin*, its output two pipes.

    It has a session of its own, so that it and its children end together, and of our
    environment only the user's identity: no setting, proxy or secret.

    Raises:
        OSError: it cannot be started.
    """
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path.home(),
        env={name: os.environ[name] for name in _INHERITED if name in os.environ},
        start_new_session=True,
    )


def start_tenant(home: Home) -> Child:
    """Start the embedded tenant's process, and return at once.

    It loads, and touches nothing of the home until it gets its orders: so it is started
    before the rest of the broker is loaded, and before the home's lock is taken.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        # -P: a json.py in the folder we were started from must not be imported.
        process = subprocess.Popen(
            [
                *(sys.executable, "-E", "-P", "-m", "agentvault_tui.tenant"),
                *home_arguments(home),
                *("--parent-fd", str(theirs.fileno())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
    return Child(process, ours)


def log_json_lines(default: str = "warning") -> None:
    """Send the log to stderr, one JSON object a line, by default from *default* on.

    HTTP libraries stay quiet: at lower levels they log URLs and headers.

    Raises:
        SettingsError: ``AGENTVAULT_LOG_LEVEL`` is not a level.
    """
    level = log_level(default)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "asyncio", "aiosqlite"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log_level(default: str) -> str:
    """Return ``AGENTVAULT_LOG_LEVEL`` as `logging` names it, by default *default*.

    Raises:
        SettingsError: it is not one of the levels; names them.
    """
    level = os.environ.get("AGENTVAULT_LOG_LEVEL") or default
    if level.lower() not in LOG_LEVELS:
        raise SettingsError(
            f"AGENTVAULT_LOG_LEVEL is '{visible(level, 40)}'",
            f"it may be {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}",
        )
    return level.upper()


class _JsonFormatter(logging.Formatter):
    """One record, one line: a newline in a message cannot forge a second one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": iso(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
