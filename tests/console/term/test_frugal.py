"""Painting only what differs: the terminal shows the same as if all were painted."""

from __future__ import annotations

import pyte
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from agentvault_tui.console.term.frugal import Painter, _parts, _turn

WIDTH, ROWS, CUT = 30, 3, 12
CONSOLE = Console(color_system="truecolor", force_terminal=True)
STYLES = (
    Style(),
    Style(color="#d5dae0", bgcolor="#11151a"),
    Style(color="#909ca9", bgcolor="#11151a"),
    Style(color="#909ca9", bgcolor="#222d3a", bold=True),
    Style(bold=True, italic=True),
    Style(reverse=True),
    Style(color="red", dim=True),
    Style(color="color(200)", bgcolor="bright_blue", underline=True),
)
_WORDS = st.text(st.sampled_from("aab 日·✓▰"), min_size=1, max_size=9)
_ROW = st.lists(st.tuples(_WORDS, st.sampled_from(STYLES)), max_size=5)
_FRAMES = st.lists(st.lists(_ROW, min_size=ROWS, max_size=ROWS), min_size=1, max_size=6)


def _strip(row: list[tuple[str, Style]], width: int) -> Strip:
    return Strip([Segment(text, style) for text, style in row]).adjust_cell_length(
        width, STYLES[1]
    )


def _chops(rows: list[list[tuple[str, Style]]]) -> ChopsUpdate:
    chops = []
    for row in rows:
        whole = _strip(row, WIDTH)
        chops.append({0: whole.crop(0, CUT), CUT: whole.crop(CUT, WIDTH)})
    spans = [(y, 0, WIDTH) for y in range(ROWS)]
    return ChopsUpdate(chops, spans, [[CUT, WIDTH]] * ROWS)


class Looked:
    """A terminal that is painted on and looked at."""

    def __init__(self) -> None:
        self.screen = pyte.Screen(WIDTH, ROWS)
        self._stream = pyte.Stream(self.screen)
        self._stream.feed("\x1b[?7l")

    def paint(self, text: str) -> None:
        self._stream.feed(text)

    @property
    def cells(self) -> list[list[pyte.screens.Char]]:
        return [[self.screen.buffer[y][x] for x in range(WIDTH)] for y in range(ROWS)]


@given(_FRAMES)
def test_the_written_difference_shows_the_whole_frame(
    frames: list[list[list[tuple[str, Style]]]],
) -> None:
    """After every frame each cell has the text and the look of the whole frame."""
    painter, spare, lavish = Painter(), Looked(), Looked()
    for rows in frames:
        frame = _chops(rows)
        spare.paint(painter.update(frame).render_segments(CONSOLE))
        lavish.paint(frame.render_segments(CONSOLE).replace("\n", ""))
        assert spare.cells == lavish.cells


def test_equal_frames_write_no_byte() -> None:
    """The same frame again writes not one byte, also as a frame of the whole screen."""
    painter = Painter()
    frame = _chops([[("abc", STYLES[1])]] * ROWS)
    assert painter.update(frame).render_segments(CONSOLE)
    assert painter.update(frame).render_segments(CONSOLE) == ""
    lines = [list(chop.values()) for chop in frame.chops]
    whole = LayoutUpdate(lines, Region(0, 0, WIDTH, ROWS))
    painter.update(whole)
    painter.update(whole).render_segments(CONSOLE)
    assert painter.update(whole).render_segments(CONSOLE) == ""


def test_a_counting_second_is_a_few_bytes() -> None:
    """Of a row in which one digit counts, that digit goes over the wire."""
    painter = Painter()
    rows = [[("at ", STYLES[1]), ("14:02:11", STYLES[2])], [], []]
    painter.update(_chops(rows)).render_segments(CONSOLE)
    rows[0] = [("at ", STYLES[1]), ("14:02:12", STYLES[2])]
    painted = painter.update(_chops(rows)).render_segments(CONSOLE)
    assert painted.startswith("\x1b[1;11H\x1b[")
    assert painted.endswith("m2\x1b[0m")


def test_a_forgotten_frame_is_painted_in_full() -> None:
    """After a resize or a redraw nothing is taken for painted."""
    painter = Painter()
    frame = _chops([[("abc", STYLES[1])]] * ROWS)
    first = painter.update(frame).render_segments(CONSOLE)
    painter.forget()
    assert painter.update(frame).render_segments(CONSOLE) == first


@given(st.sampled_from(STYLES), st.sampled_from(STYLES))
def test_a_style_change_is_never_longer_than_the_full_style(
    old: Style, new: Style
) -> None:
    """From one style to another in at most what a reset and the new one take."""
    codes = [Strip.render_ansi(style, CONSOLE._color_system) for style in (old, new)]
    turn = _turn(*codes)
    assert len(turn) <= len(f"\x1b[0;{codes[1]}m")
    assert (turn == "") == (_parts(codes[0]) == _parts(codes[1]))
