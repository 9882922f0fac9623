"""MCP servers that are programs of this machine: one process for an era of MCP.

What many clients ask goes to one process, so ids and progress tokens are replaced by
ours, and what it asks of a client (sampling, elicitation, roots) is answered with no:
it cannot say which one it means.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec
from msgspec import Raw

from agentvault_tui import __version__
from agentvault_tui.clock import Clock
from agentvault_tui.gateway.mcp.messages import (
    LEGACY,
    METHOD_NOT_FOUND,
    MODERN,
    VERSION_KEY,
    Envelope,
    McpError,
    Message,
    answer,
    number_of,
    one_line,
    read_answer,
    text_of,
    unsupported,
)
from agentvault_tui.gateway.mcp.servers import McpServer
from agentvault_tui.model import AgentId
from agentvault_tui.process import start_program
from agentvault_tui.text import visible
from agentvault_tui.web.service_connection import UpstreamError

log = logging.getLogger("agentvault.mcp")

Progress = Callable[[Raw], None]
"""Takes the parameters of a notification of progress."""
_LINE_BYTES: Final = 16 * 2**20
_PIECE: Final = 65_536
_MOST_WAITING: Final = 256
"""Requests to one process at a time."""
_START_SECONDS: Final = 20.0
_WRITE_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 600.0
"""Without a word of progress."""
_STOP_SECONDS: Final = 2.0
_BACKOFF: Final = (0.0, 1.0, 2.0, 5.0, 15.0, 30.0)
"""Seconds before the next start, by how often it ended soon after one."""
_SETTLED: Final = 60.0
"""Seconds after which a process is no failed start any more."""
_LOGGED: Final = 30
"""Lines of its standard error in `_LOGGED_SECONDS`; further ones are counted."""
_LOGGED_SECONDS: Final = 60.0
_LINE_SHOWN: Final = 500
_LAST_WORDS: Final = 3
"""Lines of it that are logged when it ends."""
_CLIENT: Final = {"name": "agentvault", "version": __version__}


class PendingRequest:
    """One request to a process, until its answer."""

    def __init__(self, answered: asyncio.Future[Envelope], progress: Progress) -> None:
        self.answered = answered
        self.progress = progress
        self.heard = asyncio.Event()
        """Set by each word of progress: it is at work."""
        self.writing = False
        """Whether the process was given any of it."""
        self.written = False
        """Whether the process was given all of it."""


class McpProcess:
    """One process of a server, in one era; started when it is needed, and again."""

    def __init__(self, server: McpServer, clock: Clock, *, modern: bool) -> None:
        """Start nothing yet."""
        self.server = server
        self.modern = modern
        self.greeting = Raw(b"")
        """Its answer to ``server/discover`` or ``initialize``."""
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: dict[int, PendingRequest] = {}
        self._next = 0
        self._failed = 0
        self._started_at = 0.0
        self._other_era = False
        self._closed = False
        self._last_words: deque[bytes] = deque(maxlen=_LAST_WORDS)

    async def ask(
        self,
        message: Message,
        progress: Progress,
        sent: Callable[[], None],
        cutters: list[Callable[[], None]],
    ) -> Envelope:
        """Send a client's request; return the answer, under the client's own id.

        Args:
            message: the request.
            progress: is told of progress, where the client asked for that.
            sent: called when the process has been given all of it.
            cutters: gains what ends this request at once, without waiting.

        Raises:
            UpstreamError: there is no answer.
            McpError: the process does not speak this era.
        """
        with self._entry(progress) as (id_, waiting):
            token = None if message.progress_token is None else id_
            cutters.append(lambda: self._cut(id_))
            try:
                await self._write(message.relayed(id_, token), waiting)
                waiting.written = True
                sent()
                return {**await self._answer(waiting), "id": message.id or Raw(b"null")}
            finally:
                if not waiting.answered.done():
                    self._cancel(id_)

    @contextmanager
    def _entry(self, progress: Progress) -> Iterator[tuple[int, PendingRequest]]:
        if len(self._waiting) >= _MOST_WAITING:
            raise UpstreamError(
                503, "temporarily_unavailable", "the server has too much to do"
            )
        self._next += 1
        id_ = self._next
        loop = asyncio.get_running_loop()
        self._waiting[id_] = waiting = PendingRequest(loop.create_future(), progress)
        try:
            yield id_, waiting
        finally:
            self._waiting.pop(id_, None)
            if not waiting.answered.done():
                waiting.answered.cancel()

    async def _answer(self, waiting: PendingRequest) -> Envelope:
        while True:
            waiting.heard.clear()
            heard = asyncio.ensure_future(waiting.heard.wait())
            try:
                both: set[asyncio.Future[Any]] = {waiting.answered, heard}
                done, _ = await asyncio.wait(
                    both,
                    timeout=_ANSWER_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                heard.cancel()
            if waiting.answered in done:
                return waiting.answered.result()
            if not done:
                raise UpstreamError(504, "upstream_timeout", "the server took too long")

    def _cut(self, id_: int) -> None:
        """End a request at once: no more of it is written, its answer is dropped."""
        waiting = self._waiting.pop(id_, None)
        if waiting is None or waiting.answered.done():
            return
        waiting.answered.set_exception(_gone())
        waiting.answered.exception()  # who waits may have left
        if waiting.written:
            self._cancel(id_)
        elif waiting.writing:
            self._kill()  # half a line cannot be taken back

    def _cancel(self, id_: int) -> None:
        """Have the process stop what it does for a request."""
        self._tell({"method": "notifications/cancelled", "params": {"requestId": id_}})

    def _tell(self, member: dict[str, Any]) -> None:
        process = self._process
        if process is not None and process.stdin is not None:
            line = msgspec.json.encode({"jsonrpc": "2.0", **member})
            with suppress(OSError, RuntimeError):
                process.stdin.write(line + b"\n")

    async def _write(self, line: bytes, waiting: PendingRequest) -> None:
        """Give the process a line, in its turn, unless it was cut meanwhile."""
        process = self._process
        if process is None or process.stdin is None:
            raise _gone()
        try:
            async with asyncio.timeout(_WRITE_SECONDS), self._writing:
                if waiting.answered.done():
                    raise _gone()
                waiting.writing = True
                transport = process.stdin.transport
                transport.set_write_buffer_limits(0)
                process.stdin.write(line + b"\n")
                await process.stdin.drain()  # until nothing is left here
        except TimeoutError:
            self._kill()
            raise UpstreamError(
                504, "upstream_timeout", "the server does not read its input"
            ) from None
        except (OSError, RuntimeError):
            raise _gone() from None

    # Its life

    async def start(self) -> None:
        """Start the process, if it does not run, and greet it in its era.

        Raises:
            UpstreamError: it does not begin.
            McpError: it does not speak this era.
        """
        async with self._starting:
            if self._process is not None:
                return
            if self._closed:
                raise _gone()
            if self._other_era:
                raise _legacy_only()
            left = (
                self._started_at
                + _BACKOFF[min(self._failed, len(_BACKOFF) - 1)]
                - self._clock.boot()
            )
            if self._failed and left > 0:
                text = f"the server ended {self._failed} times: it is started again in "
                raise UpstreamError(502, "upstream_unreachable", f"{text}{left:.0f} s")
            self._started_at = self._clock.boot()
            try:
                process = await start_program(self.server.command)
            except OSError as error:
                self._failed += 1
                name, why = self.server.name, error.strerror
                log.warning("mcp/%s cannot be started (%s)", name, why)
                raise UpstreamError(
                    502, "upstream_unreachable", "the server cannot be started"
                ) from None
            self._process = process
            loop = asyncio.get_running_loop()
            self._tasks = [
                loop.create_task(self._read(process)),
                loop.create_task(self._log_errors(process)),
            ]
            try:
                async with asyncio.timeout(_START_SECONDS):
                    await self._greet()
            except TimeoutError:
                self._failed += 1
                self._kill()
                raise UpstreamError(
                    504, "upstream_timeout", "the server does not begin"
                ) from None
            except BaseException:
                self._kill()
                raise

    async def _greet(self) -> None:
        method = "server/discover" if self.modern else "initialize"
        meta = {
            VERSION_KEY: MODERN,
            "io.modelcontextprotocol/clientInfo": _CLIENT,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        legacy = {
            "protocolVersion": LEGACY[0],
            "capabilities": {},
            "clientInfo": _CLIENT,
        }
        params = {"_meta": meta} if self.modern else legacy
        with self._entry(lambda _: None) as (id_, waiting):
            request = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
            await self._write(msgspec.json.encode(request), waiting)
            envelope = await self._answer(waiting)
        if "result" not in envelope:
            if self.modern:
                self._other_era = True
                raise _legacy_only()
            shown = _shown(bytes(envelope.get("error", b"")))
            log.warning("mcp/%s refuses initialize: %s", self.server.name, shown)
            raise UpstreamError(
                502, "upstream_unreachable", "the server refuses to begin"
            )
        self.greeting = envelope["result"]
        if not self.modern:
            self._tell({"method": "notifications/initialized"})

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take what the process writes, until it ends; then end what waits for it."""
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        left = bytearray()
        try:
            while piece := await process.stdout.read(_PIECE):
                left += piece
                if b"\n" in piece:
                    *lines, rest = left.split(b"\n")
                    for line in lines:
                        if line.strip():
                            self._take(bytes(line))
                    left = rest
                if len(left) > _LINE_BYTES:
                    log.warning("mcp/%s wrote a line without end", self.server.name)
                    break
                await asyncio.sleep(0)  # one that floods must not have the loop
        finally:
            _close(process, 1)
            if self._process is process:
                self._process = None
                self._ended(process)

    def _ended(self, process: asyncio.subprocess.Process) -> None:
        soon = self._clock.boot() - self._started_at < _SETTLED
        self._failed = self._failed + 1 if soon else 1
        _signal(process, signal.SIGKILL)
        if not self._closed and not self._other_era:
            said = " / ".join(map(_shown, self._last_words)) or "nothing"
            log.warning("mcp/%s ended; it said last: %s", self.server.name, said)
        for waiting in self._waiting.values():
            if not waiting.answered.done():
                waiting.answered.set_exception(_gone())
                waiting.answered.exception()  # who waits may have left

    def _take(self, line: bytes) -> None:
        try:
            envelope = read_answer(one_line(line.strip()))
        except ValueError:
            name = self.server.name
            log.info("mcp/%s writes what is no message: %s", name, _shown(line))
            return
        method = text_of(envelope, "method")
        if method is None:
            waiting = self._waiting.get(number_of(envelope, "id") or 0)
            if waiting is not None and not waiting.answered.done():
                waiting.answered.set_result(envelope)
        elif "id" in envelope:
            self._refuse(envelope, method)
        elif method == "notifications/progress":
            self._note_progress(envelope)

    def _note_progress(self, envelope: Envelope) -> None:
        with suppress(ValueError):
            params = read_answer(bytes(envelope.get("params", b"")))
            waiting = self._waiting.get(number_of(params, "progressToken") or 0)
            if waiting is not None:
                waiting.heard.set()
                waiting.progress(envelope["params"])

    def _refuse(self, envelope: Envelope, method: str) -> None:
        """Answer what a server asks of a client: a ping, or no."""
        if method == "ping":
            said = answer(envelope["id"], result=Raw(b"{}"))
        else:
            text = "no client is asked this through AgentVault"
            said = McpError(METHOD_NOT_FOUND, text).envelope(envelope["id"])
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError, RuntimeError):
                process.stdin.write(msgspec.json.encode(said) + b"\n")

    async def _log_errors(self, process: asyncio.subprocess.Process) -> None:
        try:
            await self._log_lines(process)
        finally:
            _close(process, 2)

    async def _log_lines(self, process: asyncio.subprocess.Process) -> None:
        """Log what the process says on standard error, displayable and bounded."""
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        began, lines = self._clock.boot(), 0
        left = b""
        while piece := await process.stderr.read(8_192):
            *whole, left = (left + piece).split(b"\n")
            if len(left) > _LINE_SHOWN:
                whole, left = [*whole, left], b""
            if self._clock.boot() - began > _LOGGED_SECONDS:
                if lines > _LOGGED:
                    name, more = self.server.name, lines - _LOGGED
                    log.info("mcp/%s said %d more lines", name, more)
                began, lines = self._clock.boot(), 0
            for line in filter(None, whole):
                lines += 1
                self._last_words.append(line[:_LINE_SHOWN])
                if lines <= _LOGGED:
                    log.info("mcp/%s says: %s", self.server.name, _shown(line))
            await asyncio.sleep(0)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._ended(process)

    async def aclose(self) -> None:
        """End the process: it is asked by the end of its input, then made to."""
        self._closed = True
        process = self._process
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            _signal(process, signal.SIGKILL)
            await process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class McpProcesses:
    """The processes of all servers: one an era, and agent where the file says so."""

    def __init__(self, clock: Clock) -> None:
        """Start none."""
        self._clock = clock
        self._running: dict[tuple[str, bool, AgentId | None], McpProcess] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def of(self, server: McpServer, agent_id: AgentId, *, modern: bool) -> McpProcess:
        """Return the process that *agent_id* uses, as the file is now."""
        key = server.name, modern, agent_id if server.per_agent else None
        known = self._running.get(key)
        if known is None or known.server.sha256 != server.sha256:
            if known is not None:
                self._end(known)
            known = McpProcess(server, self._clock, modern=modern)
            self._running[key] = known
        return known

    def cut(self, agent_id: AgentId | None) -> None:
        """End the processes that are an agent's own."""
        for key in list(self._running):
            if key[2] is not None and agent_id in {None, key[2]}:
                self._end(self._running.pop(key))

    def keep(self, names: frozenset[str]) -> None:
        """End the processes of servers that are none of *names*."""
        for key in [key for key in self._running if key[0] not in names]:
            self._end(self._running.pop(key))

    def _end(self, process: McpProcess) -> None:
        task = asyncio.get_running_loop().create_task(process.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """End all."""
        for process in self._running.values():
            self._end(process)
        self._running = {}
        if self._ending:
            await asyncio.wait(set(self._ending))


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal a process and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _close(process: asyncio.subprocess.Process, pipe: int) -> None:
    """Close a pipe that is read no more: left paused, it would stay open."""
    transport = process._transport.get_pipe_transport(pipe)  # type: ignore[attr-defined]  # noqa: SLF001
    if transport is not None:
        transport.close()


def _shown(line: bytes) -> str:
    return visible(line[:_LINE_SHOWN].decode(errors="replace"), _LINE_SHOWN)


def _gone() -> UpstreamError:
    return UpstreamError(502, "upstream_reset", "the server's process ended")


def _legacy_only() -> McpError:
    return unsupported(MODERN, LEGACY)
