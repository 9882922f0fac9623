"""What the audit screen reads about the events in sight: their links and stories.

One question is under way at a time, and the next one is about where the operator is
by then; nothing is asked about rows that are still moving.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agentvault_tui.console.link.link import Link
from agentvault_tui.console.state.checked import Checked
from agentvault_tui.console.state.evidence import Evidence
from agentvault_tui.console.state.records import EventRow
from agentvault_tui.console.widgets.evidence import EvidencePane
from agentvault_tui.console.widgets.ledgerlist import LedgerList
from agentvault_tui.errors import AgentVaultError

_REMEMBERED: Final = 64
_NEW: Final = 200
"""Recent events looked through for more of a story."""


class Reading:
    """Asks the broker, and shows what it says where it belongs."""

    def __init__(
        self, link: Link, checked: Checked, events: LedgerList, pane: EvidencePane
    ) -> None:
        self._link = link
        self._mirror = link.mirror
        self._checked = checked
        self._list = events
        self._pane = pane
        self._ledger = link.mirror.versions.ledger
        self._seen: list[int] = []
        self._checking: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    def look(self, *, wanted: bool) -> None:
        """Ask for what is in sight and not known; the story only if it is *wanted*."""
        if not self._mirror.link.live or self._list.feed.foreign:
            return
        if self._ledger != self._mirror.versions.ledger:
            self._ledger = self._mirror.versions.ledger
            self._pane.known.clear()
        rows = self._list.on_screen
        seqs = [row.seq for row in rows]
        still = not self._list.feed.follow or seqs == self._seen
        self._seen = seqs
        if still and not _busy(self._checking):
            asked = self._checked.unknown(rows)
            if asked:
                self._checking = asyncio.create_task(self._check(asked))
        row = self._list.feed.under_cursor
        if wanted and row is not None and still and not _busy(self._telling):
            known = self._pane.known.get(row.seq)
            if known is None or self._grew(known):
                self._telling = asyncio.create_task(self._tell(row))

    @property
    def idle(self) -> bool:
        """Tell whether nothing is being asked."""
        return not _busy(self._checking) and not _busy(self._telling)

    def stop(self) -> None:
        """Ask for nothing more."""
        for task in (self._checking, self._telling):
            if task is not None:
                task.cancel()

    def _grew(self, known: Evidence) -> bool:
        """Tell whether something came that may belong to the story."""
        for number, row in enumerate(reversed(self._mirror.events)):
            if row.seq <= known.upto or number == _NEW:
                return False
            if known.grows_by(row):
                return True
        return False

    async def _check(self, rows: list[EventRow]) -> None:
        try:
            proofs = await self._link.links(row.seq for row in rows)
        except AgentVaultError:
            return  # stays unchecked, which is what the title says
        self._checked.take(rows, proofs)
        self._list.paint()
        self._pane.paint()

    async def _tell(self, row: EventRow) -> None:
        upto = self._mirror.last_seq
        try:
            proofs = await self._link.links([row.seq])
            story, complete = await self._link.story(row.seq)
        except AgentVaultError:
            return
        known = self._pane.known
        if len(known) >= _REMEMBERED:
            known.clear()
        proof = proofs[0] if proofs else None
        known[row.seq] = Evidence(proof, tuple(story), complete, upto)
        self._pane.paint()
        self.look(wanted=True)


def _busy(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()
