"""Server-sent events to consoles, made from commits in the order of the ledger.

The objects a commit changed are sent first and without an ``id``, its events last,
each with its ``seq`` as ``id``: a connection cut in between resumes at the event and
sees the objects again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Final

from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.shapes import (
    agent_info,
    event_info,
    stepup_info,
    token_info,
)
from agentvault_tui.ledger import Change, EventQuery, Ledger
from agentvault_tui.model import Agent, AgentId, Event, StepUp, Token
from agentvault_tui.model.event import loosens
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.history import LoosenedInfo
from agentvault_tui.operator_api.shapes import HeadInfo, StatusInfo, WireShape

BACKLOG: Final = 16 * 1024 * 1024
"""Characters one slow console may be behind before it is cut off and must resume."""
_HEARTBEAT: Final = 5.0
_PAGE: Final = 500
_FRAMES_A_TURN: Final = 5
"""Frames written in a turn of the event loop, about 2 ms."""
_ROUTINE_S: Final = 0.1
"""Seconds in which routine is gathered into one write, at most."""
_GATHER_S: Final = 0.02
"""Seconds between two writes, also of urgent events."""
_AT_ONCE: Final = (
    *("stepup.", "change.", "panic.", "agent.revoked", "agent.restored"),
    *("agent.flooding", "alert.", "audit.", "clock.", "ledger.", "tenant."),
)
"""Beginnings of the types of events that wait for no routine."""
_LOOSENINGS: Final = 16
"""Most recent loosenings that are sent to each console that joins."""


class Feed:
    """Fans commits out to any number of consoles; costs nothing while none listens."""

    def __init__(
        self, ledger: Ledger, registry: Registry, status: Callable[[], StatusInfo]
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._status = status
        self._listeners: set[_Listener] = set()
        self._loosened = deque[Event](maxlen=_LOOSENINGS)

    @property
    def watched(self) -> bool:
        """Whether any console listens."""
        return bool(self._listeners)

    def publish(self, events: Sequence[Event], changes: Sequence[Change]) -> None:
        """Send one durable commit, in the order of the ledger."""
        for event in events:
            self._registry.count(event)
            if loosens(event):
                self._loosened.append(event)
        if not self._listeners:
            return
        urgent = any(isinstance(change, StepUp) for change in changes)
        self._send("".join(self._objects(changes)), urgent=urgent)
        for event in events:
            text = frame("audit", event_info(event), event.seq)
            urgent = loosens(event) or event.type.startswith(_AT_ONCE)
            self._send(text, event.seq, urgent=urgent)

    def publish_status(self) -> None:
        """Send the status line again: panic, ledger, tenant or policy changed."""
        if self._listeners:
            status = self._status()
            text = frame("status", status) + frame("tenant", status.tenant)
            self._send(text, urgent=True)

    def tell(self, name: str, data: Callable[[], WireShape]) -> None:
        """Send an event that is in no ledger; *data* is made only for listeners."""
        if self._listeners:
            self._send(frame(name, data()))

    def cut(self) -> None:
        """End every stream: consoles come back and resume by their last id."""
        for listener in self._listeners:
            listener.end()

    async def stream(self, last_event_id: int | None) -> AsyncGenerator[str]:
        """Yield frames for one console: after *last_event_id*, or from now on."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            head = self._ledger.head
            if last_event_id is not None and last_event_id > head.seq:
                # Not the ledger this console saw: an older copy, or another one.
                yield frame("reset", HeadInfo(head=head.seq, hash=head.hash))
                last_event_id = None
            status = self._status()
            yield frame("status", status) + frame("tenant", status.tenant)
            # A busy feed soon leaves them out of the page that a console begins with.
            for event in list(self._loosened):
                yield frame("loosened", LoosenedInfo(event=event_info(event)))
            sent = head.seq
            if last_event_id is not None:
                async for text, seq in self._replay(last_event_id, head.seq):
                    sent = seq
                    yield text
            async for text in listener.frames(sent):
                yield text
        finally:
            self._listeners.discard(listener)

    async def _replay(self, after: int, head: int) -> AsyncIterator[tuple[str, int]]:
        """Read the missed events: each touched object as it is now, and every event."""
        cursor: int | None = after
        while cursor is not None and cursor < head:
            page = await self._ledger.events(EventQuery(after=cursor, limit=_PAGE))
            if page.events:
                text = ""
                for number, each in enumerate(self._frames_of(page.events)):
                    text += each
                    if number % _FRAMES_A_TURN == 0:
                        await asyncio.sleep(0)
                yield text, page.events[-1].seq
            cursor = page.next

    def _frames_of(self, events: Sequence[Event]) -> Iterator[str]:
        """Yield the frames of *events*, after those of the objects they touched."""
        agents = {event.agent_id for event in events if event.agent_id}
        stepups = {str(event.detail.get("stepup_id", "")) for event in events} - {""}
        for agent_id in sorted(agents):
            yield from self._agent(agent_id)
        for stepup_id in sorted(stepups):
            # One that was decided long ago is not known: the events tell its story.
            if stepup := self._registry.stepups.find(stepup_id):
                yield frame("stepup", stepup_info(stepup, self._registry.ends()))
        for event in events:
            yield frame("audit", event_info(event), event.seq)

    def _objects(self, changes: Sequence[Change]) -> list[str]:
        frames = []
        # The registry takes an agent over after its commit: until then it still holds
        # the state before, which must not follow the new one on the stream.
        given = {change.id for change in changes if isinstance(change, Agent)}
        for change in changes:
            match change:
                case Agent():
                    frames.append(frame("agent", agent_info(change, self._registry)))
                case StepUp():
                    frames.append(
                        frame("stepup", stepup_info(change, self._registry.ends()))
                    )
                case Token():
                    frames.append(frame("token", token_info(change)))
                case _:
                    agent_id = getattr(change, "agent_id", None)
                    if agent_id and agent_id not in given:
                        given.add(agent_id)  # once, however much of it has changed
                        frames += self._agent(agent_id)
        return frames

    def _agent(self, agent_id: AgentId) -> list[str]:
        agent = self._registry.find_agent(agent_id)
        return [frame("agent", agent_info(agent, self._registry))] if agent else []

    def _send(self, text: str, seq: int = 0, *, urgent: bool = False) -> None:
        if text:
            for listener in self._listeners:
                listener.put(text, seq, urgent=urgent)


class _Listener:
    """One console's bounded queue; at overflow its stream ends."""

    def __init__(self) -> None:
        self._queue: list[tuple[str, int]] = []
        self._arrived = asyncio.Event()
        self._urgent = asyncio.Event()
        self._ended = False
        self._behind = 0
        self._sent_at = float("-inf")
        """When the last write was, by the loop's clock."""

    def put(self, text: str, seq: int, *, urgent: bool) -> None:
        """Queue *text*; a console too far behind is cut off and resumes by id.

        An *urgent* event is sent at once, with the whole queue before it.
        """
        self._behind += len(text)
        if self._behind > BACKLOG:
            self._ended = True
            self._queue.clear()
        if not self._ended:
            self._queue.append((text, seq))
        self._arrived.set()
        if urgent or self._ended:
            self._urgent.set()

    def end(self) -> None:
        """Close the stream; unsent events are read again from the ledger."""
        self._ended = True
        self._arrived.set()
        self._urgent.set()

    async def frames(self, sent: int) -> AsyncIterator[str]:
        """Yield the arriving events, in batches, leaving out events up to *sent*."""
        while not self._ended:
            try:
                await asyncio.wait_for(self._arrived.wait(), _HEARTBEAT)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            await self._gather()
            self._arrived.clear()
            self._urgent.clear()
            batch, self._queue, self._behind = self._queue, [], 0
            text = "".join(text for text, seq in batch if seq == 0 or seq > sent)
            if text:
                yield text

    async def _gather(self) -> None:
        """Let routine gather until something urgent arrives.

        However often that happens, writes are some time apart: an agent can make
        requests that wait for a person, and every console is sent each of them.
        """
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._urgent.wait(), _ROUTINE_S)
        await asyncio.sleep(max(self._sent_at + _GATHER_S - loop.time(), 0))
        self._sent_at = loop.time()


def frame(name: str, data: WireShape, event_id: int | None = None) -> str:
    """Write one server-sent event; JSON keeps every line break inside."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {name}\ndata: {encode(data).decode()}\n\n"
