"""Messages to MCP servers that are no calls: counted, and recorded once a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.model import AgentId, Draft, EventType

EVERY_S: Final = 60.0
"""Seconds between two records of the same agent, server and method."""
_BATCH: Final = 100
"""Records in one transaction: more would hold up the event loop."""


@dataclass(slots=True)
class _Count:
    """Messages that are not recorded yet."""

    number: int = 0
    recorded_at: float | None = None
    """In boot seconds; None where none of them was recorded yet."""


class MessageCounts:
    """Counts messages by agent, server and method, and records the counts."""

    def __init__(self, broker: Broker) -> None:
        """Start with none."""
        self._broker = broker
        self._counts: dict[tuple[AgentId | None, str, str], _Count] = {}

    def count(self, server: str, method: str, agent_id: AgentId | None) -> None:
        """Count one message that reached a server, in memory.

        Args:
            server: its name.
            method: of the message; ``response`` for an answer to the server's request.
            agent_id: whose it is; None for the gateway's own.
        """
        self._counts.setdefault((agent_id, server, method), _Count()).number += 1

    async def record(self, *, ending: bool = False) -> None:
        """Record the counts that were not within the last minute; all if *ending*.

        Raises:
            LedgerError: not now; they are counted on.
        """
        now, due = self._broker.clock.boot(), []
        for key, one in list(self._counts.items()):
            rests = one.recorded_at is not None and now - one.recorded_at < EVERY_S
            if rests and not ending:
                continue
            if one.number:
                due.append(key)
            else:
                del self._counts[key]
        for first in range(0, len(due), _BATCH):
            taken = [(key, self._counts[key]) for key in due[first:][:_BATCH]]
            numbers = [one.number for _, one in taken]
            drafts = [self._draft(*key, one.number) for key, one in taken]
            for _, one in taken:
                one.number = 0
            try:
                await self._broker.record(*drafts)
            except BaseException:
                for (_, one), number in zip(taken, numbers, strict=True):
                    one.number += number
                raise
            for _, one in taken:
                one.recorded_at = now

    def _draft(
        self, agent_id: AgentId | None, server: str, method: str, number: int
    ) -> Draft:
        broker = self._broker
        actor = SYSTEM
        if agent_id is not None:
            actor = broker.actor(broker.registry.agent(agent_id))
        times = "once" if number == 1 else f"{number:,} times"
        return Draft(
            EventType.MCP_MESSAGE,
            actor,
            agent_id=agent_id,
            resource=f"mcp/{server}",
            reason=f"sent {times}",
            detail={"server": server, "method": method, "count": number},
        )
