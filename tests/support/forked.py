"""`agentvault` in a process forked from one that has imported it.

That takes a tenth of the processor time of a start by its command line, which
`support.command_line.running` and the demo's tests do.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Final, Self

from support.patience import PATIENT

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "__main__",  # the script that started pytest, or each fork would run it
        "agentvault_tui.cli.app",
        "agentvault_tui.cli.serve",
        "agentvault_tui.broker.serve",
        "agentvault_tui.gateway.run",
    ]
)


class Forked:
    """A process with its output on a pipe, used as `subprocess.Popen` is."""

    def __init__(
        self, argv: tuple[str, ...], env: Mapping[str, str], room: int | None = None
    ) -> None:
        """Start it. With *room* no file of it may have more bytes."""
        ours, theirs = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(
            target=_run, args=(argv, dict(env), theirs, room), daemon=True
        )
        self._process.start()
        theirs.close()
        self.stdout = os.fdopen(os.dup(ours.fileno()), encoding="utf-8")
        ours.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()

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


def _run(
    argv: tuple[str, ...], env: dict[str, str], out: Connection, room: int | None
) -> None:
    """Be `agentvault`: the streams, the environment and the arguments of a command."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor, stream in ((nowhere, 0), (out.fileno(), 1), (nowhere, 2)):
        os.dup2(descriptor, stream)
    os.close(nowhere)
    out.close()
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["agentvault", *argv]
    if room is not None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    from agentvault_tui.cli import main  # noqa: PLC0415 - no import before the fork's

    main()
