"""The saved filters: put one on, delete one, take that back."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog, SheetPage
from agentvault_tui.console.draw.lines import EMPTY, Pen, Row
from agentvault_tui.console.term.keyed import moves
from agentvault_tui.text import cell_width

_NAME = 24
_PAGE = 10


class SavedDialog(Dialog[str | None]):
    """A list with a cursor; its result is the filter that was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "use", "use it"),
        Binding("x,delete", "delete", "delete"),
        Binding("u", "undo", "bring it back", id="bring-back"),
        *moves("move"),
    ]

    def __init__(self, desk: Desk) -> None:
        self.filters = desk.saved.all()
        self.cursor = next(iter(self.filters), "")
        """The name of the filter under the cursor."""
        self._deleted: tuple[str, str] | None = None
        super().__init__(desk)

    def page(self, width: int, height: int) -> SheetPage:
        pen = self.pen
        body = [self._line(pen, name, width) for name in self.filters]
        keys = pen.key_rows(self.hints("use", "delete", "undo", "copy", "leave"), width)
        footer = [*self.notes(pen, width), EMPTY, *keys]
        self._follow(height - len(footer))
        title = (("Saved filters", pen.palette.title),)
        return SheetPage(title, (), tuple(body), tuple(footer))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        return action != "undo" or self._deleted is not None

    def copies(self) -> tuple[str, str]:
        return "filter", self.filters[self.cursor]

    def wheel(self, rows: int) -> None:
        self.action_move(rows)

    def action_move(self, step: int) -> None:
        names = list(self.filters)
        at = names.index(self.cursor) + step
        self.cursor = names[min(max(at, 0), len(names) - 1)]
        self.update_page()

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
        before = list(self.filters)
        self.filters = self.desk.saved.all()
        if self.cursor not in self.filters:
            at = before.index(self.cursor)
            names = list(self.filters)
            self.cursor = names[min(at, len(names) - 1)]
        self.refresh_bindings()

    def _follow(self, room: int) -> None:
        line = list(self.filters).index(self.cursor)
        sheet = self.sheet
        sheet.top = min(max(sheet.top, line - room + 1), line)

    def _line(self, pen: Pen, name: str, width: int) -> Row:
        p = pen.palette
        shown = pen.clip(name, _NAME)
        blank = " " * (_NAME - cell_width(shown) + 2)
        text = pen.clip(self.filters[name], max(width - _NAME - 4, 8))
        row: Row = ((shown + blank, p.strong), (text, p.text))
        return pen.listed(row, here=name == self.cursor)
