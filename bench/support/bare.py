"""Bare Textual apps to hold the console against, in the same run."""

from __future__ import annotations

import sys
from typing import Final

STARTED: Final = "bare textual"
"""What the app that only starts shows."""
_START: Final = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("bare textual")
Bare().run(mouse=False)
"""
_PAINT: Final = """
from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.strip import Strip
from textual.widget import Widget
INKS = [Style.parse(ink) for ink in ("#909ca9 on #11151a", "#d5dae0 on #11151a")]
class Rows(Widget):
    turn = 0
    def render_line(self, y):
        words = f"{self.turn + y:08} " * 5
        return Strip([Segment(words, ink) for ink in INKS], 90)
    def on_mount(self):
        self.set_interval(%s, self.turned)
    def turned(self):
        self.turn += 1
        self.refresh()
class Bare(App):
    def compose(self):
        yield Rows()
Bare().run(mouse=False)
"""


def starting() -> list[str]:
    """Return the command line of an app that starts, and does nothing."""
    return [sys.executable, "-c", _START]


def painting(pulse: float) -> list[str]:
    """Return that of one that paints forty rows of two colours every *pulse* seconds.

    It knows nothing and reads nothing: what Textual itself takes to show that much.
    """
    return [sys.executable, "-c", _PAINT % pulse]
