"""A confined command from its start to its end, with its way to AgentVault."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from agentvault_tui.confine.attempts import AttemptLog, AttemptWatcher
from agentvault_tui.confine.bubblewrap import (
    Bubblewrap,
    ConfinedProcess,
    own_devices,
    start,
)
from agentvault_tui.confine.folder_locks import locked
from agentvault_tui.confine.mounts import MountWatch, check_mounts
from agentvault_tui.confine.network import (
    LOOPBACK,
    Endpoint,
    InsideSockets,
    open_inside,
)
from agentvault_tui.confine.protected import Protection
from agentvault_tui.confine.relay import Relay
from agentvault_tui.confine.stand_ins import stand_ins
from agentvault_tui.confine.view import View

_STOPPED_S: Final = 0.05
"""Between two tries to continue the stopped group."""
_RESOLVER: Final = f"nameserver {LOOPBACK}\noptions attempts:1 timeout:2\n".encode()


@dataclass(frozen=True, slots=True)
class ConfinedCommand:
    """A command in namespaces, which waits until it is begun."""

    _started: ConfinedProcess
    log: AttemptLog | None
    """Its attempts to leave; None if its packets cannot be watched."""
    watch: MountWatch

    def begin(self) -> subprocess.Popen[bytes]:
        """Let it begin; return the process that has its exit code."""
        self._started.release()
        return self._started.process

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code.

        bubblewrap is in the command's process group, so the command can stop it by a
        signal to the group: it is continued, so that the command's end is seen.
        """
        process = self._started.process
        while process.poll() is None:
            with suppress(ChildProcessError):
                options = os.WEXITED | os.WSTOPPED | os.WNOWAIT
                change = os.waitid(os.P_PID, process.pid, options)
                if change is not None and change.si_code == os.CLD_STOPPED:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGCONT)
                    time.sleep(_STOPPED_S)
        return process.wait()

    def send(self, number: int) -> bool:
        """Send it a signal; see `ConfinedProcess.send`."""
        return self._started.send(number)


@contextmanager
def confined_command(
    bubblewrap: Bubblewrap,
    view: View,
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    endpoints: Sequence[Endpoint],
    records: Path,
    local_sockets: bool = False,
    streams: Sequence[int] = (0, 1, 2),
) -> Iterator[ConfinedCommand]:
    """Start a command that waits, with its sockets open; end all of it afterwards.

    Args:
        bubblewrap: the program that `find_layers` found.
        view: the command's files.
        words: the command line.
        environment: the command's variables.
        endpoints: all that it reaches.
        records: the folder with records of stand-ins.
        local_sockets: whether Unix sockets work.
        streams: its standard streams; see `start`.

    Returns:
        the command, which does not run yet.

    Raises:
        NotConfinedError: a layer is missing.
    """
    files = {"/etc/hosts": _hosts(endpoints), "/etc/resolv.conf": _RESOLVER}
    with ExitStack() as alone:
        if not bubblewrap.mounts_descriptors:
            alone.enter_context(locked((*view.write, view.home), records.parents[1]))
        alone.enter_context(stand_ins(records, view.protection))
        started = start(
            bubblewrap,
            view,
            words,
            environment,
            files=files,
            local_sockets=local_sockets,
            streams=streams,
            devices=alone.enter_context(own_devices(records / f"{os.getpid()}.dev")),
        )
        with ExitStack() as opened:
            opened.callback(started.kill)
            sockets = open_inside(started.inside, endpoints)
            opened.callback(sockets.close)
            relay = Relay(sockets.listeners, endpoints)
            relay.start()
            opened.callback(relay.stop)
            log = _watched(sockets, opened)
            check_mounts(started.inside, started.places)
            kill = partial(started.send, signal.SIGKILL)
            mounts = MountWatch(started.inside, view.changeable(), kill)
            mounts.start()
            opened.callback(mounts.stop)
            # Last opened, first closed: what it sent is read after its end.
            opened.callback(started.kill)
            yield ConfinedCommand(started, log, mounts)


def _watched(sockets: InsideSockets, opened: ExitStack) -> AttemptLog | None:
    """Watch attempts to leave until *opened* is closed, where that is possible."""
    if sockets.packets is None or sockets.names is None:
        return None
    watcher = AttemptWatcher(sockets.packets, sockets.names)
    watcher.start()
    opened.callback(watcher.stop)
    return watcher.log


def watches_attempts(bubblewrap: Bubblewrap) -> bool:
    """Start a command that never begins, to see whether its packets can be watched.

    Args:
        bubblewrap: the program that `find_layers` found.

    Returns:
        whether they can.

    Raises:
        NotConfinedError: its network namespace cannot be joined.
    """
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        view = View(folder, folder, (), (folder,), (), Protection())
        started = start(
            bubblewrap,
            view,
            ["/usr/bin/true"],
            {},
            files={},
            local_sockets=False,
        )
        try:
            sockets = open_inside(started.inside, ())
            sockets.close()
        finally:
            started.kill()
    return sockets.packets is not None


def _hosts(endpoints: Sequence[Endpoint]) -> bytes:
    # Its own name too: git and others ask for it, which is no attempt to leave.
    listed = ["localhost", socket.gethostname(), *(one.name for one in endpoints)]
    names = dict.fromkeys(filter(None, listed))
    return f"{LOOPBACK} {' '.join(names)}\n::1 localhost\n".encode()
