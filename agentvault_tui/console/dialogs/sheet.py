"""The sheet a dialog is drawn on: a frame, rows, and places for inputs."""

from __future__ import annotations

from typing import Final

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from agentvault_tui.console.dialogs.page import Page
from agentvault_tui.console.draw.lines import Pen, Row, cells
from agentvault_tui.text import cell_width

FRAME: Final = 2
"""Cells between the sheet's edge and its rows: the line and a blank."""


class Sheet(Widget):
    """Draws a `Page` line by line; children lie on top at the page's places."""

    DEFAULT_CSS = """
    Sheet {
        background: $surface;
        color: $foreground;
        layers: sheet;
    }
    Sheet > * { position: absolute; }
    """

    def __init__(self, pen: Pen, *children: Widget) -> None:
        super().__init__(*children)
        self.pen = pen
        self.page = Page(())
        self.top = 0
        """The first row of the body that is drawn."""

    @property
    def room(self) -> int:
        """Return how many rows of the body are drawn at once."""
        return max(self.size.height - 2 - len(self.page.footer), 0)

    def show(self, page: Page, pen: Pen, width: int, height: int) -> None:
        """Draw *page* at that size; nothing happens if it is drawn already."""
        if page == self.page and pen == self.pen and (width, height) == self.size:
            return
        self.page, self.pen = page, pen
        self.styles.width, self.styles.height = width, height
        for child in self.children:
            place = page.places.get(child.id or "")
            child.display = place is not None
            if place is not None:
                child.styles.offset = (place[0] + FRAME, place[1] + 1)
        self.refresh()

    def scroll_body(self, rows: int) -> None:
        """Move the body by *rows*, within what there is."""
        last = max(len(self.page.body) - self.room, 0)
        top = min(max(self.top + rows, 0), last)
        if top != self.top:
            self.top = top
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one line of the frame or a row between its sides."""
        width, height = self.size
        base = self.rich_style
        row = self._line(y, width, height)
        segments = [Segment(text, base + style) for text, style in row]
        return Strip(segments).adjust_cell_length(width, base)

    def _line(self, y: int, width: int, height: int) -> Row:
        box = self.pen.glyphs.box
        line = self.pen.palette.danger if self.page.danger else self.pen.palette.line
        if y == 0:
            return self._head(width)
        if y == height - 1:
            return self._bottom(width)
        inner = width - 2 * FRAME
        row = self.pen.cut(self._row(y - 1, height - 2), inner)
        blank = " " * (inner - cells(row))
        return (
            (f"{box.vertical} ", line),
            *row,
            (blank, self.pen.palette.text),
            (f" {box.vertical}", line),
        )

    def _bottom(self, width: int) -> Row:
        pen, box = self.pen, self.pen.glyphs.box
        line = pen.palette.danger if self.page.danger else pen.palette.line
        if not self.page.foot:
            whole = box.bottom_left + pen.glyphs.rule(width - 2) + box.bottom_right
            return ((whole, line),)
        words = f" {pen.clip(self.page.foot, width - 8)} "
        rest = pen.glyphs.rule(max(width - 3 - cell_width(words), 0))
        return (
            (box.bottom_left + box.horizontal, line),
            (words, pen.palette.waiting),
            (rest + box.bottom_right, line),
        )

    def _row(self, y: int, height: int) -> Row:
        footer = self.page.footer
        if y >= height - len(footer):
            return footer[y - (height - len(footer))]
        number = self.top + y
        return self.page.body[number] if number < len(self.page.body) else ()

    def _head(self, width: int) -> Row:
        pen, page = self.pen, self.page
        box = pen.glyphs.box
        line = pen.palette.danger if page.danger else pen.palette.line
        remark = page.remark
        room = width - 6 - cells(remark)
        title = pen.cut(page.title, max(room, 8))
        gap = width - 4 - cells(title) - (cells(remark) + 2 if remark else 0)
        if gap < 2 and remark:
            remark, gap = (), width - 4 - cells(title)
        blank = (" ", pen.palette.text)
        middle = (box.horizontal * max(gap - (1 if remark else 0), 0), line)
        tail: Row = (blank, *remark, blank, (box.horizontal, line)) if remark else ()
        return (
            (box.top_left, line),
            blank,
            *title,
            blank,
            middle,
            *tail,
            (box.top_right, line),
        )
