"""`agentvault` in a process forked from one that has imported it.

That takes a tenth of the processor time of a start by its command line, which
`support.command_line.running` and the demo's tests do. A test whose subject is what a
start reads of its environment, such as the locale, starts one that is not forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Final, Self
from unittest import mock

import pytest
from support import prompt_jobs
from support.needs import Reporting
from support.patience import PATIENT

from agentvault_tui import console, process
from agentvault_tui.home import Home
from agentvault_tui.process import start_tenant

_CONTEXT: Final = multiprocessing.get_context("forkserver")
# First the script that started pytest, or each fork would run it.
_CONTEXT.set_forkserver_preload(["__main__", "support.preloaded"])
_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_LOG_BYTES: Final = 8192
"""How much of a process's log a failure shows: the end of it."""


_STARTING: Final = threading.Lock()


@cache
def _start_server() -> None:
    # Textual reads its own when it is loaded; Python 3.11 hands on no `sys.path`.
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Threads of a gateway may be the first to fork.
    with _STARTING, pytest.MonkeyPatch.context() as patch:
        for name, value in (console._TEXTUAL | path).items():
            patch.setenv(name, value)
        forkserver.ensure_running()


class Process:
    """A forked process that runs one function, used as `subprocess.Popen` is."""

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: object,
        env: Mapping[str, str],
        streams: Sequence[int],
        session: bool = False,
    ) -> None:
        """Start it with *streams* as its input, output and error output.

        With *session* it is the leader of a session of its own, without a terminal.
        """
        _start_server()
        lent = [Connection(os.dup(one)) for one in streams]
        self._process = _CONTEXT.Process(
            target=_begin,
            args=(function, arguments, dict(env), lent, session),
            daemon=True,
        )
        self._process.start()
        for one in lent:
            one.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float = PATIENT) -> int:
        """Wait for its end, and return its exit code or minus the signal."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("agentvault", timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forked(Process):
    """`agentvault`, or *begin*, with its output on a pipe and its errors in a log.

    A test that fails shows the log.
    """

    started: Final[list[Forked]] = []
    """Those of the present test, and of fixtures that are still in use."""

    def __init__(
        self,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        room: int | None = None,
        begin: Callable[..., object] | None = None,
    ) -> None:
        """Start it. With *room* no file of `agentvault` may have more bytes."""
        begin = begin or partial(agentvault, room=room)
        ours, theirs = os.pipe()
        self.argv = argv
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - see below
        with Path(os.devnull).open("r+b") as nowhere:
            streams = (nowhere.fileno(), theirs, self.log.fileno())
            super().__init__(begin, *argv, env=env, streams=streams)
        os.close(theirs)
        self.stdout = os.fdopen(ours, encoding="utf-8")
        Forked.started.append(self)

    def communicate(self, timeout: float = PATIENT) -> tuple[str, str]:
        """Wait for its end; return what it printed from here on, and its log."""
        with self.stdout:
            rest = self.stdout.read()
        self.wait(timeout)
        self.log.seek(0)
        return rest, self.log.read().decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Reporting:
    """Show what the processes of a test that failed have logged."""
    report = yield
    if report.failed:
        for one in Forked.started:
            one.log.seek(max(one.log.seek(0, os.SEEK_END) - _LOG_BYTES, 0))
            text = one.log.read().decode(errors="replace")
            report.sections.append((f"log of {' '.join(one.argv)}", text))
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish() -> None:
    """Forget the logs of processes that have ended with their test."""
    for one in [one for one in Forked.started if one.poll() is not None]:
        one.log.close()
        Forked.started.remove(one)


def run(
    *argv: str, env: Mapping[str, str], folder: Path | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run one command line in *folder* to its end, with *given* as its input."""
    with (
        tempfile.TemporaryFile(buffering=0) as into,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        into.write(given)
        into.seek(0)
        streams = (into.fileno(), out.fileno(), err.fileno())
        begin = partial(agentvault, folder=folder)
        code = Process(begin, *argv, env=env, streams=streams).wait()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), err.read())


def worker(
    _: Sequence[str], *, stdin: int, env: Mapping[str, str], **__: object
) -> Process:
    """Fork a gateway's worker, which the gateway starts as a program.

    That would take 0.7 s of processor time in each test whose gateway has one.
    """
    with Path(os.devnull).open("r+b") as nowhere:
        streams = (stdin, nowhere.fileno(), nowhere.fileno())
        return Process(_work, env=env, streams=streams, session=True)


def _work() -> None:
    from agentvault_tui.gateway import workers  # noqa: PLC0415 - the child's

    os.chdir("/")
    workers.main()


class _ForkedTenant(subprocess.Popen[bytes]):
    """The tenant's process, forked from the broker's, which has imported it."""

    def _execute_child(self, args: Any, *more: Any) -> None:
        """Fork where `Popen` starts a program: *args* is its command line.

        The process that forks has one thread and has opened nothing yet.
        """
        lent = more[3]
        theirs_in, _, _, theirs_out = more[9:13]
        self.pid = os.fork()
        if self.pid:
            self._child_created = True
            os.close(theirs_in)
            os.close(theirs_out)
            return
        try:
            os.dup2(theirs_in, 0)
            os.dup2(theirs_out, 1)
            for one in (int(path.name) for path in list(Path("/dev/fd").iterdir())):
                if one > 2 and one not in lent:
                    with contextlib.suppress(OSError):
                        os.close(one)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # as its __main__ does
            options = args[args.index("agentvault_tui.tenant") + 1 :]
            from agentvault_tui.tenant.process import main  # noqa: PLC0415 - the child's

            os._exit(main(options))
        finally:
            os._exit(1)


def _start_tenant(home: Home) -> process.Child:
    with mock.patch.object(subprocess, "Popen", _ForkedTenant):
        return start_tenant(home)


def _begin(
    function: Callable[..., object],
    arguments: Sequence[Any],
    env: dict[str, str],
    lent: Sequence[Connection],
    session: bool,
) -> None:
    if session:
        os.setsid()
    for stream, one in enumerate(lent):
        os.dup2(one.fileno(), stream)
        one.close()
    for stream, (name, mode) in enumerate(_STREAMS):
        file = os.fdopen(stream, mode, buffering=1, encoding="utf-8", closefd=False)
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    os.environ.clear()
    os.environ.update(env)
    function(*arguments)


def agentvault(*argv: str, room: int | None = None, folder: Path | None = None) -> None:
    """Be `agentvault`, started in *folder*; with *room* no file gets larger."""
    sys.argv = ["agentvault", *argv]
    if folder is not None:
        os.chdir(folder)
    if room is not None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    # Not the broker's own name for it: a running one has threads, and starts a program.
    process.start_tenant = _start_tenant
    asyncio.create_subprocess_exec = prompt_jobs.start
    from support.tenant_store import CHEAP  # noqa: PLC0415 - pytest's plugins first

    from agentvault_tui.tenant import parts, users  # noqa: PLC0415 - no import before

    for one in (parts, users):  # 0.1 s of processor time for each password
        one.strong_hasher = lambda: CHEAP
    from agentvault_tui.cli import main  # noqa: PLC0415 - no import before the fork's

    main()
