"""The masthead of the past: every row is marked as such by a word and a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.style import Style

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.past import LedgerPlace, PastMirror, when
from agentvault_tui.console.widgets.bars import Masthead, loosened
from agentvault_tui.console.widgets.pane import Painted
from agentvault_tui.presenters.lines import Piece, Row, cells
from agentvault_tui.presenters.moments import ago, clock_time

WORD: Final = "PAST"
_FRAME: Final = 2 + len(WORD) + 3
"""Cells that frame, word and margins take of each row."""
_BAR: Final = 60
_LEAST: Final = 8
"""Cells of the way from the first event to the last."""


class PastMasthead(Masthead):
    """The shown moment, its place, and the events since."""

    def __init__(self, desk: Desk, past: PastMirror) -> None:
        super().__init__(desk, id="masthead")
        self._past, self._live = past, past.live
        self.problem = ""
        """Why the moment asked for last is not shown."""
        self.aimed = ""
        """The moment that is being read."""

    @property
    def last(self) -> LedgerPlace:
        """The ledger's last event, as far as is known here."""
        events = self._live.events
        if not events:
            return self._past.place
        return LedgerPlace(self._live.last_seq, events[-1].time)

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        return self._rows(width)[:height]

    def wanted(self, width: int) -> int:
        return len(self._rows(width))

    def _rows(self, width: int) -> list[Painted]:
        room = max(width - _FRAME, 8)
        p = self.pen.palette
        panic = self._past.status.panic
        rows = [self._moment(room), self._way(room)]
        if panic.on:
            since = f" since {clock_time(panic.since)}" if panic.since else ""
            text = f"PANIC then: everything stopped{since}{panic.cause}"
            rows += self._note(text, room, p.danger)
        for text in (self.problem, *self._now(), *self._past.status.warnings):
            if text:
                rows += self._note(text, room, p.waiting)
        return [self._framed(row, width) for row in rows[:7]]

    def _moment(self, room: int) -> Row:
        pen, p = self.pen, self.pen.palette
        now, dot = self._live.clock.now(), pen.glyphs.separator
        moment = self._past.clock.now()
        right = self._link_state(self._live.link)
        key = self.desk.key("time", "t")
        back = f"{key}: back to now"
        for facts in (
            (when(moment, now), ago(moment, now), "read-only", back),
            (f"{moment:%H:%M:%S}Z", ago(moment, now), "read-only", f"{key}: now"),
            (f"{moment:%H:%M:%S}Z", "read-only", f"{key}: now"),
            (f"{moment:%H:%M:%S}Z", f"{key}: now"),
        ):
            left: list[Piece] = [(facts[0], p.strong)]
            for fact in facts[1:]:
                style = p.key if fact == facts[-1] else p.text
                left += [(f" {dot} ", p.muted), (fact, style)]
            if cells(tuple(left)) + cells(right) + 2 <= room:
                break
        return pen.spread(tuple(left), right, room)

    def _way(self, room: int) -> Row:
        """Show the moment's place between first and last event, and the events."""
        pen, p, g = self.pen, self.pen.palette, self.pen.glyphs
        first, here, last = self._past.first, self._past.place, self.last
        arrived = self._live.last_seq - self._past.left_at
        right: Row = ((f"+{arrived:,} since", p.text),)
        if self.aimed:
            right = ((f"reading {self.aimed}", p.waiting),)
        elif not arrived:
            right = (("nothing since", p.muted),)
        words = f" event {here.seq:,} of {last.seq:,}"
        width = min(room - len(words) - cells(right) - 2, _BAR)
        if width < _LEAST:
            words, width = f" {here.seq:,}/{last.seq:,}", _LEAST
        whole = max((last.time - first.time).total_seconds(), 1e-6)
        done = (self._past.clock.now() - first.time).total_seconds() / whole
        at = round(min(max(done, 0.0), 1.0) * (width - 1))
        left: Row = (
            (g.rule(at), p.muted),
            (g.current, p.waiting),
            (g.rule(width - 1 - at), p.muted),
            (words, p.text),
        )
        return pen.spread(left, right, room)

    def _now(self) -> list[str]:
        live, texts = self._live, []
        key = self.desk.key("time", "t")
        texts += [f"Now: {words}" for words in loosened(live)]
        if live.link.state in {LinkState.LOST, LinkState.STALE}:
            texts.append(f"Now: the link is {live.link.state}: {live.link.reason}")
        if live.status.panic.on and not self._past.status.panic.on:
            texts.append(f"Now: PANIC by {live.status.panic.by}. {key} goes there.")
        waiting = len(live.open_stepups())
        if waiting > len(self._past.open_stepups()):
            texts.append(
                f"Now: {waiting} waiting for a person. {key} goes back to them."
            )
        return texts

    def _note(self, text: str, room: int, style: Style) -> list[Row]:
        return [((row, style),) for row in self._wrapped(text, room)]

    def _framed(self, row: Row, width: int) -> Painted:
        p, edge = self.pen.palette, self.pen.glyphs.box.vertical
        turned = p.waiting + Style(reverse=True, bold=True)
        gap = max(width - _FRAME - cells(row), 0)
        return (
            (
                (f"{edge}{WORD}{edge}", turned),
                (" ", p.text),
                *row,
                (" " * (gap + 1), p.text),
                (edge, turned),
            ),
            None,
        )
