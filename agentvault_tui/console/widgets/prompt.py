"""One line to answer a question in, at the bottom of a screen that stays in sight."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

from agentvault_tui.console.dialogs.line_input import LineInput


class Prompt(Horizontal):
    """Asks, and says what was wrong with the answer until it is right."""

    DEFAULT_CSS = """
    Prompt {
        height: 1; background: $surface;
        & > Static { width: auto; color: $accent; background: $surface; }
        & > #refusal { color: $waiting; }
        & > LineInput { width: 1fr; }
    }
    """

    class Answered(Message):
        """Something was entered."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Closed(Message):
        """The operator does not want to answer."""

    def __init__(self, question: str, examples: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._question = question
        self._examples = examples

    def compose(self) -> ComposeResult:
        """Lay out question, answer and refusal."""
        yield Static(f" {self._question} ", markup=False)
        yield LineInput("answer", 20, empty=self._examples)
        yield Static("", id="refusal", markup=False)

    @property
    def field(self) -> LineInput:
        """Where it is typed."""
        return self.query_one(LineInput)

    @property
    def typing(self) -> bool:
        """Tell whether keys are text now."""
        return self.is_mounted and self.field.has_focus

    def refuse(self, why: str) -> None:
        """Say what is wrong with the answer, in our own words."""
        self.query_one("#refusal", Static).update(f" {why} " if why else "")

    @on(Input.Changed)
    def forget(self, event: Input.Changed) -> None:
        """Take the refusal away: another answer is under way."""
        event.stop()
        self.refuse("")

    @on(Input.Submitted)
    def answer(self, event: Input.Submitted) -> None:
        """Tell the screen."""
        event.stop()
        self.post_message(self.Answered(event.value))

    @on(LineInput.Left)
    def leave(self, event: LineInput.Left) -> None:
        """Tell the screen."""
        event.stop()
        self.post_message(self.Closed())
