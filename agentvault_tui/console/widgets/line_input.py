"""Lines that are typed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

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
        """Spell out invisible characters, however they came in."""
        return clip(value, max(_SPELLED * len(value), 1))

    def insert_text_at_cursor(self, text: str) -> None:
        """Insert *text*, spelled out where it would not be seen."""
        super().insert_text_at_cursor(clip(text, self.max_length or 200))

    def replace(self, text: str, start: int, end: int) -> None:
        """Replace a part, spelled out where it would not be seen."""
        super().replace(clip(text, self.max_length or 200), start, end)

    def action_out(self) -> None:
        self.post_message(self.Left())


class Prompt(Horizontal):
    """Ask for one line, and show why an answer is not accepted."""

    DEFAULT_CSS = """
    Prompt {
        height: 1; background: $surface;
        & > Static { width: auto; color: $accent; background: $surface; }
        & > #refusal { color: $waiting; }
        & > LineInput { width: 1fr; }
    }
    """

    @dataclass
    class Answered(Message):
        """Something was entered."""

        text: str

    class Closed(Message):
        """The operator does not want to answer."""

    def __init__(self, question: str, examples: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._question = question
        self._examples = examples

    def compose(self) -> ComposeResult:
        yield Static(f" {self._question} ", markup=False)
        yield LineInput("answer", 20, empty=self._examples)
        yield Static("", id="refusal", markup=False)

    @property
    def field(self) -> LineInput:
        return self.query_one(LineInput)

    @property
    def typing(self) -> bool:
        return self.is_mounted and self.field.has_focus

    def refuse(self, why: str) -> None:
        """Word the fault of the answer, in our own words."""
        self.query_one("#refusal", Static).update(f" {why} " if why else "")

    @on(Input.Changed)
    def forget(self, event: Input.Changed) -> None:
        """Take the refusal away: another answer is under way."""
        event.stop()
        self.refuse("")

    @on(Input.Submitted)
    def answer(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Answered(event.value))

    @on(LineInput.Left)
    def leave(self, event: LineInput.Left) -> None:
        event.stop()
        self.post_message(self.Closed())
