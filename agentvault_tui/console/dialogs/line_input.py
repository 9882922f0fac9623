"""One line of the operator's own text on a sheet; its keys never decide anything."""

from __future__ import annotations

from typing import ClassVar, Final

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from agentvault_tui.console.term.keyed import Keyed
from agentvault_tui.text import clip

_SPELLED: Final = 12
"""Cells that a spelled out character takes at most."""


class LineInput(Keyed, Input):
    """An input without a frame; whatever gets into it is made displayable first."""

    DEFAULT_CSS = """
    LineInput, LineInput:focus {
        border: none;
        height: 1;
        padding: 0;
        background: $surface;
        background-tint: transparent 0%;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "out", "leave the text")]

    class Left(Message):
        """The operator pressed Esc in the input."""

        def __init__(self, control: LineInput) -> None:
            super().__init__()
            self.control_ = control

        @property
        def control(self) -> LineInput:
            """The input that was left."""
            return self.control_

    def __init__(
        self, name: str, width: int, *, longest: int = 200, empty: str = ""
    ) -> None:
        super().__init__(
            id=name,
            max_length=longest,
            compact=True,
            select_on_focus=False,
            placeholder=empty,
        )
        self.cursor_blink = False
        self.styles.width = width

    def validate_value(self, value: str) -> str:
        """Spell out what would not be seen, however it came in."""
        return clip(value, max(_SPELLED * len(value), 1))

    def insert_text_at_cursor(self, text: str) -> None:
        """Insert *text*, spelled out where it would not be seen."""
        super().insert_text_at_cursor(clip(text, self.max_length or 200))

    def replace(self, text: str, start: int, end: int) -> None:
        """Replace a part, spelled out where it would not be seen."""
        super().replace(clip(text, self.max_length or 200), start, end)

    def action_out(self) -> None:
        """Leave the text as it is."""
        self.post_message(self.Left(self))
