"""MCP servers that are programs of this machine: one process for an era of MCP.

The requests of many clients go to one process, so ids and progress tokens are replaced
by random numbers: a server that prints an argument cannot be made to answer another
agent's call. Requests of the server to a client (sampling, elicitation, roots) are
refused, since it cannot say which client it means.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Raw

from agentvault_tui.clock import Clock
from agentvault_tui.gateway.mcp.errors import McpError, too_long
from agentvault_tui.gateway.mcp.messages import (
    CLIENT,
    LEGACY,
    LONGEST_NOTE,
    MODERN,
    Envelope,
    Message,
    member_of,
    one_line,
    own_message,
    read_answer,
    read_envelope,
    reply_to_server,
    unsupported,
)
from agentvault_tui.gateway.mcp.pending import PendingRequest, Progress
from agentvault_tui.gateway.mcp.pipe import LinePipe, PipeLine, read_lines
from agentvault_tui.gateway.mcp.program_log import ProgramLog, shown
from agentvault_tui.gateway.mcp.servers import McpServer
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.model import AgentId
from agentvault_tui.process import start_program
from agentvault_tui.web.service_connection import UpstreamError

log = logging.getLogger("agentvault.mcp")

_ID: Final = re.compile(rb'"id"\s*:\s*([0-9]{1,16})(?![0-9])')
"""The id of a message at either end of its line: an agent cannot guess another's."""
_LAST_ID: Final = 2**53 - 1
"""The last integer that no JSON program rounds."""
PLACES: Final = 256
"""Requests to one process at a time."""
SHARE: Final = 4
"""If the process is shared, one agent may have a quarter of the places."""
LEAST: Final = 2
"""Places that each agent may have in any case."""
_START_SECONDS: Final = 20.0
WRITE_S: Final = 30.0
"""Seconds in which the process has to read a line."""
GRACE_S: Final = 60.0
"""Seconds that other agents' calls get to finish before a process is restarted."""
LEFT_S: Final = 60.0
"""Seconds for which a call that its client left has its place, if no answer comes."""
_ANSWER_SECONDS: Final = 600.0
"""Without a word of progress."""
_STOP_SECONDS: Final = 2.0
_BACKOFF: Final = (0.0, 1.0, 2.0, 5.0, 15.0, 30.0)
"""Seconds before the next start, by how often it ended soon after one."""
_SETTLED: Final = 60.0
"""Seconds after which a process is no failed start any more."""


@dataclass(slots=True)
class ProcessEvents:
    """Callbacks for events of a process."""

    count: Callable[[str, str, AgentId | None], None]
    """Called with server, method and agent of a message that is not a call."""
    list_changed: Callable[[str], None]
    """Called with a server whose list of tools has changed."""


@dataclass(slots=True)
class BlockedInput:
    """A process that does not read its input, or that has an incomplete line."""

    line: PipeLine | None
    """The line that is written in part; None if there is none."""
    agent_id: AgentId | None
    """The agent that sent it; calls of other agents may finish before a restart."""
    for_good: bool = False
    """Whether the line must not be completed, because its agent is revoked."""
    timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """Cancel the restart."""
        if self.timer is not None:
            self.timer.cancel()


class McpProcess:
    """One process of a server, in one era; started when it is needed, and again."""

    def __init__(
        self, server: McpServer, clock: Clock, events: ProcessEvents, *, modern: bool
    ) -> None:
        """Start nothing yet."""
        self.server = server
        self.modern = modern
        self.greeting = Raw(b"")
        """Its answer to ``server/discover`` or ``initialize``."""
        self._clock = clock
        self._events = events
        self._process: asyncio.subprocess.Process | None = None
        self._latest: asyncio.subprocess.Process | None = None
        """The one that was started last, also once it was killed."""
        self._pipe: LinePipe | None = None
        self._starting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: dict[int, PendingRequest] = {}
        self._left: dict[int, PendingRequest] = {}
        """Requests without a caller that it may still carry out."""
        self._blocked: BlockedInput | None = None
        self._failed = 0
        self._started_at = 0.0
        self._other_era = False
        self._closed = False
        self._errors = ProgramLog(server.name, clock)

    async def ask(
        self,
        message: Message,
        agent_id: AgentId | None,
        *,
        release: Callable[[], None] = lambda: None,
        sent: Callable[[int], None] = lambda _: None,
        progress: Progress = lambda _: None,
        cutters: list[Callable[[], None]] | None = None,
    ) -> Envelope:
        """Send a request; return the answer, under the process's id.

        Args:
            message: the request.
            agent_id: the agent that sends it; None for the gateway itself.
            release: called right before each piece is written; raises if no more of it
                may be written.
            sent: called with its size once all of it was written.
            progress: takes notices of progress, if the client asked for them.
            cutters: receives a function that cancels this request at once.

        Raises:
            UpstreamError: there is no answer.
            CallRefusedError: it may not be sent, or has to wait for others.
        """
        with self._entry(agent_id, progress) as (id_, waiting):
            token = None if message.progress_token is None else id_
            if cutters is not None:
                cutters.append(lambda: self._cut(id_))
            text = message.encoded(id_, token)
            try:
                await self._write(text, waiting, release, lambda: sent(len(text)))
                return await self._answer(waiting)
            finally:
                if not waiting.answered.done():
                    self._abandon(id_, waiting)

    @contextmanager
    def _entry(
        self, agent_id: AgentId | None, progress: Progress
    ) -> Iterator[tuple[int, PendingRequest]]:
        """Take one of the places of the process while a block runs.

        Raises:
            CallRefusedError: 503; no place is free for this agent, or a restart is due.
        """
        if self._blocked is not None and self._blocked.for_good:
            raise busy("the server is about to be restarted: try again", 5)
        # One that its client left is still work of the process: who leaves all of them
        # must not have more under way than who waits.
        under_way = [*self._waiting.values(), *self._left.values()]
        own = sum(one.agent_id == agent_id for one in under_way)
        shared = not self.server.per_agent and agent_id is not None
        if shared and own >= max(PLACES // SHARE, LEAST):
            raise busy("too many requests of this agent to the server are under way", 1)
        if len(under_way) >= PLACES:
            raise busy("the server has too much to do: try again", 1)
        taken = self._waiting.keys() | self._left.keys()
        while (id_ := 1 + secrets.randbelow(_LAST_ID)) in taken:
            continue
        self._waiting[id_] = waiting = PendingRequest(agent_id, progress)
        pipe = self._pipe
        try:
            yield id_, waiting
        finally:
            self._waiting.pop(id_, None)
            if waiting.is_open and pipe is self._pipe:
                self._leave(id_, waiting)
            if not waiting.answered.done():
                waiting.answered.cancel()
            self._unblock()

    def _leave(self, id_: int, waiting: PendingRequest) -> None:
        waiting.progress = lambda _: None  # it holds the call
        self._left[id_] = waiting
        asyncio.get_running_loop().call_later(LEFT_S, self._free, id_)

    def _free(self, id_: int) -> None:
        """Free the place of a request that was left, if the process has read it.

        MCP has no answer to a cancelled request (basic/utilities/cancellation).
        """
        left, pipe = self._left.get(id_), self._pipe
        if left is None or left.line is None or pipe is None:
            return
        if pipe.has_read(left.line):
            del self._left[id_]
        else:
            asyncio.get_running_loop().call_later(LEFT_S, self._free, id_)

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
        waiting.fail(gone())
        line = waiting.line
        if line is None or self._pipe is None:
            return
        if waiting.written:
            self._cancel(id_, waiting.agent_id)
            return
        line.fail(gone())
        if not self._pipe.take_back(line):
            self._halt(line)

    def _abandon(self, id_: int, waiting: PendingRequest) -> None:
        """Let the process stop a request without a caller.

        A half-written message is completed first: its agent may still send it. It may
        be done, and its row is written before, so that it counts as sent at once.
        """
        line, pipe = waiting.line, self._pipe
        if line is None or pipe is None:
            return
        if waiting.written:
            self._cancel(id_, waiting.agent_id)
            return
        if pipe.take_back(line) or pipe.half is not line:
            return
        line.sent()
        line.sent = lambda: None
        line.given.add_done_callback(
            lambda _: self._cancel(id_, waiting.agent_id) if not line.rest else None
        )

    def _cancel(self, id_: int, agent_id: AgentId | None) -> None:
        """Notify the process that a request is cancelled."""
        method = "notifications/cancelled"
        self._notify(own_message(method, modern=False, requestId=id_), agent_id)

    def _notify(self, message: Message, agent_id: AgentId | None) -> None:
        if self._pipe is not None and self._pipe.put(message.encoded(None)):
            self._events.count(self.server.name, message.method, agent_id)

    async def _write(
        self,
        text: bytes,
        waiting: PendingRequest,
        release: Callable[[], None],
        sent: Callable[[], None],
    ) -> None:
        """Write a line to the process, in its turn.

        Raises:
            UpstreamError: the process does not read the line, or has ended.
            CallRefusedError: the line may not be sent.
        """
        pipe, agent_id = self._pipe, waiting.agent_id
        line = pipe.put(text, agent_id, release, sent) if pipe is not None else None
        if line is None or pipe is None:
            raise gone()
        waiting.line = line
        # Not awaited itself: a request that is cancelled must not cancel its line.
        await asyncio.wait({line.given}, timeout=WRITE_S)
        if line.given.done():
            self._reads_again()
            line.given.result()
            return
        half = pipe.half
        pipe.take_back(line)
        self._block(BlockedInput(half, half.agent_id if half else agent_id))
        raise UpstreamError(
            504, "upstream_timeout", "the server does not read its input"
        )

    # Input that the process does not read, or that ends in a part of a line

    def _halt(self, line: PipeLine) -> None:
        """Stop writing after a part of a line that must not be completed."""
        if self._pipe is None:
            return
        for other in self._pipe.halt():
            other.fail(busy("the server is about to be restarted: try again", 5))
        self._reads_again()
        self._block(BlockedInput(line, line.agent_id, for_good=True))

    def _block(self, blocked: BlockedInput) -> None:
        if self._blocked is None:
            self._blocked = blocked
            if blocked.line is not None:
                loop = asyncio.get_running_loop()
                blocked.timer = loop.call_later(GRACE_S, self._restart, blocked)
                blocked.line.given.add_done_callback(lambda _: self._unblock())
        self._unblock()

    def _reads_again(self) -> None:
        blocked = self._blocked
        if blocked is not None and not blocked.for_good:
            blocked.end()
            self._blocked = None

    def _unblock(self) -> None:
        """Restart the process once no call of another agent is in flight."""
        blocked, pipe = self._blocked, self._pipe
        if blocked is None or pipe is None:
            return
        line = blocked.line
        if not blocked.for_good and (pipe.is_read if line is None else not line.rest):
            self._reads_again()
        elif not any(
            one.written and not one.answered.done() and one.agent_id != blocked.agent_id
            for one in self._waiting.values()
        ):
            self._restart(blocked)

    def _restart(self, blocked: BlockedInput) -> None:
        if blocked is self._blocked:
            log.warning("mcp/%s does not read its input: ended", self.server.name)
            self._kill(own=True)

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
                raise gone()
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
            theirs, ours = os.pipe()
            try:
                process = await start_program(self.server.command, theirs)
            except BaseException as error:
                os.close(ours)
                if isinstance(error, OSError):
                    raise self._unstartable(error) from None
                raise
            finally:
                os.close(theirs)
            self._process = self._latest = process
            self._pipe = LinePipe(ours, self._kill, self._halt)
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
                text = "the server does not begin"
                raise UpstreamError(504, "upstream_timeout", text) from None
            except BaseException:
                self._kill()
                raise

    def _unstartable(self, error: OSError) -> UpstreamError:
        self._failed += 1
        name, why = self.server.name, error.strerror
        log.warning("mcp/%s cannot be started (%s)", name, why)
        text = "the server cannot be started"
        return UpstreamError(502, "upstream_unreachable", text)

    async def _greet(self) -> None:
        legacy = {
            "protocolVersion": LEGACY[0],
            "capabilities": {},
            "clientInfo": CLIENT,
        }
        if self.modern:
            message = own_message("server/discover", modern=True)
        else:
            message = own_message("initialize", modern=False, **legacy)
        envelope = await self.ask(message, None, sent=self._counted(message.method))
        if "result" not in envelope:
            if self.modern:
                self._other_era = True
                raise _legacy_only()
            error = shown(bytes(envelope.get("error", b"")))
            log.warning("mcp/%s refuses initialize: %s", self.server.name, error)
            text = "the server refuses to begin"
            raise UpstreamError(502, "upstream_unreachable", text)
        self.greeting = envelope["result"]
        if not self.modern:
            method = "notifications/initialized"
            self._notify(own_message(method, modern=False), None)

    def _counted(self, method: str) -> Callable[[int], None]:
        return lambda _: self._events.count(self.server.name, method, None)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Take the process's lines, until it ends; then end the waiting requests."""
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        most, noise = self.server.max_answer, self._errors.add
        try:
            async for line, is_whole in read_lines(process.stdout, most, noise):
                if not is_whole:
                    self._fail_long(line)
                elif not self._take(line):
                    noise(line)
        finally:
            _close(process, 1)
            if self._process is process:
                self._kill()

    def _ended(self, process: asyncio.subprocess.Process) -> None:
        soon = self._clock.boot() - self._started_at < _SETTLED
        self._failed = self._failed + 1 if soon else 1
        _signal(process, signal.SIGKILL)
        if not self._closed and not self._other_era:
            last = self._errors.last or "nothing"
            log.warning("mcp/%s ended; its last lines: %s", self.server.name, last)
        for waiting in self._waiting.values():
            waiting.fail(gone())
            if waiting.line is not None:
                waiting.line.fail(gone())

    def _take(self, line: bytes) -> bool:
        """Handle a message; return whether it is one."""
        try:
            envelope = read_envelope(one_line(line.strip()))
        except ValueError:
            return False
        method = member_of(envelope, "method", str)
        if method is None:
            id_ = member_of(envelope, "id", int) or 0
            self._left.pop(id_, None)
            waiting = self._waiting.get(id_)
            if waiting is not None and not waiting.answered.done():
                waiting.answered.set_result(envelope)
        elif "id" in envelope:
            self._refuse(envelope, method)
        elif method == "notifications/progress":
            self._note_progress(envelope)
        elif method == "notifications/tools/list_changed":
            self._events.list_changed(self.server.name)
        return True

    def _fail_long(self, ends: bytes) -> None:
        """Fail the request whose answer is too long; *ends* are the line's two ends."""
        name, most = self.server.name, self.server.max_answer
        log.warning("mcp/%s wrote a line of more than %d bytes", name, most)
        for match in _ID.finditer(ends):
            self._left.pop(id_ := int(match[1]), None)
            if (waiting := self._waiting.get(id_)) is not None:
                waiting.line = None  # the server has done it
                waiting.fail(too_long(name, most))

    def _note_progress(self, envelope: Envelope) -> None:
        with suppress(ValueError):
            text = bytes(envelope.get("params", b""))
            params = read_answer(text if len(text) <= LONGEST_NOTE else b"")
            waiting = self._waiting.get(member_of(params, "progressToken", int) or 0)
            if waiting is not None:
                waiting.heard.set()
                waiting.progress(envelope["params"])

    def _refuse(self, envelope: Envelope, method: str) -> None:
        """Answer a server's request; see `reply_to_server`."""
        text, pipe = reply_to_server(envelope, method), self._pipe
        if text is not None and pipe is not None and pipe.put(text):
            self._events.count(self.server.name, "response", None)

    async def _log_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        try:
            await self._errors.follow(process.stderr)
        finally:
            _close(process, 2)

    def _kill(self, *, own: bool = False) -> None:
        """End the process; *own* if the program itself did not fail."""
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        self._left = {}
        blocked, self._blocked = self._blocked, None
        if blocked is not None:
            blocked.end()
        if pipe is not None:
            pipe.close()
        if process is not None:
            failed_before = self._failed
            self._ended(process)
            self._failed = failed_before if own else self._failed

    async def aclose(self) -> None:
        """End the process: it is asked by the end of its input, then made to."""
        self._closed = True
        process = self._process
        if process is not None:
            if self._pipe is not None:
                self._pipe.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            _signal(process, signal.SIGKILL)
            await process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._latest is not None:
            await self._latest.wait()  # one that was killed has not ended yet


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal a process and its children."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _close(process: asyncio.subprocess.Process, pipe: int) -> None:
    """Close a pipe that is read no more: left paused, it would stay open."""
    transport = process._transport.get_pipe_transport(pipe)  # type: ignore[attr-defined]  # noqa: SLF001
    if transport is not None:
        transport.close()


def gone() -> UpstreamError:
    """Return the error of a request during which the process ended."""
    return UpstreamError(502, "upstream_reset", "the server's process ended")


def busy(text: str, retry_s: int) -> CallRefusedError:
    """Return the refusal of a request for which the process has no free place."""
    code = "temporarily_unavailable"
    retry = (b"retry-after", b"%d" % retry_s)
    return CallRefusedError(503, code, code, text, retry, retry_after=retry_s)


def _legacy_only() -> McpError:
    return unsupported(MODERN, LEGACY)
