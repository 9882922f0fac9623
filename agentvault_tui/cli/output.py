"""Prints aligned columns for people, and JSON for programs; asks for confirmation.

People's output goes through `text.visible`; JSON is pure ASCII, so neither carries an
escape sequence of an agent's making to a terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
import termios
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from agentvault_tui.clock import SystemClock, iso
from agentvault_tui.errors import UsageError
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.text import TWINS, Shown, cell_width, clip, visible

if TYPE_CHECKING:
    from agentvault_tui.presenters.lines import Pen, Row

_STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "wait": {"fg": "yellow"},
    "strong": {"bold": True},
    "quiet": {"dim": True},
}
_WORDS: Final = {
    **dict.fromkeys(
        ("active", "allowed", "applied", "approved", "done", "redeemed", "ok"), "good"
    ),
    **dict.fromkeys(
        (
            *("revoked", "stopped", "denied", "failed", "high", "fault"),
            *("cancelled", "refused"),
        ),
        "bad",
    ),
    **dict.fromkeys(
        (
            "escalated",
            "waiting",
            "verifying",
            "pending",
            "medium",
            "unknown",
            "warning",
            "expired",
        ),
        "wait",
    ),
}
_GAP: Final = "  "
_LEAST: Final = 8
"""A column is never truncated below this many cells."""
_WHOLE: Final = frozenset(
    (
        *("ID", "TOKEN", "STEP-UP", "CALL", "NAME", "AGENT", "FINGERPRINT"),
        *("EXPIRES", "ENDS", "SEEN", "LAST USED", "SINCE", "ADDED", "CREATED"),
        *("CHANGED", "ALERT"),
    )
)
"""Columns that are never truncated: values to type or copy, and times."""


class Cell(NamedTuple):
    """A piece of text that is safe to show, and how it looks."""

    text: Shown
    style: str = ""


@dataclass
class Output:
    """Where a command's answers go."""

    json_mode: bool = False
    colour: bool = False
    terminal: bool = False
    """Standard output is a terminal."""
    ascii_only: bool = False
    width: int | None = None
    """Cells in a line of the terminal; nothing is cut when this is unknown."""

    @classmethod
    def detect(cls, *, json_mode: bool = False) -> Output:
        """Detect terminal, colour (https://no-color.org), width and alphabet."""
        terminal = sys.stdout.isatty()
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(
            json_mode=json_mode,
            colour=terminal and not plain,
            terminal=terminal,
            ascii_only=ascii_terminal(),
            width=shutil.get_terminal_size().columns if terminal else None,
        )

    def shown(self, raw: object, limit: int = 200) -> Shown:
        """Make *raw* displayable; nothing becomes ``-``."""
        if raw is None or raw == "":
            return Shown("-")
        return visible(raw, limit, ascii_only=self.ascii_only)

    def own_words(self, raw: object) -> Cell:
        """Mask lures in an agent's own words."""
        # What it looks for takes time to load, and few commands print such words.
        from agentvault_tui.lures import mask_lures

        masked = mask_lures(visible(raw, 120, ascii_only=self.ascii_only))
        text = masked.text.translate(TWINS) if self.ascii_only else masked.text
        return Cell(Shown(f"{text} ({masked.warning})" if masked.warning else text))

    def cell(self, raw: object, style: str = "", limit: int = 200) -> Cell:
        """Make *raw* a displayable cell."""
        return Cell(self.shown(raw, limit), style)

    def word(self, raw: object) -> Cell:
        """Make a coloured cell of a status word."""
        return Cell(self.shown(raw, 20), _WORDS.get(str(raw), ""))

    def line(self, *cells: Cell | str) -> None:
        """Print one line; a plain `str` must be our own words."""
        texts = (Cell(Shown(cell)) if isinstance(cell, str) else cell for cell in cells)
        self._write("".join(self._paint(cell) for cell in texts))

    @property
    def pen(self) -> Pen:
        """The pen for rows of the console here."""
        from agentvault_tui.presenters import glyphs
        from agentvault_tui.presenters.lines import Pen
        from agentvault_tui.presenters.theme import palette

        alphabet = glyphs.ASCII if self.ascii_only else glyphs.UNICODE
        return Pen(palette("ansi-dark" if self.colour else "mono"), alphabet)

    def rows(self, rows: Iterable[Row]) -> None:
        """Print rows that `pen` wrote."""
        for row in rows:
            styled = (style.render(text) for text, style in row)
            plain = (text for text, _ in row)
            self._write("".join(styled if self.colour else plain).rstrip())

    def raw(self, row: str) -> None:
        """Print a row that may hold escape sequences of our own."""
        self._write(row)

    def note(self, text: str) -> None:
        """Print one line on stderr."""
        click.echo(one_line(text), err=True)

    def json(self, value: object) -> None:
        """Print *value* as one line of JSON."""
        self._write(to_json(value))

    def print_json(self, value: object) -> bool:
        """Print *value* if ``--json`` is given; return whether it is."""
        if self.json_mode:
            self.json(value)
        return self.json_mode

    def fields(self, pairs: Iterable[tuple[str, Cell | object] | None]) -> None:
        """Print a label and a value a line, the values under each other.

        None represents a line that is left out.
        """
        rows = [
            (label, value if isinstance(value, Cell) else self.cell(value, limit=2000))
            for label, value in filter(None, pairs)
        ]
        wide = max((len(label) for label, _ in rows), default=0)
        for label, cell in rows:
            self.line(Cell(Shown(label.ljust(wide)), "quiet"), _GAP, cell)

    def table(
        self,
        headers: Sequence[str],
        rows: Iterable[Sequence[object]],
        keep: Sequence[str] = (),
    ) -> None:
        """Print aligned columns, fitted to the terminal's width if there is one.

        Values other than `Cell` become one. Columns of `_WHOLE` and *keep* are never
        truncated. If the columns do not fit on one line, the last ones follow on
        further, indented lines.
        """
        lines = [[Cell(Shown(header), "quiet") for header in headers]]
        lines += [
            [one if isinstance(one, Cell) else self.cell(one) for one in row]
            for row in rows
        ]
        widths = [
            max(cell_width(cell.text) for cell in column)
            for column in zip(*lines, strict=True)
        ]
        whole = [header in _WHOLE or header in keep for header in headers]
        parts = self._fit(widths, whole)
        for row in lines:
            for number, part in enumerate(parts):
                self._columns([(widths[at], row[at]) for at in part], bool(number))

    def row(self, *columns: tuple[int, Cell]) -> None:
        """Print columns of given widths; a width of 0 takes the rest.

        On a terminal that is too narrow for all, the last ones follow below,
        indented and broken at spaces.
        """
        first: list[tuple[int, Cell]] = []
        used, below = 0, list(columns)
        while below:
            width, cell = below[0]
            used += (width or cell_width(cell.text)) + (len(_GAP) if first else 0)
            if self.width is not None and used > self.width and first:
                break
            first.append(below.pop(0))
        self._columns(first)
        if texts := [cell.text for _, cell in below if cell.text]:
            self._columns([(0, Cell(Shown(_GAP.join(texts))))], indented=True)

    def _columns(
        self, columns: Sequence[tuple[int, Cell]], indented: bool = False
    ) -> None:
        """Print one line; a single column that is too wide is broken at spaces."""
        indent = _GAP if indented else ""
        room = 2000 if self.width is None else max(self.width - len(indent), _LEAST)
        if len(columns) == 1 and cell_width(columns[0][1].text) > room:
            from agentvault_tui.presenters.lines import wrap

            cell = columns[0][1]
            for text in wrap(cell.text, room):
                self._write(indent + self._paint(Cell(Shown(text.strip()), cell.style)))
            return
        pieces = []
        for width, cell in columns:
            text = clip(cell.text, width or 2000, ascii_only=self.ascii_only)
            pad = " " * max(width - cell_width(text), 0)
            pieces.append(self._paint(Cell(text, cell.style)) + pad)
        self._write((indent + _GAP.join(pieces)).rstrip())

    def _fit(self, widths: list[int], whole: Sequence[bool]) -> list[range]:
        """Shrink the widest columns, and return those of each line."""
        if self.width is None:
            return [range(len(widths))]
        parts, start, used = [], 0, 0
        for at, (width, fixed) in enumerate(zip(widths, whole, strict=True)):
            least = width if fixed else min(width, _LEAST)
            if at > start and used + least > self.width:
                parts.append(range(start, at))
                start, used = at, len(_GAP)  # further lines are indented
            used += least + len(_GAP)
        parts.append(range(start, len(widths)))
        for number, part in enumerate(parts):
            room = self.width - len(_GAP) * (len(part) - 1 + bool(number))
            elastic = [at for at in part if not whole[at]]
            while elastic and sum(widths[at] for at in part) > room:
                widest = max(elastic, key=widths.__getitem__)
                if widths[widest] <= _LEAST:
                    break
                widths[widest] -= 1
        return parts

    def _paint(self, cell: Cell) -> str:
        style = _STYLES.get(cell.style)
        return click.style(cell.text, **style) if style and self.colour else cell.text

    def _write(self, line: str) -> None:
        # Not click.echo: it would decide about colour a second time, differently.
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # What is written on the way out, and Python's flush at exit, go nowhere.
            discard_output()
            raise


def discard_output() -> None:
    """Redirect standard output to nowhere: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def short_time(text: str | None, now: datetime | None = None) -> str:
    """Write a moment of JSON in UTC, with its date unless that is today."""
    if not text:
        return ""
    if text[:10] == iso(now or SystemClock().now())[:10]:
        return f"{text[11:19]}Z"
    return f"{text[:10]} {text[11:16]}Z"


def to_json(value: object) -> str:
    """Write *value* as one line of pure, printable ASCII."""
    return encode(value).decode().replace("\x7f", "\\u007f")


def one_line(text: str) -> Shown:
    """Make a message one displayable line."""
    return clip(text, 2000, ascii_only=ascii_terminal())


def ascii_terminal() -> bool:
    """Check whether the person's locale, as they set it, is not UTF-8.

    Python itself puts ``LC_CTYPE=C.UTF-8`` in place of the C locale (PEP 538), so that
    word from the environment is not the person's.
    """
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return True
    environ = os.environ
    if environ.get("LC_ALL"):
        locale = environ["LC_ALL"]
    elif environ.get("LC_CTYPE") not in {None, "", "C.UTF-8", "C.utf8", "UTF-8"}:
        locale = environ["LC_CTYPE"]
    else:
        locale = environ.get("LANG", "")
    if not locale:
        return False
    return "utf" not in locale.lower()


_ARM_SECONDS: Final = 0.6
"""As in the console: a faster answer cannot follow a read question."""


def confirm(question: str, clock: Callable[[], float] = time.monotonic) -> bool:
    """Ask yes or no, in our own words, about the shown content; no is the default.

    Keys typed before the question was there answer nothing, and neither does an answer
    that came faster than the question can be read.
    """
    while True:
        if sys.stdin.isatty():
            termios.tcflush(sys.stdin, termios.TCIFLUSH)
        started = clock()
        agreed = click.confirm(question, default=False, err=True)
        if not agreed or clock() - started >= _ARM_SECONDS:
            return agreed
        click.echo("That came before the question could be read.", err=True)


def require_screen() -> None:
    """Make sure the console can be drawn and read keys.

    Textual paints on stderr, so that one counts as well.
    """
    if os.environ.get("TERM", "") in {"", "dumb"}:
        raise UsageError(
            "this terminal cannot draw the console (TERM is dumb or not set)",
            "use `agentvault console --plain`, or `agentvault audit tail --follow`",
        )
    for name, stream in (
        ("standard input", sys.stdin),
        ("standard output", sys.stdout),
        ("standard error", sys.stderr),
    ):
        if stream is None or not stream.isatty():
            raise UsageError(
                f"the console needs a terminal, and {name} is none",
                "use `agentvault console --plain`, or `agentvault audit tail --follow`",
            )
