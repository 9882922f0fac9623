"""Starts and stops the commands that the demo runs as processes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentvault_tui.errors import AgentVaultError, RefusedError, UsageError

AGENTVAULT: Final = (sys.executable, "-E", "-P", "-m", "agentvault_tui.cli")
"""The command of the installed script ``agentvault``, whether or not it is on the
PATH."""
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
"""Loaded here: between fork and exec nothing should be."""
_START: Final = 30.0
_STOP: Final = 15.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The first line of ``agentvault serve`` once it listens."""

    agents_url: str
    tenant: str
    """The issuer of the embedded tenant."""
    socket: Path


@contextlib.asynccontextmanager
async def serving(home: Path) -> AsyncIterator[Ready]:
    """Run ``agentvault serve`` on *home*; stop it at the end."""
    log = home / "demo" / "broker.log"
    with os.fdopen(private(log, os.O_APPEND), "ab") as stderr:
        # A process group of its own: ctrl+c reaches the demo alone, which lets the
        # agents finish before it stops the broker.
        process = await asyncio.create_subprocess_exec(
            *AGENTVAULT,
            *("--home", str(home), "serve", "--listen", "127.0.0.1:0", "--no-tls"),
            "--until-stdin-closes",  # which it does even if we are killed
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            process_group=0,
        )
    try:
        yield await _ready(process, log)
    finally:
        await stop(process)


async def _ready(process: asyncio.subprocess.Process, log: Path) -> Ready:
    line = b""
    if process.stdout is not None:
        with contextlib.suppress(TimeoutError):
            line = await asyncio.wait_for(process.stdout.readline(), _START)
    try:
        message = json.loads(line)
        return Ready(
            message["agents_url"].rstrip("/"),
            message["tenant"],
            Path(message["operator_socket"]),
        )
    except (ValueError, KeyError) as error:
        failure = AgentVaultError
        with contextlib.suppress(TimeoutError):
            if await asyncio.wait_for(process.wait(), _STOP) == UsageError.exit_code:
                failure = UsageError
        raise failure(f"the demo's broker did not start: {_last_line(log)}") from error


async def stop(process: asyncio.subprocess.Process) -> None:
    """Stop *process* by SIGTERM, then SIGKILL."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP)
    except TimeoutError:
        process.kill()
        await process.wait()


async def console(
    home: Path, link: str | None, set_up: int, *, passing: bool
) -> asyncio.subprocess.Process:
    """Open ``agentvault console`` on *home* in this terminal, for that kind of link.

    The demo's own set-up ends with the event *set_up*. A console of a *passing* home
    stores its state about ledgers in that home, so that it is deleted with it.
    """
    line = [*AGENTVAULT, "--home", str(home), "console", "--known-to", str(set_up)]
    if link is not None:
        line += ["--link", link]
    environ = dict(os.environ)
    if passing:
        environ["XDG_STATE_HOME"] = str(home / "demo" / "state")
    return await asyncio.create_subprocess_exec(
        *line, env=environ, preexec_fn=_end_with_parent
    )


def _end_with_parent() -> None:
    """Have the kernel end this child when its parent is killed (Linux; prctl(2)).

    The console's stdin is the terminal, so it cannot watch a pipe as the broker does.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


async def ask(home: Path, *arguments: str) -> dict[str, Any]:
    """Run one ``agentvault`` command on *home* with ``--json``; return its output."""
    process = await asyncio.create_subprocess_exec(
        *AGENTVAULT,
        *("--home", str(home), *arguments, "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode:
        words = err.decode(errors="replace").strip().removeprefix("agentvault: ")
        raise RefusedError(f"`agentvault {arguments[0]}` failed ({words})")
    answer: dict[str, Any] = json.loads(out)
    return answer


def private(path: Path, flags: int = os.O_TRUNC, mode: int = 0o600) -> int:
    """Open *path* for writing with a private mode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags, mode)
    os.fchmod(descriptor, mode)
    return descriptor


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write *text* to *path*, for its owner alone under any umask."""
    with os.fdopen(private(path, mode=mode), "w") as file:
        file.write(text)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        last = str(json.loads(last)["message"])
    return last.removeprefix("agentvault: ")
