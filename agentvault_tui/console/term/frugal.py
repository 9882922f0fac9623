"""Terminal output reduced to the cells that differ, in as few bytes as possible.

Textual repaints a row from edge to edge and spells every style out in full. Over SSH
that is most of a console's cost, so each frame is compared with the rows as the
terminal last got them, and a style with the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

from agentvault_tui.text import narrow

_NEAR: Final = 6
"""Equal cells between two changes are sent again if fewer: a jump takes that many."""
_OFF: Final = "\x1b[0m"
_UNDO: Final = {"1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "7": "27"}

Piece = tuple[str, str]
"""A text and its SGR parameters."""
Placed = tuple[int, int, Strip]
"""Column, row, and content."""


class Painter:
    """Track the terminal's content, row by row, and write the difference."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, tuple[int, list[Piece]]]] = {}
        self._size = (0, 0)

    def update(self, frame: CompositorUpdate) -> CompositorUpdate:
        """Wrap *frame* so that only differences are written."""
        return _Frame(self, frame)

    def forget(self) -> None:
        """Forget the painted rows: the terminal may show other ones."""
        self._rows.clear()

    def render(self, frame: CompositorUpdate, console: Console) -> str:
        """Return the escape codes that turn the painted screen into *frame*."""
        if isinstance(frame, ChopsUpdate):
            strips = _chops(frame)
        elif isinstance(frame, LayoutUpdate):
            strips = _whole(frame)
            if self._size != frame.region.size:
                self.forget()
                self._size = frame.region.size
        else:
            self.forget()
            return frame.render_segments(console)
        system: ColorSystem | None = console._color_system  # noqa: SLF001 - the enum itself is nowhere public
        out: list[str] = []
        style = ""
        for x, y, strip in strips:
            for column, run in self._changes(x, y, strip, system):
                out.append(f"\x1b[{y + 1};{column + 1}H")
                for text, wanted in run:
                    out += (_turn(style, wanted), text)
                    style = wanted
        if style:
            out.append(_OFF)
        return "".join(out)

    def _changes(
        self, x: int, y: int, strip: Strip, system: ColorSystem | None
    ) -> Sequence[tuple[int, list[Piece]]]:
        """Return the runs that differ from the last frame, and store them."""
        pieces = _pieces(strip, system or ColorSystem.TRUECOLOR)
        width, row = strip.cell_length, self._rows.setdefault(y, {})
        cell = row.get(x)
        if cell is None or cell[0] != width:
            for start, (wide, _) in list(row.items()):
                if start < x + width and x < start + wide:
                    del row[start]
            runs = [(0, pieces)]
        else:
            runs = differences(cell[1], pieces)
        row[x] = (width, pieces)
        return [(x + column, run) for column, run in runs]


class _Frame(CompositorUpdate):
    """A frame that is written by the painter."""

    def __init__(self, painter: Painter, frame: CompositorUpdate) -> None:
        self._painter = painter
        self._frame = frame

    def render_segments(self, console: Console) -> str:
        return self._painter.render(self._frame, console)


def _whole(frame: LayoutUpdate) -> Iterator[Placed]:
    for y, line in enumerate(frame.strips, frame.region.y):
        x = frame.region.x
        for strip in line:
            yield x, y, strip
            x += strip.cell_length


def _chops(frame: ChopsUpdate) -> Iterator[Placed]:
    """Yield whole chops, also where part of one changed: equal cells cost nothing."""
    for y, left, right in frame.spans:
        ends = frame.chop_ends[y]
        for end, (x, strip) in zip(ends, frame.chops[y].items(), strict=False):
            if strip is not None and x < right and end > left:
                yield x, y, strip


def _pieces(strip: Strip, system: ColorSystem) -> list[Piece]:
    """Spell styles out: two that look the same are then the same.

    A style's link is left out: nothing here writes OSC 8.
    """
    pieces: list[Piece] = []
    for text, style, control in strip:
        if text and not control:
            pieces.append((text, _codes(style, system) if style else ""))
    return pieces


_codes = lru_cache(maxsize=1024)(Strip.render_ansi)


def differences(old: list[Piece], new: list[Piece]) -> list[tuple[int, list[Piece]]]:
    """Return the differences of *new* from *old*: columns, and the new content.

    Texts are compared by characters, which holds where each takes one cell; a row with
    any other is written whole.
    """
    if old == new:
        return []
    if not all(narrow(text) for text, _ in (*old, *new)):
        return [(0, new)]
    runs: list[tuple[int, list[Piece]]] = []
    equal: list[Piece] = []
    cells, column = _NEAR, 0
    for text, style, changed in _atoms(old, new):
        if not changed:
            equal.append((text, style))
            cells += len(text)
        else:
            if cells >= _NEAR:
                runs.append((column, []))
            else:
                runs[-1][1].extend(equal)
            runs[-1][1].append((text, style))
            equal, cells = [], 0
        column += len(text)
    return runs


def _atoms(old: list[Piece], new: list[Piece]) -> Iterator[tuple[str, str, bool]]:
    """Split *new* into parts equal to *old* in their place, and others."""
    if [len(text) for text, _ in old] != [len(text) for text, _ in new]:
        # Other columns: what is equal at both ends, as whole pieces.
        first = _alike(old, new)
        last = len(new) - min(_alike(old[::-1], new[::-1]), len(new) - first)
        for number, (text, style) in enumerate(new):
            yield text, style, first <= number < last
        return
    for (before, worn), (text, style) in zip(old, new, strict=True):
        if worn != style:
            yield text, style, True
        elif before == text:
            yield text, style, False
        else:
            first = _alike(before, text)
            last = len(text) - _alike(before[:first:-1], text[:first:-1])
            if first:
                yield text[:first], style, False
            yield text[first:last], style, True
            if last < len(text):
                yield text[last:], style, False


def _alike(old: Sequence[object], new: Sequence[object]) -> int:
    count = 0
    for before, now in zip(old, new, strict=False):
        if before != now:
            break
        count += 1
    return count


@lru_cache(maxsize=4096)
def _turn(old: str, new: str) -> str:
    if old == new:
        return ""
    (had, *before), (has, *after) = _parts(old), _parts(new)
    undone = {_UNDO.get(code, "0") for code in had - has}
    codes = sorted(undone)
    undoable = {code for code in had & has if _UNDO.get(code) not in undone}
    codes += sorted(has - undoable)
    for was, now, default in zip(before, after, ("39", "49"), strict=True):
        if was != now:
            codes.append(now or default)
    anew = f"\x1b[0;{new}m" if new else _OFF
    changed = f"\x1b[{';'.join(codes)}m" if codes else ""
    return anew if "0" in codes or len(changed) > len(anew) else changed


def _parts(codes: str) -> tuple[frozenset[str], str, str]:
    attributes: set[str] = set()
    front = back = ""
    rest = iter(codes.split(";") if codes else ())
    for code in rest:
        if code in {"38", "48"}:
            kind = next(rest)
            colour = [next(rest) for _ in range(3 if kind == "2" else 1)]
            whole = ";".join((code, kind, *colour))
            front, back = (whole, back) if code == "38" else (front, whole)
        elif 30 <= int(code) < 40 or 90 <= int(code) < 98:
            front = code
        elif 40 <= int(code) < 50 or 100 <= int(code) < 108:
            back = code
        else:
            attributes.add(code)
    return frozenset(attributes), front, back
