"""The ledger as this console saw it: what comes next is held against that."""

from __future__ import annotations

from typing import Final

from agentvault_tui.console.link.memory import Head, Memory
from agentvault_tui.console.link.wire import Wire, objects
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import Json

_LEDGER: Final = "ledger"


class SeenLedger:
    """Remembers the last head over restarts, and says loudly when it is gone."""

    def __init__(self, mirror: Mirror, memory: Memory, wire: Wire) -> None:
        self._mirror = mirror
        self._memory = memory
        self._wire = wire

    def tidy(self) -> None:
        """Forget the heads of ledgers whose home is gone."""
        self._memory.tidy()

    async def compare(self, status: Json) -> None:
        """Hold what the broker has now against what was seen before."""
        now = self._mirror.intake.status(status)
        seen = self._memory.recall()
        if self._mirror.last_hash:
            mine = Head(self._mirror.last_seq, self._mirror.last_hash)
            seen = mine if seen is None or mine.seq >= seen.seq else seen
        if seen is None or not seen.seq or _LEDGER in self._mirror.warnings:
            return
        if now.head < seen.seq:
            self.accuse(f"it ends at {now.head:,}, and {seen.seq:,} was seen here")
            return
        page = await self._wire.get("/api/audit", after=seen.seq - 1, limit=1)
        events = objects(page, "events")
        if not events or events[0].get("hash") != seen.hash:
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
