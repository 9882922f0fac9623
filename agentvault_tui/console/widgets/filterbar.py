"""The filter bar: one line, incremental, with what it hides told by the panes."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input, Static

from agentvault_tui.console.filters import KEYS


class FilterBar(Horizontal):
    """An input without a frame, beside a slash."""

    DEFAULT_CSS = """
    FilterBar {
        height: 1; display: none; background: $surface;
        & > Static { width: 3; color: $accent; text-style: bold; background: $surface; }
        & > #problem { width: auto; color: $waiting; }
        & > Input {
            width: 1fr; height: 1; border: none; padding: 0; background: $surface;
            &:focus { border: none; background-tint: transparent 0%; }
        }
    }
    """

    def compose(self) -> ComposeResult:
        """Lay out slash, input and complaint."""
        yield Static(" / ", markup=False)
        yield Input(
            placeholder=" ".join(f"{key}:" for key in KEYS) + ' or any text, "quoted"',
            id="filter",
            select_on_focus=False,
        )
        yield Static("", id="problem", markup=False)

    @property
    def input(self) -> Input:
        """The field."""
        return self.query_one(Input)

    def complain(self, problem: str) -> None:
        """Show what was not understood, in our own words."""
        self.query_one("#problem", Static).update(f" {problem} " if problem else "")
