"""The one button a confirmation has: Cancel, where the focus starts."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from agentvault_tui.console.draw import theme
from agentvault_tui.console.term.keyed import Keyed


class Choice(Keyed, Widget, can_focus=True):
    """A word in brackets; in reverse while it has the focus."""

    DEFAULT_CSS = """
    Choice { height: 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "take", "cancel")]

    class Taken(Message):
        """It was chosen."""

    def __init__(self, name: str, word: str) -> None:
        super().__init__(id=name)
        self.text = f"[ {word} ]"
        self.styles.width = len(self.text)

    def render_line(self, y: int) -> Strip:
        """Draw the word."""
        if y:
            return Strip.blank(self.size.width, self.rich_style)
        style = theme.palette(self.app.theme).text
        if self.has_focus:
            style += theme.FOCUS
        return Strip([Segment(self.text, self.rich_style + style)])

    def action_take(self) -> None:
        """Choose it."""
        self.post_message(self.Taken())

    def on_click(self) -> None:
        """Choose it by the mouse."""
        self.action_take()
