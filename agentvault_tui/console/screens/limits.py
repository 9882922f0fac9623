"""Limits: the use and rest of each, when some frees; and webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk, copy
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.screens.base import Hint, PolledScreen
from agentvault_tui.console.widgets.pane import ListPane, Painted, Pane
from agentvault_tui.presenters.limits import CallOutRow, LimitWindow, windows
from agentvault_tui.presenters.lines import Row
from agentvault_tui.presenters.moments import ago
from agentvault_tui.presenters.records import AgentRow
from agentvault_tui.text import Shown, cell_width

_FREES, _BEYOND = 11, 9
_GAP = 2
_NARROWEST = 7
"""Cells of the window's subject, at least."""


class LimitsPane(ListPane[LimitWindow]):
    """One row for each window that holds something; those with least left first.

    A limit that nothing is used of has a row too.
    """

    NONE = "None: write limits.toml, then agentvault policy check limits.toml"

    def title(self) -> Row:
        title, p = self.heading("Limits"), self.pen.palette
        if self.status_text:
            return (*title, (f"  {self.status_text}", p.waiting))
        words = ("  what is left of each, and when some frees", p.muted)
        return (*title, words) if self.rows else title

    def heads(self, width: int) -> Row:
        pen, muted = self.pen, self.pen.palette.muted
        name, whose, left = self._widths(width)
        words = zip(
            ("limit", "for", "left", "frees", "over it"),
            (name, whose, left, _FREES, _BEYOND),
            strict=True,
        )
        line = tuple((pen.column(Shown(word), wide), muted) for word, wide in words)
        return pen.cut(line, width - 2)

    def _widths(self, width: int) -> tuple[int, int, int]:
        """Return the cells of the limit's name, its subject, and its rest.

        The rest is never truncated: names are, and then the other columns.
        """
        rows = self.rows.values()
        left = max(len(_left(one)) for one in rows) + 1
        rest = 0 if width < 60 else _FREES + _BEYOND
        room = max(width - 3 - left - rest, 2 * _NARROWEST)
        name = max(len(one.limit.id) for one in rows) + 1
        name = min(name, room - _NARROWEST)
        whose = max(cell_width(one.subject) for one in rows) + _GAP
        return name, min(whose, room - name), left

    def row(self, row: LimitWindow, width: int) -> Row:
        """Draw one limit: subject, rest, the next release, the answer beyond."""
        pen, p = self.pen, self.pen.palette
        near = p.danger if not row.left else p.waiting if row.is_near else p.text
        name, whose, left = self._widths(width)
        frees = ""
        if row.frees_at is not None:
            until = ago(self.mirror.clock.now(), row.frees_at).removesuffix(" ago")
            frees = f"in {until}"
        line: Row = (
            (pen.column(row.limit.id, name), p.strong),
            (pen.column(row.subject, whose), p.text),
            (pen.column(_left(row), left), near),
            (pen.column(frees, _FREES), p.muted),
            (pen.clip(row.beyond, _BEYOND), p.muted),
        )
        return pen.cut(line, width - 2)


def _left(row: LimitWindow) -> str:
    """Write the rest of a limit, with the currency once."""
    rest, _, unit = row.rest.partition(" ")
    if unit and f" {unit} " not in row.allows:
        rest = row.rest
    return f"{rest} of {row.allows}"


class CallOutsPane(Pane):
    """One row for each call-out: whether it answered when it was asked last."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, id="callouts")
        self.rows: tuple[CallOutRow, ...] = ()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """List them; those that have no room are counted in the title."""
        p = self.pen.palette
        more = max(len(self.rows) - (height - 1), 0)
        title = self.heading("Call-outs")
        if more:
            title = (*title, (f"  {more} more: agentvault limits", p.muted))
        shown = self.rows[: max(height - 1, 0)]
        return [(title, None), *((self._row(row, width), None) for row in shown)]

    def _row(self, row: CallOutRow, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        state, style = "not asked yet", p.muted
        if asked_at := row.asked_at:
            word = f"answered in {row.ms} ms" if row.answers else "FAILED"
            style = p.accent if row.answers else p.danger
            state = f"{word} {ago(asked_at, self.mirror.clock.now())}"
        text = f"  {row.problem or row.url}"
        name = pen.column(row.id, min(max(width // 4, _NARROWEST), 24))
        return pen.cut(
            ((f"  {name}", p.strong), (state, style), (text, p.muted)), width
        )


class LimitsScreen(PolledScreen):
    """Show the uses of limits, read again every few seconds."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "look", "look: its agent"),
    ]
    PANES = (LimitsPane,)
    SHOWS = "limits"

    def __init__(self, desk: Desk) -> None:
        self.list = LimitsPane(desk, id="limits")
        self.callouts = CallOutsPane(desk)
        super().__init__(desk, self.list, self.callouts)

    def row_keys(self) -> list[Hint]:
        if self.chosen is None:
            return []
        return [("Enter", "its agent"), *self.named("revoke")]

    @property
    def chosen(self) -> AgentRow | None:
        """The agent whose window is under the cursor, if it is one agent's."""
        row = self.list.under_cursor
        return self.desk.mirror.agents.get(row.agent_id) if row else None

    async def read(self) -> None:
        listing = await self.link.limits()
        self.list.status_text, self.callouts.rows = listing.problem, listing.hooks
        self.list.rows = {one.id: one for one in windows(listing)}

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Give all below the header to the list, up to a third to call-outs."""
        boxes, head, room = self.header(width, height)
        if self.callouts.rows and room > 5:
            low = min(len(self.callouts.rows) + 1, max(room // 3, 2))
            boxes["callouts"] = Box(0, head + room - low, width, low)
            room -= low
        return boxes | {"limits": Box(0, head, width, room)}

    def action_look(self) -> None:
        """Open the agent whose window is under the cursor."""
        self.show_agent()

    def action_copy(self) -> None:
        if row := self.list.under_cursor:
            copy(self.app, "limit id", row.limit.id)
