"""What the step-up dialog knows of requests like it: read from the broker, drawn."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.lines import LABEL, Pen, Row
from agentvault_tui.console.state import before
from agentvault_tui.console.state.records import StepUpRow
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.text import Shown, cell_width

_ROWS: Final = 5
_LOOKED_THROUGH: Final = 50
_WHEN: Final = 11
_ENDED: Final = 30


class History:
    """The last decisions about the same agent and action, as the ledger has them."""

    def __init__(self, desk: Desk, asked: StepUpRow) -> None:
        self.rows: tuple[StepUpRow, ...] | None = None
        """None until the broker has told."""
        self.problem = Shown("")
        """Why it has not."""
        self._desk = desk
        self._asked = asked
        self._seen_at = -1
        self._seen: frozenset[tuple[str, str]] = frozenset()

    def stale(self) -> bool:
        """Tell whether to read: at first, and when one like it was decided since."""
        version = self._desk.mirror.versions.stepups
        if version == self._seen_at:
            return False
        first, self._seen_at = self._seen_at == -1, version
        known, self._seen = self._seen, self._decided()
        return first or known != self._seen

    async def read(self) -> None:
        """Read it; what was read before stays when the broker does not answer."""
        try:
            self.rows = await self._before()
            self.problem = Shown("")
        except AgentVaultError as error:
            self.problem = self._desk.mirror.intake.shown(error.what, 80)

    async def _before(self) -> tuple[StepUpRow, ...]:
        """Read what had been decided by now, which may be a moment of the past."""
        desk = self._desk
        if not desk.past:
            return await desk.actions.before(self._asked.id, _ROWS)
        now = desk.mirror.clock.now()
        rows = await desk.actions.before(self._asked.id, _LOOKED_THROUGH)
        known = [row for row in rows if row.decided_at and row.decided_at <= now]
        return tuple(known[:_ROWS])

    def _decided(self) -> frozenset[tuple[str, str]]:
        kind = (self._asked.agent_id, self._asked.action)
        return frozenset(
            (row.id, row.status)
            for row in self._desk.mirror.stepups.values()
            if not row.open and (row.agent_id, row.action) == kind
        )


def gist(history: History, asked: StepUpRow, pen: Pen, width: int) -> Row:
    """Write on one row how those before ended."""
    if history.rows is None:
        words = f"not known: {history.problem}" if history.problem else "asking"
    else:
        words = before.tally(history.rows)
    if asked.count > 1:
        words = f"asked {asked.count:,} times; {words}"
    return pen.fact("Before", (pen.clip(words, width - LABEL), pen.palette.text))


def listed(
    history: History, asked: StepUpRow, now: datetime, pen: Pen, width: int
) -> list[Row]:
    """Write each on a row: when, how and by whom, and what was otherwise then."""
    palette, rows = pen.palette, history.rows or ()
    endings = [pen.clip(before.ended(row), _ENDED) for row in rows]
    column = max((cell_width(ending) for ending in endings), default=0)
    found = []
    for row, ending in zip(rows, endings, strict=True):
        when = before.ago(row, now).ljust(_WHEN)
        blank = " " * (column - cell_width(ending) + 2)
        room = max(width - LABEL - _WHEN - column - 2, 8)
        differs = pen.clip(before.differs(row, asked), room)
        found.append(
            pen.fact(
                "",
                (when, palette.muted),
                (ending + blank, palette.text),
                (differs, palette.text),
            )
        )
    return found
