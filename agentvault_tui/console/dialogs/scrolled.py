"""A dialog that is read, not decided: rows that scroll."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.dialogs.base import Dialog


class Scrolled(Dialog[None]):
    """Moves its body by the usual keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll(1)", "down", show=False),
        Binding("up,k", "scroll(-1)", "up", show=False),
        Binding("pagedown,space,ctrl+d", "scroll(10)", "page down", show=False),
        Binding("pageup,ctrl+u", "scroll(-10)", "page up", show=False),
        Binding("home,g", "scroll(-1000000)", "first", show=False),
        Binding("end,G", "scroll(1000000)", "last", show=False),
        Binding("escape,enter", "leave", "close"),
    ]

    def wheel(self, rows: int) -> None:
        """Move the body by the wheel."""
        self.action_scroll(3 * rows)

    def action_scroll(self, rows: int) -> None:
        """Move the body."""
        self.sheet.scroll_body(rows)
