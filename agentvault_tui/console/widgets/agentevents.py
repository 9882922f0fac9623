"""Events of one agent: follows, holds, and pages back as far as the ledger goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw import words
from agentvault_tui.console.draw.lines import Row, cells
from agentvault_tui.console.draw.words import place
from agentvault_tui.console.state.feed import Feed
from agentvault_tui.console.state.filters import Filter
from agentvault_tui.console.state.records import EventRow
from agentvault_tui.console.widgets.audit import AuditPane, Read
from agentvault_tui.text import cell_width


@dataclass(frozen=True, slots=True)
class OfAgent(Filter):
    """Holds for one agent by its id; no name another chose can slip in."""

    agent_id: str = ""

    def __bool__(self) -> bool:
        """Ask for something, always."""
        return True

    def event(self, row: EventRow, *_: object, **__: object) -> bool:
        """Tell whether the event is about the agent."""
        return row.agent_id == self.agent_id

    def query(self, *_: object, **__: object) -> dict[str, Any]:
        """Let the broker find them: it has an index for that."""
        return {"agent": self.agent_id}


class EventsPane(AuditPane):
    """The audit pane, of one agent: without its name, with more of the rest."""

    def __init__(self, desk: Desk, agent_id: str, read: Read) -> None:
        feed = Feed(desk.mirror)
        feed.narrow(OfAgent(agent_id=agent_id))
        super().__init__(desk, feed, read, id="events")

    @property
    def _none(self) -> str:
        return "Nothing has happened."  # it is narrowed to the agent, by no filter

    def _event(self, event: EventRow, width: int, *, here: bool) -> list[Row]:
        pen, p = self.pen, self.pen.palette
        word, style = words.word(event), words.style(p, event)
        said = "" if event.outcome else words.why(self.mirror, event)
        where = pen.own(" ".join(words.beside(event, said)))
        room = width // 2 if where else width - len(word) - 13
        left: Row = (
            (pen.glyphs.cursor if here else " ", p.accent if here else p.muted),
            (f"{self._when(event)} ", p.muted),
            (pen.clip(words.deed(event), max(room, 8)), p.text),
        )
        right = ((f" {word} ", style),)
        if place(event) and event.note:
            rest = max(width - cells(left) - cells(right) - 3, 1)
            where = pen.figure(place(event), event.note, rest)
        left = (*left, (f"  {where}" if where else "", p.muted))
        rows: list[Row] = [pen.spread(left, right, width)]
        if self._tall(event) == 2:
            why = pen.clip(words.why(self.mirror, event), max(width - 13, 4))
            rows.append(((" " * 12 + why, p.muted),))
        return rows

    def _when(self, event: EventRow) -> str:
        """Write the time; the day too, once it is not today's."""
        now = self.mirror.clock.now()
        same = event.time.date() == now.date()
        return f"{event.time:%H:%M:%S}" if same else f"{event.time:%d %b %H:%M}"

    def _title(self, width: int) -> Row:
        pen, p, feed = self.pen, self.pen.palette, self.feed
        row: Row = (*self.heading("Events"), *self._standing())
        whole = feed.exhausted or not feed.rows
        count = f"{len(feed.rows):,}" + (" " if whole else " read ")
        if cell_width(count) > width // 3:
            count = ""
        return pen.spread(row, ((count, p.muted),), width)
