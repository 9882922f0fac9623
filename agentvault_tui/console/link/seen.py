"""The ledger as this console saw it: what comes next is held against that."""

from __future__ import annotations

from typing import Final

from agentvault_tui.console.link.memory import Head, Memory
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.operator_api.calls import AUDIT
from agentvault_tui.operator_api.client import AsyncOperatorClient
from agentvault_tui.operator_api.requests import AuditQuery

_LEDGER: Final = "ledger"


class SeenLedger:
    """Remembers the last head over restarts, and says loudly when it is gone."""

    def __init__(
        self, mirror: Mirror, memory: Memory, client: AsyncOperatorClient
    ) -> None:
        self._mirror = mirror
        self._memory = memory
        self._client = client

    def tidy(self) -> None:
        """Forget the heads of ledgers whose home is gone."""
        self._memory.tidy()

    async def compare(self, head: int) -> None:
        """Hold what the broker has now against what was seen before."""
        seen = self._memory.recall()
        if self._mirror.last_hash:
            mine = Head(self._mirror.last_seq, self._mirror.last_hash)
            seen = mine if seen is None or mine.seq >= seen.seq else seen
        if seen is None or not seen.seq or _LEDGER in self._mirror.warnings:
            return
        if head < seen.seq:
            self.accuse(f"it ends at {head:,}, and {seen.seq:,} was seen here")
            return
        query = AuditQuery(after=seen.seq - 1, limit=1)
        events = (await self._client.call(AUDIT, query)).events
        if not events or events[0].hash != seen.hash:
            self.accuse(f"event {seen.seq:,} is not the one that was seen here")

    def accuse(self, what: str) -> None:
        """Say that records are not what they were; it stands until accepted."""
        self._mirror.versions.ledger += 1
        self._mirror.warn(
            _LEDGER,
            f"LEDGER CHANGED: {what}. Records are missing, or an older copy stands in"
            " their place. What to do: agentvault audit verify",
        )

    def accept(self) -> None:
        """Take the ledger as it is now for the true one; the operator's word."""
        self._mirror.unwarn(_LEDGER)
        self.keep()

    def keep(self) -> None:
        """Remember the head, unless something is wrong with it."""
        mirror = self._mirror
        if _LEDGER in mirror.warnings or not mirror.last_hash:
            return
        self._memory.keep(Head(mirror.last_seq, mirror.last_hash))
