"""A widget that draws rows and repaints only those that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import ClassVar, Final, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.term.keyed import Keyed, ListCursor, moves, relabel
from agentvault_tui.presenters import theme
from agentvault_tui.presenters.lines import Pen, Row
from agentvault_tui.text import cell_width

_PLAIN: Final = Style()

WHEEL: Final = 3
"""Rows a notch of the wheel moves."""
Painted = tuple[Row, Style | None]
"""A row and its common style, such as the cursor's ground."""


class Pane(Keyed, Widget):
    """Draws rows at a fixed size, so that growing content never costs a layout.

    The compositor repaints a dirty row in full whether it changed or not, so the
    comparison is made here, row by row, before anything is marked dirty.
    """

    DEFAULT_CSS = """
    Pane { height: 1; color: $foreground; background: $background; }
    """

    def __init__(self, desk: Desk, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.desk = desk
        self.mirror = desk.mirror
        self._painted: list[Painted] = []
        self._strips: list[Strip] = []
        self._ground: tuple[object, ...] = ()
        self._base: Style | None = None
        self._pen: Pen | None = None
        self._inks: dict[tuple[Style, Style | None], Style] = {}
        """Styles as they look on this ground, under these filters."""

    @property
    def pen(self) -> Pen:
        """Return the pen for rows, under the present theme."""
        palette = theme.palette(self.app.theme)
        if self._pen is None or self._pen.palette is not palette:
            self._pen = Pen(palette, self.desk.glyphs)
        return self._pen

    def key(self, label: str) -> str:
        """Return the user's key for the one shipped under *label*."""
        if not self.desk.keymap:
            return label
        nodes = (self.screen.focused, self.screen, self.app)
        kinds = [type(node) for node in nodes if node is not None]
        return relabel(label, kinds, self.desk.keymap)

    def heading(self, title: str) -> Row:
        """Write the pane's title, with a mark and a colour where the keys go."""
        p = self.pen.palette
        if self.has_focus:
            return (self.pen.glyphs.cursor, p.accent), (title, p.title + p.accent)
        return (" ", p.text), (title, p.title)

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        raise NotImplementedError

    def paint(self) -> None:
        """Draw, and refresh only the rows that differ; all when ground or size do."""
        width, height = self.size
        if not self.is_attached or not self.display or width < 1 or height < 1:
            return
        if self._base is None:  # walks up the tree, and changes with the styles only
            self._base = self.rich_style
        filters = self.get_line_filters()
        ground = (width, height, self.app.theme, self._base, *filters)
        rows = self._drawn(width, height)
        if ground != self._ground:
            self._ground = ground
            self._inks.clear()
            self._painted = rows
            self._strips = [self._strip(row, width) for row in rows]
            self.refresh()
            return
        changed = [n for n, row in enumerate(rows) if row != self._painted[n]]
        for number in changed:
            self._painted[number] = rows[number]
            self._strips[number] = self._strip(rows[number], width)
        if changed:
            self.refresh(*_regions(changed, width))

    def notify_style_update(self) -> None:
        self._base = None
        super().notify_style_update()

    def _strip(self, painted: Painted, width: int) -> Strip:
        row, over = painted
        segments: list[Segment] = []
        used, run, before = 0, "", _PLAIN
        # One run of a style is one escape sequence on the wire. Styles are a palette's
        # own objects, and comparing them by value costs more than all the rest.
        for text, style in (*row, ("", None)):
            if style is before:
                run += text
                continue
            if run:
                used += cell_width(run)
                segments.append(Segment(run, self._ink(before, over)))
            run, before = text, style or _PLAIN
        if used < width:
            segments.append(Segment(" " * (width - used), self._ink(_PLAIN, over)))
        strip = Strip(segments, max(used, width))
        return strip.crop(0, width) if used > width else strip

    def _ink(self, style: Style, over: Style | None) -> Style:
        """Return a style on this pane's ground, as Textual's filters leave it."""
        ink = self._inks.get((style, over))
        if ink is None:
            base = self._base or self.rich_style
            ink = base + over if over else base
            if over and over.reverse:
                # Colours of single words, reversed, would be patches of every colour.
                ink += Style(bold=style.bold)
            else:
                ink += style
            strip = Strip([Segment(" ", ink)], 1)
            for each in self.get_line_filters():
                strip = strip.apply_filter(each, self.background_colors[1])
            ink = self._inks[style, over] = next(iter(strip)).style or ink
        return ink

    def _drawn(self, width: int, height: int) -> list[Painted]:
        rows = list(self.draw(width, height))[:height]
        return rows + [((), None)] * (height - len(rows))

    def on_resize(self) -> None:
        self.paint()

    def wheel(self, rows: int) -> None:
        """Move by the mouse's wheel, where there is something to move."""

    def on_mouse_scroll_down(self) -> None:
        self.wheel(WHEEL)

    def on_mouse_scroll_up(self) -> None:
        self.wheel(-WHEEL)

    def on_focus(self) -> None:
        self.call_later(self.paint)

    def on_blur(self) -> None:
        self.call_later(self.paint)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return drawn lines; there is no border to add, so Textual adds nothing."""
        width, height = self._ground[:2] if self._ground else (0, 0)
        if crop.right != width or crop.bottom != height:
            # The compositor asks before the resize is told: no blank frame.
            self.paint()
        if crop.x == crop.y == 0 and (crop.right, crop.bottom) == self._ground[:2]:
            return self._strips
        blank = Strip.blank(crop.right, self.rich_style)
        lines = [*self._strips, *[blank] * (crop.bottom - len(self._strips))]
        return [line.crop(crop.x, crop.right) for line in lines[crop.y : crop.bottom]]

    def render_line(self, y: int) -> Strip:
        return self.render_lines(Region(0, y, self.size.width, 1))[0]


RowT = TypeVar("RowT")
_LEAST_HEADED: Final = 8
"""Rows of a list that also has names for its columns, at least."""


class ListPane(ListCursor, Pane, Generic[RowT], can_focus=True):
    """A title over rows with a cursor, which keys and the wheel move."""

    BINDINGS: ClassVar[list[BindingType]] = moves("move")
    NONE: ClassVar[str] = ""
    """The text in place of rows."""
    _top = 0

    class Moved(Message):
        """The cursor is on another row."""

    def __init__(self, desk: Desk, *, id: str) -> None:  # noqa: A002
        super().__init__(desk, id=id)
        self.rows: dict[str, RowT] = {}
        """By their ids, in their order."""
        self.status_text = ""
        """Why the rows are not the latest, or the work under way."""

    @property
    def under_cursor(self) -> RowT | None:
        """The row under the cursor: the target of keys."""
        return self.rows.get(self.cursor)

    def title(self) -> Row:
        raise NotImplementedError

    def row(self, row: RowT, width: int) -> Row:
        raise NotImplementedError

    def heads(self, width: int) -> Row:  # noqa: ARG002 - for subclasses
        """Name the columns; nothing if rows read without it."""
        return ()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw the title, the names of the columns, and the rows around the cursor."""
        self.keep_cursor([*self.rows])
        drawn: list[Row] = [self.title()]
        if self.rows:
            if height > _LEAST_HEADED and (heads := self.heads(width)):
                drawn.append((("  ", self.pen.palette.muted), *heads))
            for key in self.order[self.in_view(max(height - len(drawn), 1))]:
                row, here = self.row(self.rows[key], width), key == self.cursor
                drawn.append(self.pen.listed(row, here=here))
        elif self.NONE:
            drawn += [(), ((f"  {self.NONE}", self.pen.palette.muted),)]
        return [(row, None) for row in drawn]

    def in_view(self, rows: int) -> slice:
        """Return which of `order` are shown in *rows* rows: the cursor's is."""
        at = self.order.index(self.cursor)
        self._top = min(max(self._top, at - rows + 1), at)
        return slice(self._top, self._top + rows)

    def wheel(self, rows: int) -> None:
        self.action_move(rows)

    def action_move(self, rows: int) -> None:
        if self.move_cursor(rows):
            self.paint()
            self.post_message(self.Moved())


def _regions(rows: list[int], width: int) -> list[Region]:
    """Return the area of *rows*, in order, in the fewest rectangles."""
    runs = groupby(enumerate(rows), lambda pair: pair[1] - pair[0])
    blocks = [[row for _, row in run] for _, run in runs]
    return [Region(0, block[0], width, len(block)) for block in blocks]


class ScrollPane(Pane, can_focus=True):
    """A title over rows that scroll; subclasses bind keys to `turn`."""

    _top = 0
    """The first row that is drawn."""

    def scrolled(
        self, rows: Sequence[Row], height: int, title: Callable[[int], Row]
    ) -> list[Painted]:
        """Return the rows in sight under *title*, which is given how many follow."""
        room = height - 1
        self._top = max(min(self._top, len(rows) - room), 0)
        blank = (" ", self.pen.palette.text)
        seen = rows[self._top : self._top + room]
        below = len(rows) - self._top - room
        return [(title(below), None), *(((blank, *row), None) for row in seen)]

    def below(self, rows: int, otherwise: str = "") -> Row:
        """Say how many rows follow, or something else when none do."""
        more = f"{rows} more {self.pen.glyphs.down}" if rows > 0 else otherwise
        return ((f"{more} " if more else "", self.pen.palette.muted),)

    def action_turn(self, rows: int) -> None:
        self._top = max(self._top + rows, 0)
        self.paint()

    def wheel(self, rows: int) -> None:
        self.action_turn(rows)


class Rule(Pane):
    """Draws itself once."""

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        line = self.pen.glyphs.box.vertical * width
        return [(((line, self.pen.palette.line),), None)] * height
