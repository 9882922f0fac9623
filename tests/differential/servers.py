"""The servers that read the corpus: how each starts, and what it is known to change."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.patience import PATIENT

from differential.comparing import Rules

HERE = Path(__file__).parent
FILES = HERE / "servers"
ROOT = HERE.parents[1]
PYTHON = ROOT / ".venv/differential/bin/python"
GO_SERVER = ROOT / ".venv/differential-go/server"
_PHP_STARTED = re.compile(rb"Development Server \(http://127.0.0.1:([0-9]+)\) started")
_PR_SET_PDEATHSIG = 1
_INSTALL = "make servers"


@dataclass(frozen=True)
class Server:
    """One program that reads requests and prints what it read."""

    name: str
    command: tuple[str, ...]
    missing: Callable[[], str | None]
    """Returns what the server needs, and what installs it."""
    rules: Rules = field(default_factory=Rules)
    env: Mapping[str, str] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Start the server; end it, and all that it started, with the block."""
        process = await asyncio.create_subprocess_exec(
            *self.command,
            cwd=FILES,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_us,
            limit=2**24,
        )
        running = Running(process)
        reading = asyncio.ensure_future(running.collect())
        try:
            async with asyncio.timeout(PATIENT):
                await running.listening.wait()
            assert running.port, f"{self.name} did not start: {running.log}"
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await reading


def _end_with_us() -> None:
    """Have Linux end a server whose test was killed before it could."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Running:
    """A server that runs, with the reports that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.reports: list[dict[str, Any]] = []
        self.log: list[str] = []
        """Its other lines."""
        self.port = 0
        self.listening = asyncio.Event()
        self._process = process

    async def collect(self) -> None:
        """Read reports until the server ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if started := _PHP_STARTED.search(line):
                self._listens(int(started[1]))
            elif not line.startswith(b"{"):
                self.log.append(line.decode(errors="replace"))
            elif "listening" in (report := json.loads(line)):
                self._listens(report["listening"])
            else:
                self.reports.append(report)
        self.listening.set()

    def _listens(self, port: int) -> None:
        self.port = port
        self.listening.set()


def _without(program: str, package: str) -> Callable[[], str | None]:
    reason = f"{program}: apt-get install {package}"
    return lambda: None if shutil.which(program) else reason


def _without_node() -> str | None:
    if shutil.which("node") is None:
        return "node: apt-get install nodejs npm"
    if not (HERE / "node_modules/express").is_dir():
        return f"Express: {_INSTALL}"
    return None


def _without_python() -> str | None:
    return None if PYTHON.exists() else f"Flask, Django and FastAPI: {_INSTALL}"


def _without_rack() -> str | None:
    reason = "rack and puma: apt-get install ruby ruby-rack puma"
    if not (ruby := shutil.which("ruby")):
        return reason
    tried = [ruby, "-e", "require 'rack'; require 'puma'"]
    found = subprocess.run(tried, check=False, capture_output=True, timeout=PATIENT)
    return None if found.returncode == 0 else reason


def _without_go() -> str | None:
    if not GO_SERVER.exists():
        return f"the server of Go: apt-get install golang-go, {_INSTALL}"
    sources = (FILES / "golang").glob("*.go")
    if GO_SERVER.stat().st_mtime < max(one.stat().st_mtime for one in sources):
        return f"a server of Go that is not older than its source: {_INSTALL}"
    return None


def _python(file: str) -> tuple[str, ...]:
    return str(PYTHON), "-u", file


_PLAIN = (sys.executable, "-u", "plain_http.py")
PLAIN = Server("python-http", _PLAIN, lambda: None, Rules(multipart=False))
_PHP = ("php", "-n", "-d", "display_errors=0", "-S", "127.0.0.1:0", "router.php")

SERVERS = (
    Server(
        "express",
        ("node", "express.cjs"),
        _without_node,
        Rules(nests=True, unread=frozenset(["__proto__"])),
    ),
    Server(
        "node-http",
        ("node", "node_http.cjs"),
        _without("node", "nodejs"),
        Rules(multipart=False),
    ),
    Server("flask", _python("flask_app.py"), _without_python),
    Server(
        "django",
        _python("django_app.py"),
        _without_python,
        Rules(basename=True, chunked=False, strips=True),
    ),
    Server("fastapi", _python("fastapi_app.py"), _without_python),
    Server(
        "rack",
        ("ruby", "rack_app.rb"),
        _without_rack,
        Rules(nests=True, last_wins=True, basename=True, unescapes=True),
    ),
    Server(
        "php",
        _PHP,
        _without("php", "php-cli"),
        Rules(
            nests=True,
            last_wins=True,
            php_names=True,
            unread=frozenset([""]),
            basename=True,
            forms_by_post=True,
        ),
    ),
    Server("go-http", (str(GO_SERVER),), _without_go, Rules(basename=True)),
    PLAIN,
    Server(
        "python-http-lazy",
        (*_PLAIN, "--lazy"),
        lambda: None,
        Rules(multipart=False, lazy=True),
    ),
)

MCP_SERVER = Server("go-mcp", (str(GO_SERVER), "-mcp"), _without_go)
