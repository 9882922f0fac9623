"""Dialogs with a list: the queue of step-ups, and the saved filters."""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from textual.app import App
from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import REQUEST_KEYS, Dialog, Result, SheetPage
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.messages import ShowAgent
from agentvault_tui.console.state.presence import listed
from agentvault_tui.console.term.keyed import ListCursor, moves
from agentvault_tui.presenters.lines import EMPTY, Pen, Piece, Row, cells
from agentvault_tui.presenters.moments import SOON, clock_time, countdown
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.presenters.revocations import DeniedRow
from agentvault_tui.presenters.stepups import summary
from agentvault_tui.text import cell_width

_DECIDED = 50
_NARROW = 90
"""Below this width names have a narrower column."""
_WHEN = 15
"""Cells of a decided row that are neither name, action nor ending."""
_ENDED = 30
_ENDED_LEAST = 12
_WHERE_LEAST = 8


def open_stepups(app: App[object], desk: Desk) -> None:
    """Open the one request that waits, or the queue when there is another number."""
    waiting = desk.mirror.open_stepups()
    if len(waiting) == 1:
        app.push_screen(StepUpDialog(desk, waiting[0]))
    else:
        app.push_screen(StepUpsDialog(desk))


class ListDialog(ListCursor, Dialog[Result]):
    """A dialog with a cursor on one of its rows."""

    def wheel(self, rows: int) -> None:
        self.action_move(rows)

    def action_move(self, step: int) -> None:
        if self.move_cursor(step):
            self.update_page()

    def show_line(self, line: int, room: int) -> None:
        """Scroll so that a line of the body is among the *room* that are shown."""
        self.sheet.top = min(max(self.sheet.top, line - room + 1), line)


class StepUpsDialog(ListDialog[None]):
    """List requests: those that wait, and those decided lately."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "look"),
        Binding("a", "approve", "approve"),
        *REQUEST_KEYS,
        *moves("move"),
        Binding("escape,s", "leave", "back"),
    ]
    WIDTH: ClassVar[int] = 116

    def state(self) -> object:
        """Let keys wait after another request came under the cursor, or was decided."""
        row = self.desk.mirror.stepups.get(self.cursor)
        return row and (row.id, row.digest, row.status)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer decisions about a request that waits."""
        if action in {"approve", "deny", "reason", "view"}:
            row = self.desk.mirror.stepups.get(self.cursor)
            return row is not None and row.open
        return super().check_action(action, parameters)

    def page(self, width: int, height: int) -> SheetPage:
        """List the waiting ones, oldest first, then the latest decided."""
        pen = self.pen
        waiting, done = self._rows()
        self.keep_cursor([row.id for row in (*waiting, *done)])
        body: list[Row] = [self._waiting(pen, row, width) for row in waiting]
        if not waiting:
            body.append((("Nothing waits for a person.", pen.palette.text),))
        lines: dict[str, int] = {row.id: number for number, row in enumerate(waiting)}
        if done:
            body += [EMPTY, (("Decided lately", pen.palette.muted),)]
            # Who decided gives way to the action, and to how much it moves.
            action = max(cell_width(f"{row.action} {row.gist}".strip()) for row in done)
            room = max(width - _WHEN - _name_cells(width) - action, _ENDED_LEAST)
            ends = [pen.clip(summary(row), min(room, _ENDED)) for row in done]
            column = max(cell_width(end) for end in ends)
            for row, end in zip(done, ends, strict=True):
                lines[row.id] = len(body)
                body.append(self._decided(pen, row, end.ljust(column), width))
        actions = ("open", "approve", "deny", "reason", "view", "agent", "leave")
        keys = pen.key_rows(self.hints(*actions), width)
        footer = [*self.notes(pen, width), EMPTY, *keys]
        self.show_line(lines.get(self.cursor, 0), height - len(footer))
        title = (("Step-ups  ", pen.palette.title), self._count(pen, waiting))
        return SheetPage(title, self._oldest(pen, waiting), tuple(body), tuple(footer))

    def copies(self) -> tuple[str, str] | None:
        return ("step-up id", self.cursor) if self.cursor else None

    def action_agent(self) -> None:
        row = self.desk.mirror.stepups.get(self.cursor)
        if row is not None and row.agent_id:
            self.app.post_message(ShowAgent(row.agent_id))

    def action_open(self) -> None:
        self._open("")

    def action_approve(self) -> None:
        """Open the request under the cursor, which shows it all, and ask for a code."""
        self._open("approve")

    def action_reason(self) -> None:
        self._open("reason")

    def action_view(self) -> None:
        self._open("view")

    def action_deny(self) -> None:
        """Deny the request under the cursor, and that one alone."""
        row = self.desk.mirror.stepups.get(self.cursor)
        if row is not None and self.may_decide("revoke"):
            self.ask(lambda: self.desk.link.deny(row.id, ""), self._denied)

    def _denied(self, denied: DeniedRow) -> None:
        self._decided_there(None)
        row = denied.row
        self.say(f"Denied {row.fingerprint}: {row.headline}.")
        self.caution(denied.cautions)

    def _open(self, then: str) -> None:
        row = self.desk.mirror.stepups.get(self.cursor)
        if row is not None:
            dialog = StepUpDialog(self.desk, row, then=then)
            self.app.push_screen(dialog, self._decided_there)

    def _decided_there(self, _: None) -> None:
        """Go on to the next waiting one, once the one under the cursor was decided."""
        mirror, waiting = self.desk.mirror, self.desk.mirror.open_stepups()
        row = mirror.stepups.get(self.cursor)
        if waiting and row is not None and not row.open:
            later = [w for w in waiting if w.requested_at >= row.requested_at]
            self.cursor = (later or waiting)[0].id
            self.update_page()

    def _rows(self) -> tuple[list[StepUpRow], list[StepUpRow]]:
        mirror = self.desk.mirror
        done = [row for row in mirror.stepups.values() if not row.open]
        done.sort(key=lambda row: row.decided_at or row.expires_at, reverse=True)
        waiting = mirror.open_stepups()
        waiting.sort(key=lambda row: row.expires_at)
        return waiting, done[:_DECIDED]

    def _waiting(self, pen: Pen, row: StepUpRow, width: int) -> Row:
        left = row.remaining(self.clock.now())
        soon = left < SOON
        state = "verifying  " if row.status == "authorizing" else ""
        if eyes := self.desk.mirror.presence.looking(row.id):
            state = f"{pen.clip(listed(eyes, 1), 20)} looks  {state}"
        style = pen.palette.waiting if soon else pen.palette.text
        end: Row = (
            (f"{state}{row.fingerprint}  ", pen.palette.accent),
            (countdown(left) + (" SOON" if soon else ""), style),
        )
        mark = (f"{pen.glyphs.risk(row.risk)} ", pen.palette.risk(row.risk))
        return self._line(pen, row, mark, end, width)

    def _decided(self, pen: Pen, row: StepUpRow, words: str, width: int) -> Row:
        when = f"{clock_time(row.decided_at or row.expires_at)}  "
        end: Row = ((words, pen.palette.text),)
        return self._line(pen, row, (when, pen.palette.muted), end, width)

    def _line(
        self, pen: Pen, row: StepUpRow, first: Piece, end: Row, width: int
    ) -> Row:
        room = width - 4 - cell_width(first[0]) - cells(end)
        start = (first, *_what(pen, row, room, _name_cells(width)))
        line = pen.spread(start, end, width - 2)
        return pen.listed(line, here=row.id == self.cursor)

    def _count(self, pen: Pen, waiting: list[StepUpRow]) -> tuple[str, Style]:
        style = pen.palette.waiting if waiting else pen.palette.muted
        return (f"{len(waiting)} waiting", style)

    def _oldest(self, pen: Pen, waiting: list[StepUpRow]) -> Row:
        """Say how old the oldest is, and when the first of them ends."""
        if not waiting:
            return ()
        now = self.clock.now()
        age = countdown(max(row.age(now) for row in waiting))
        first = countdown(waiting[0].remaining(now))
        words = f"oldest {age} {pen.glyphs.separator} the first ends in {first}"
        return ((words, pen.palette.muted),)


def _name_cells(width: int) -> int:
    """Return the cells of the column of names, with the gap behind it."""
    return 18 if width < _NARROW else 26


def _what(pen: Pen, row: StepUpRow, width: int, names: int) -> Row:
    """Write the requester and the purpose; a missing limit comes first."""
    warning: Row = ()
    if row.unlimited and row.open:
        warning = (("NO LIMITS ", pen.palette.danger),)
        width -= cells(warning)
    name = pen.clip(row.agent_name, names - 2)
    blank = " " * (names - cell_width(name))
    room, what = max(width - names, 8), str(row.wish)
    short = f"{row.action} {row.gist}".strip()
    narrow = cell_width(what) > room and cell_width(short) + _WHERE_LEAST > room
    whole = row.open and row.gist and row.gist in pen.clip(what, room)
    if narrow and not whole and not row.is_change:
        what = short  # whole, rather than the beginning of a longer text
    what = pen.clip(what, room)
    return (*warning, (name + blank, pen.palette.strong), (what, pen.palette.text))


_NAME = 24


class SavedDialog(ListDialog[str | None]):
    """List saved filters by name; the result is the filter that was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "use", "use it"),
        Binding("x,delete", "delete", "delete"),
        Binding("u", "undo", "bring it back", id="bring-back"),
        *moves("move"),
    ]

    def __init__(self, desk: Desk) -> None:
        self.filters = desk.saved.all()
        self.keep_cursor([*self.filters])
        self._deleted: tuple[str, str] | None = None
        super().__init__(desk)

    def page(self, width: int, height: int) -> SheetPage:
        pen = self.pen
        body = [self._line(pen, name, width) for name in self.filters]
        keys = pen.key_rows(self.hints("use", "delete", "undo", "copy", "leave"), width)
        footer = [*self.notes(pen, width), EMPTY, *keys]
        self.show_line(self.order.index(self.cursor), height - len(footer))
        title = (("Saved filters", pen.palette.title),)
        return SheetPage(title, (), tuple(body), tuple(footer))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        return action != "undo" or self._deleted is not None

    def copies(self) -> tuple[str, str]:
        return "filter", self.filters[self.cursor]

    def action_use(self) -> None:
        self.dismiss(self.filters.get(self.cursor))

    def action_delete(self) -> None:
        """Delete the filter under the cursor; it can be brought back."""
        name, text = self.cursor, self.filters[self.cursor]
        if problem := self.desk.saved.delete(name):
            self.say(problem)
            return
        self._deleted = (name, text)
        self._reload()
        self.say(f"Deleted {name}.")

    def action_undo(self) -> None:
        if self._deleted is None:
            return
        name, text = self._deleted
        if problem := self.desk.saved.save(name, text):
            self.say(problem)
            return
        self._deleted = None
        self._reload()
        self.cursor = name
        self.say(f"{name} is back.")

    def _reload(self) -> None:
        self.filters = self.desk.saved.all()
        self.keep_cursor([*self.filters])
        self.refresh_bindings()

    def _line(self, pen: Pen, name: str, width: int) -> Row:
        p = pen.palette
        shown = pen.clip(name, _NAME)
        blank = " " * (_NAME - cell_width(shown) + 2)
        text = pen.clip(self.filters[name], max(width - _NAME - 4, 8))
        row: Row = ((shown + blank, p.strong), (text, p.text))
        return pen.listed(row, here=name == self.cursor)
