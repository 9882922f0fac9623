"""The agent pane: cards by attention, the cursor on an identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.lines import Row, plural
from agentvault_tui.console.state.agentview import AgentView
from agentvault_tui.console.state.records import AgentRow
from agentvault_tui.console.widgets.card import Cards
from agentvault_tui.console.widgets.pane import Painted, Pane

_WELCOME: Final = (
    "No agents yet.",
    "",
    "Add the first one from a shell:",
    "",
    "  agentvault agents add NAME \\",
    "      --owner YOU --scope read:calendar",
    "",
    "It prints a client id and a secret, once.",
)
_NONE_THEN: Final = ("No agent was registered yet.",)
_UNREAD: Final = ("Not read yet.",)


class AgentPane(Pane, can_focus=True):
    """One card an agent; only those on screen are ever drawn."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("pagedown,ctrl+d", "page(1)", "page down", show=False),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False),
        Binding("home,g", "edge(0)", "first", show=False),
        Binding("end,G", "edge(-1)", "last", show=False),
        Binding("enter", "open", "all about the agent", show=False),
    ]

    class Moved(Message):
        """The cursor is on another agent."""

        def can_replace(self, message: Message) -> bool:
            """Only the latest place matters."""
            return isinstance(message, AgentPane.Moved)

    class Opened(Message):
        """The operator wants to know more about the agent under the cursor."""

    def __init__(self, desk: Desk, view: AgentView) -> None:
        super().__init__(desk, id="agents")
        self.view = view
        self._top = 0
        self._offset = 0
        """The cursor's row on screen, kept when the order changes."""
        self._cards = Cards(desk.mirror)

    @property
    def agent(self) -> AgentRow | None:
        """The agent under the cursor: what keys act on."""
        return self.mirror.agents.get(self.view.cursor or "")

    @property
    def rows_a_card(self) -> int:
        """How tall a card is here."""
        width, height = self.size
        return 3 if width < 76 and height >= 14 else 2

    @property
    def _pitch(self) -> int:
        """Rows from one card to the next: they stand apart where all have room."""
        tall = self.rows_a_card
        room = self.size.height - 1
        return tall + (len(self.view.order) * (tall + 1) <= room + 1)

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw the title and the cards in sight."""
        rows: list[Painted] = [(self._title(width), None)]
        if not self.mirror.agents:
            return [*rows, *self._empty(width)]
        tall, pitch = self.rows_a_card, self._pitch
        self._scroll(max((height - 1) // tall, 1))
        room = height - 1
        for agent_id in self.view.order[self._top : self._top + room // tall + 1]:
            rows += self._card(agent_id, width, tall)
            rows += [((), None)] * (pitch - tall)
        if not self.view.order:
            said = (
                f"  Nothing matches. {self.desk.key('out', 'Esc')} clears the filter."
            )
            rows += [((), None), (((said, self.pen.palette.text),), None)]
        return rows[:height]

    def _card(self, agent_id: str, width: int, tall: int) -> list[Painted]:
        pen, look = self.pen, self.view.look(agent_id)
        agent = self.mirror.agents[agent_id]
        here = agent_id == self.view.cursor
        over = pen.palette.cursor if here and self.has_focus else None
        mark = pen.glyphs.cursor if here else " "
        style = pen.palette.accent if self.has_focus else pen.palette.muted
        rows = self._cards.draw(pen, self.app.theme, agent, look, (width - 2, tall))
        return [(((mark, style), *row), over) for row in rows]

    def _scroll(self, visible: int) -> None:
        """Keep the cursor in sight and, when rows move, where it was on screen."""
        index, last = self.view.index, max(len(self.view.order) - visible, 0)
        top = index - self._offset
        # A list that was not scrolled stays at its top: who needs a person is there.
        unscrolled = self._top == 0 and index < visible
        if self.view.still or unscrolled or not 0 <= self._offset < visible:
            top = min(max(self._top, index - visible + 1), index)
        self._top = min(max(top, 0), last)
        self._offset = index - self._top

    def _title(self, width: int) -> Row:
        pen, view, p = self.pen, self.view, self.pen.palette
        mirror, all_ = self.mirror, len(self.mirror.agents)
        count = f"{all_ - len(mirror.servers):,}"
        if mirror.servers:
            count = f"{count} and {plural(len(mirror.servers), 'resource server')}"
        shown = f"{len(view.order):,} of {all_:,}" if view.filter else count
        row: Row = self.heading("Agents")
        if mirror.loaded:
            row = (*row, (f"  {shown}", p.text))
        elif mirror.partial:
            row = (*row, (f"  {shown} read so far", p.waiting))
        if view.filter:
            row = (*row, (f", {view.hidden:,} hidden", p.waiting))
        if view.held:
            row = (*row, (f"  {view.held} new", p.waiting))
        return pen.spread(row, (("by attention ", p.muted),), width)

    def _empty(self, width: int) -> list[Painted]:
        pen, p = self.pen, self.pen.palette
        said = _NONE_THEN if self.desk.past else _WELCOME
        if not self.mirror.loaded:
            said = _UNREAD
        lines = ("", *said) if self.mirror.link.live or said is _UNREAD else ()
        rows: list[Painted] = []
        for line in lines:
            style = p.key if line.startswith("  ") else p.text
            rows.append((((" " + pen.clip(line, width - 2), style),), None))
        return rows

    def action_move(self, rows: int) -> None:
        """Move the cursor."""
        self.view.move(rows)
        self._after_move()

    def wheel(self, rows: int) -> None:
        """Move the cursor by the wheel, a card a notch."""
        self.action_move(1 if rows > 0 else -1)

    def on_click(self, event: Click) -> None:
        """Put the cursor on the card under the mouse."""
        if event.y > 0 and self.view.order:
            self.view.put(self._top + (event.y - 1) // self._pitch)
            self._after_move()

    def action_page(self, direction: int) -> None:
        """Move the cursor by a screenful."""
        self.view.move(direction * max((self.size.height - 1) // self.rows_a_card, 1))
        self._after_move()

    def action_edge(self, index: int) -> None:
        """Move the cursor to the first or the last agent."""
        self.view.put(index if index >= 0 else len(self.view.order) - 1)
        self._after_move()

    def action_open(self) -> None:
        """Ask for the agent's screen."""
        self.post_message(self.Opened())

    def _after_move(self) -> None:
        self.paint()
        self.post_message(self.Moved())
