"""Run slow functions in other processes, with a fair turn for each agent.

A large body takes the interpreter longer to parse than anyone else may wait. A thread
would not help: only one thread of a process interprets at a time. A worker holds no
secret and opens nothing, and it ends when the broker does.
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
"""Bytes of address space of a worker: ten megabytes of JSON take a tenth."""
_NICE: Final = 10
_LENGTH: Final = struct.Struct("!Q")


@dataclass(slots=True, eq=False, repr=False)
class _Job:
    """A function to call; compared by identity, since its body may be large."""

    function: Callable[..., Any]
    args: tuple[object, ...]
    future: Future[Any] = field(default_factory=Future)


class _Turns:
    """Jobs that wait, by agent: each agent in turn has its oldest job taken."""

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
        """Forget a job whose caller has left; one that was taken is not here."""
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
            processes: how many; left out: two where there are more than two cores.
            deadline_s: how many seconds a job may take.
        """
        self._wanted = processes or (2 if (os.cpu_count() or 1) > 2 else 1)
        self._deadline_s = deadline_s
        self._turns = _Turns()
        self._seats: list[_Seat] = []

    async def run(
        self,
        agent_id: str,
        function: Callable[_P, _T],
        *args: _P.args,
        **none: _P.kwargs,
    ) -> _T:
        """Return what *function* makes of *args*, or raise what it raises.

        Function, arguments and result are pickled. Unpickling the result stops this
        process for as long as it takes, so a result is bytes and few small values.

        Args:
            agent_id: the agent whose job it is.
            function: a function of a module.
            args: its arguments.
            none: it is called without keywords.

        Raises:
            CallRefusedError: 400 where the job takes too long or too much memory; 503
                where its process ended.
        """
        assert not none  # noqa: S101 - for the type of `args`
        if not self._seats:
            self._seats = [
                _Seat(self._turns, self._deadline_s) for _ in range(self._wanted)
            ]
        job = _Job(function, args)
        self._turns.put(agent_id, job)
        try:
            result: _T = await asyncio.wrap_future(job.future)
        finally:
            self._turns.drop(agent_id, job)
        return result

    def close(self) -> None:
        """End the processes; jobs that wait are refused."""
        for job in self._turns.close():
            job.future.set_exception(_ended())
        for seat in self._seats:
            seat.end()
        self._turns, self._seats = _Turns(), []


class _Seat:
    """One process, replaced where it has ended, and the thread that talks to it."""

    def __init__(self, turns: _Turns, deadline_s: float) -> None:
        self._turns = turns
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
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
        except Exception as error:  # noqa: BLE001 - whatever cannot be pickled says
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
        assert self._line is not None  # noqa: S101 - it was started
        ends = time.monotonic() + self._deadline_s
        self._line.settimeout(self._deadline_s)
        self._line.sendall(_LENGTH.pack(len(request)) + request)
        return _frame(self._line, ends)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._line = ours
        with theirs:
            # -P: a json.py in the folder we were started from must not be imported.
            # Of our environment it gets nothing: it may name secrets.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "agentvault_tui.gateway.workers"],
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
        line, process = self._line, self._process
        self._line = self._process = None
        if line is not None:
            line.close()
        if process is not None:
            process.kill()
            process.wait()

    def end(self) -> None:
        """End the process, also amid a job; its thread ends too."""
        self._over = True
        process = self._process
        if process is not None:
            process.kill()
        self._thread.join()


@dataclass(slots=True)
class _Outcome:
    """The result of a job; or an error, in parts that any exception can be made of."""

    result: object
    error: type[Exception] | None = None
    args: tuple[object, ...] = ()
    state: dict[str, object] = field(default_factory=dict)

    def get(self) -> object:
        if self.error is None:
            return self.result
        # Not called: some take other arguments than they hold.
        error = self.error.__new__(self.error, *self.args)
        error.__dict__.update(self.state)
        raise error

    def pickled(self) -> bytes:
        return pickle.dumps((self.result, self.error, self.args, self.state))


def _frame(line: socket.socket, ends: float) -> bytes:
    """Return the next frame.

    Raises:
        TimeoutError: it is not whole at *ends*, on the monotonic clock.
        ConnectionError: the other process has ended.
    """
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size, ends))
    return _exactly(line, length, ends)


def _exactly(line: socket.socket, size: int, ends: float | None) -> bytes:
    found = bytearray(size)
    view = memoryview(found)
    while view:
        if ends is not None:
            line.settimeout(max(ends - time.monotonic(), 1e-3))
        count = line.recv_into(view)
        if not count:
            raise ConnectionError("it has ended")
        view = view[count:]
    return bytes(found)


def _too_slow() -> CallRefusedError:
    code = "unreadable_body"
    text = "the body takes too long, or too much memory, to read"
    return CallRefusedError(400, code, code, text)


def _ended() -> CallRefusedError:
    code = "temporarily_unavailable"
    return CallRefusedError(503, code, code, "the body could not be read: try again")


def main() -> None:
    """Do the jobs that come on standard input, a socket, until it closes."""
    harden()
    os.nice(_NICE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    line = socket.socket(fileno=0)
    line.sendall(_LENGTH.pack(0))
    with contextlib.suppress(ConnectionError):
        while True:
            (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size, None))
            request = _exactly(line, length, None)
            # A broker that is killed amid a job ends none: the job's end does.
            signal.alarm(round(3 * DEADLINE_S))
            answer = _answer(request)
            signal.alarm(0)
            line.sendall(_LENGTH.pack(len(answer)) + answer)
            del request, answer


def _answer(request: bytes) -> bytes:
    try:
        function, args = pickle.loads(request)  # noqa: S301 - the broker wrote it
        return _Outcome(function(*args)).pickled()
    except Exception as error:  # noqa: BLE001 - it is raised where it was asked
        outcome = _Outcome(None, type(error), error.args, error.__dict__)
        try:
            return outcome.pickled()
        except Exception:  # noqa: BLE001 - of what cannot be pickled
            return _Outcome(None, RuntimeError, (type(error).__name__,)).pickled()


if __name__ == "__main__":
    main()
