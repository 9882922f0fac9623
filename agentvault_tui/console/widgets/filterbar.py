"""The filter bar: one line, incremental; the panes tell what it hides."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

from agentvault_tui.console.filters import KEYS


class FilterBar(Horizontal):
    """An input without a frame, beside a slash."""

    DEFAULT_CSS = """
    FilterBar {
        height: 1; background: $surface;
        & > Static { width: 3; color: $accent; text-style: bold; background: $surface; }
        & > #problem { width: auto; color: $waiting; }
        & > Input, & > Input:focus {
            width: 1fr; height: 1; border: none; padding: 0; background: $surface;
            background-tint: transparent 0%;
        }
    }
    """

    class Changed(Message):
        """Another filter is asked for."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Kept(Message):
        """The filter is as it should be."""

    def compose(self) -> ComposeResult:
        """Lay out slash, input and complaint."""
        yield Static(" / ", markup=False)
        field = Input(
            placeholder=" ".join(f"{key}:" for key in KEYS) + ' or any text, "quoted"',
            select_on_focus=False,
            compact=True,
        )
        field.cursor_blink = False
        yield field
        yield Static("", id="problem", markup=False)

    @property
    def field(self) -> Input:
        """Where it is typed."""
        return self.query_one(Input)

    @property
    def typing(self) -> bool:
        """Tell whether keys are text now."""
        return self.is_mounted and self.field.has_focus

    def clear(self) -> None:
        """Ask for everything again."""
        self.field.value = ""

    def complain(self, problem: str) -> None:
        """Show what was not understood, in our own words."""
        self.query_one("#problem", Static).update(f" {problem} " if problem else "")

    @on(Input.Changed)
    def pass_on(self, event: Input.Changed) -> None:
        """Tell the screen."""
        event.stop()
        self.post_message(self.Changed(event.value))

    @on(Input.Submitted)
    def finish(self, event: Input.Submitted) -> None:
        """Tell the screen."""
        event.stop()
        self.post_message(self.Kept())
