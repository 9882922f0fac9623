"""Run slow functions in other processes, with a fair turn for each agent.

Parsing a large body would stop the event loop for longer than other requests may wait.
A thread would not help, because of the GIL. A worker holds no secret, reads no file but
the certificates that a service file names, and ends when the broker does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec, TypeVar

from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.process import harden

_P = ParamSpec("_P")
_T = TypeVar("_T")
DEADLINE_S: Final = 10.0
"""Seconds that one job may take."""
_START_S: Final = 60.0
"""Seconds that a process may take to load, on a busy machine."""
_MEMORY: Final = 4 * 2**30
"""Bytes of address space of a worker; 10 MB of JSON need a tenth of it."""
_NICE: Final = 10
_LENGTH: Final = struct.Struct("!Q")


@dataclass(slots=True, eq=False, repr=False)
class _Job:
    """A function to call; compared by identity, since its body may be large."""

    function: Callable[..., Any]
    args: tuple[object, ...]
    future: Future[Any] = field(default_factory=Future)


class _Turns:
    """Queued jobs by agent; the agents take turns, the oldest job of each first."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Job]] = {}
        self._changed = threading.Condition()
        self._closed = False

    def put(self, agent_id: str, job: _Job) -> None:
        with self._changed:
            self._waiting.setdefault(agent_id, deque()).append(job)
            self._changed.notify()

    def take(self) -> _Job | None:
        """Wait for the next job; None once closed."""
        with self._changed:
            while not self._closed:
                if self._waiting:
                    agent_id = next(iter(self._waiting))
                    own = self._waiting.pop(agent_id)
                    job = own.popleft()
                    if own:
                        self._waiting[agent_id] = own  # behind the other agents
                    return job
                self._changed.wait()
            return None

    def drop(self, agent_id: str, job: _Job) -> None:
        """Remove a queued job; a job that a worker has taken is not queued."""
        with self._changed, contextlib.suppress(KeyError, ValueError):
            own = self._waiting[agent_id]
            own.remove(job)
            if not own:
                del self._waiting[agent_id]

    def close(self) -> list[_Job]:
        with self._changed:
            self._closed = True
            left = [job for own in self._waiting.values() for job in own]
            self._waiting.clear()
            self._changed.notify_all()
            return left


class Workers:
    """A few processes, each with at most one job, started when first needed."""

    def __init__(
        self, processes: int | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        """Start nothing yet.

        Args:
            processes: how many; by default two if there are more than two cores.
            deadline_s: seconds that a job may take.
        """
        self._wanted = processes or (2 if (os.cpu_count() or 1) > 2 else 1)
        self._deadline_s = deadline_s
        self._turns = _Turns()
        self._workers: list[_Worker] = []

    async def run(
        self,
        agent_id: str,
        function: Callable[_P, _T],
        *args: _P.args,
        **keywords: _P.kwargs,
    ) -> _T:
        """Call *function* in a worker process; raise its errors.

        Function, arguments and result are pickled. Unpickling the result blocks the
        event loop, so a result consists of bytes and a few small values.

        Args:
            agent_id: the agent of the job.
            function: a function of a module.
            args: its arguments.
            keywords: must be empty; ParamSpec needs it.

        Raises:
            CallRefusedError: 400 if the job takes too long or too much memory; 503 if
                its process ended.
        """
        assert not keywords  # noqa: S101 - ParamSpec needs it
        if not self._workers:
            self._workers = [
                _Worker(self._turns, self._deadline_s) for _ in range(self._wanted)
            ]
        job = _Job(function, args)
        self._turns.put(agent_id, job)
        try:
            result: _T = await asyncio.wrap_future(job.future)
        finally:
            self._turns.drop(agent_id, job)
        return result

    def close(self) -> None:
        """End the processes; queued jobs are refused."""
        for job in self._turns.close():
            job.future.set_exception(_ended())
        for worker in self._workers:
            worker.end()
        self._turns, self._workers = _Turns(), []


class _Worker:
    """One process, replaced if it has ended, and the thread that serves it."""

    def __init__(self, turns: _Turns, deadline_s: float) -> None:
        self._turns = turns
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._over = False
        self._thread = threading.Thread(
            target=self._work, name="agentvault-worker", daemon=True
        )
        self._thread.start()

    def _work(self) -> None:
        while (job := self._turns.take()) is not None:
            if job.future.set_running_or_notify_cancel():
                self._do(job)
            del job  # its body is not held until the next one comes
        self._stop()

    def _do(self, job: _Job) -> None:
        try:
            request = pickle.dumps((job.function, job.args))
        except Exception as error:  # noqa: BLE001 - it cannot be pickled
            job.future.set_exception(error)
            return
        try:
            answer = self._exchange(request)
        except OSError as error:  # a TimeoutError is one
            self._stop()
            late = isinstance(error, TimeoutError)
            job.future.set_exception(_too_slow() if late else _ended())
            return
        try:
            outcome = _Outcome(*pickle.loads(answer))  # noqa: S301 - ours wrote it
            job.future.set_result(outcome.get())
        except MemoryError:
            job.future.set_exception(_too_slow())
        except Exception as error:  # noqa: BLE001 - the job's own
            job.future.set_exception(error)

    def _exchange(self, request: bytes) -> bytes:
        """Send a job and return its pickled outcome.

        Raises:
            TimeoutError: it took too long.
            OSError: the process has ended, or cannot be started.
        """
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._start()
        assert self._channel is not None  # noqa: S101 - it was started
        ends = time.monotonic() + self._deadline_s
        self._channel.settimeout(self._deadline_s)
        self._channel.sendall(_LENGTH.pack(len(request)) + request)
        return _frame(self._channel, ends)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._channel = ours
        with theirs:
            # -P: a json.py in the folder we were started from must not be imported.
            # It does not get our environment, which may have secrets.
            self._process = subprocess.Popen(
                [sys.executable, "-E", "-P", "-m", "agentvault_tui.gateway.workers"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        _frame(ours, time.monotonic() + _START_S)
        if self._over:
            raise OSError("it is not needed any more")

    def _stop(self) -> None:
        channel, process = self._channel, self._process
        self._channel = self._process = None
        if channel is not None:
            channel.close()
        if process is not None:
            process.kill()
            process.wait()

    def end(self) -> None:
        """End the process, also during a job, and its thread."""
        self._over = True
        process = self._process
        if process is not None:
            process.kill()
        self._thread.join()


@dataclass(slots=True)
class _Outcome:
    """The result of a job, or the parts from which its exception is built again."""

    result: object
    error: type[Exception] | None = None
    args: tuple[object, ...] = ()
    state: dict[str, object] = field(default_factory=dict)

    def get(self) -> object:
        if self.error is None:
            return self.result
        # __init__ is not called: some exceptions take other arguments than `args`.
        error = self.error.__new__(self.error, *self.args)
        error.__dict__.update(self.state)
        raise error

    def pickled(self) -> bytes:
        return pickle.dumps((self.result, self.error, self.args, self.state))


def _frame(channel: socket.socket, ends: float) -> bytes:
    """Return the next frame.

    Raises:
        TimeoutError: it is not whole at *ends*, on the monotonic clock.
        ConnectionError: the other process has ended.
    """
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size, ends))
    return _exactly(channel, length, ends)


def _exactly(channel: socket.socket, size: int, ends: float | None) -> bytes:
    received = bytearray(size)
    view = memoryview(received)
    while view:
        if ends is not None:
            channel.settimeout(max(ends - time.monotonic(), 1e-3))
        count = channel.recv_into(view)
        if not count:
            raise ConnectionError("it has ended")
        view = view[count:]
    return bytes(received)


def _too_slow() -> CallRefusedError:
    code = "unreadable_body"
    text = "the body takes too long, or too much memory, to read"
    return CallRefusedError(400, code, code, text)


def _ended() -> CallRefusedError:
    code = "temporarily_unavailable"
    return CallRefusedError(503, code, code, "the body could not be read: try again")


def main() -> None:
    """Run the jobs that arrive on standard input, a socket, until it closes."""
    harden()
    os.nice(_NICE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    channel = socket.socket(fileno=0)
    channel.sendall(_LENGTH.pack(0))
    with contextlib.suppress(ConnectionError):
        while True:
            (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size, None))
            request = _exactly(channel, length, None)
            # If the broker is killed during a job, the alarm ends this process.
            signal.alarm(round(3 * DEADLINE_S))
            answer = _answer(request)
            signal.alarm(0)
            channel.sendall(_LENGTH.pack(len(answer)) + answer)
            del request, answer


def _answer(request: bytes) -> bytes:
    try:
        function, args = pickle.loads(request)  # noqa: S301 - the broker wrote it
        return _Outcome(function(*args)).pickled()
    except Exception as error:  # noqa: BLE001 - raised in the broker
        outcome = _Outcome(None, type(error), error.args, error.__dict__)
        try:
            return outcome.pickled()
        except Exception:  # noqa: BLE001 - it cannot be pickled
            return _Outcome(None, RuntimeError, (type(error).__name__,)).pickled()


if __name__ == "__main__":
    main()
