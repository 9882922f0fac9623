"""The audit pane: what was asked and how it was answered, as it happens."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from typing import ClassVar, Final

from textual.binding import Binding, BindingType
from textual.message import Message

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw import words
from agentvault_tui.console.draw.lines import Piece, Row, cells
from agentvault_tui.console.state.feed import EventWindow, Fold
from agentvault_tui.console.state.moments import hms
from agentvault_tui.console.state.records import EventRow
from agentvault_tui.console.widgets.pane import Painted, Pane
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.text import cell_width

_PAGES_AT_ONCE: Final = 20
_OUTCOME: Final = 10
_TIME: Final = 9
_ROOM_FOR_WHERE: Final = 30
"""Cells of agent and action from which on the resource has room as well."""
_ROOMY: Final = 84
"""From this width on a row also says why, and what was answered before."""


class EventMoved(Message):
    """The window moved: older events may be needed."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, EventMoved)


class EventOpened(Message):
    """The operator wants to see the event under the cursor in full."""


class AuditPane(Pane, can_focus=True):
    """Events, the newest at the bottom; moving up holds, End follows again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "older", show=False, id="up"),
        Binding("down,j", "move(1)", "newer", show=False, id="down"),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False),
        Binding("pagedown,ctrl+d", "page(1)", "page down", show=False),
        Binding("home,g", "oldest", "oldest here", show=False, id="first"),
        Binding("end,G", "follow", "follow", show=False, id="last"),
        Binding("enter", "open", "the event in full", show=False),
    ]

    def __init__(
        self,
        desk: Desk,
        feed: EventWindow,
        *,
        id: str = "audit",  # noqa: A002 - Textual's word
    ) -> None:
        super().__init__(desk, id=id)
        self.feed = feed
        self.on_screen: list[EventRow] = []
        """The events in sight, those of a row's later course among them."""
        self.unread = ""
        """Why a page could not be read, the last time one was needed."""
        self._reading: asyncio.Task[None] | None = None
        self._bottom = 0
        """The number of the lowest event on screen, while held."""
        self._key: object = None
        self._lines: list[Painted] = []

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        title: Painted = (self._title(width), None)
        folds = self.feed.folds
        if not folds:
            self.on_screen = []
            text = self.pen.own(f" {self._nothing()}")
            return [title, ((), None), (((text, self.pen.palette.muted),), None)]
        key = (width, height, self.has_focus, self.pen, *self._depends())
        if key != self._key:
            self._key, self._lines = key, self._window(folds, width, height - 1)
        return [title, *self._lines]

    def _depends(self) -> tuple[object, ...]:
        """Return what, when it changes, makes the lines be drawn anew."""
        return (self.feed.version, self.mirror.versions.roster, self.unread)

    def _nothing(self) -> str:
        """Say why there is no row; what was not looked at yet is never passed over."""
        feed = self.feed
        if self.unread:
            return f"Not read: {self.unread}"
        if not feed.filter:
            return "Nothing has happened." if feed.exhausted else "Reading…"
        if feed.exhausted or not feed.looked_at:
            return self._none
        return f"Nothing matches from event {feed.floor:,} on; looking further back…"

    @property
    def _none(self) -> str:
        return f"Nothing matches. {self.desk.key('out', 'Esc')} clears the filter."

    def _window(self, folds: list[Fold], width: int, height: int) -> list[Painted]:
        """Fill *height* lines upwards from the lowest row in sight."""
        index = self.feed.index
        low = index if self.feed.follow else self._lowest(folds, index, height)
        upwards: list[Painted] = []
        bottom = low
        while low >= 0 and len(upwards) < height:
            here = not self.feed.follow and low == index
            over = self.pen.palette.cursor if here and self.has_focus else None
            drawn = [(row, over) for row in self._row(folds[low], width, here=here)]
            upwards += reversed(drawn)
            upwards += self._gap(folds[low], first=not low)
            low -= 1
        seen = folds[low + 1 : bottom + 1]
        self.on_screen = sorted(event for one in seen for event in one.events)
        return upwards[:height][::-1]

    def _gap(self, fold: Fold, *, first: bool) -> list[Painted]:
        """Say what is missing before a row: numbers have no gaps of their own."""
        if first and self.unread and not self.feed.exhausted:
            waiting = self.pen.palette.waiting
            return [(((f"   not read: {self.unread}", waiting),), None)]
        if not fold.missing:
            return []
        start, end = fold.missing
        text = f"   {end - start + 1:,} missing: {start:,} to {end:,}"
        return [(((text, self.pen.palette.danger),), None)]

    def _lowest(self, folds: list[Fold], index: int, height: int) -> int:
        """Return the lowest row to show so that the cursor is in sight."""
        low = bisect_left(folds, self._bottom, key=lambda fold: fold.head.seq)
        low = max(min(low, len(folds) - 1), index)
        while (
            low > index and sum(self._tall(f) for f in folds[index : low + 1]) > height
        ):
            low -= 1
        self._bottom = folds[low].head.seq
        return low

    def _tall(self, fold: Fold) -> int:
        denied = fold.head.outcome == "denied" and words.why(self.mirror, fold.head)
        return 2 if denied else 1

    def _row(self, fold: Fold, width: int, *, here: bool) -> list[Row]:
        pen, event, state = self.pen, fold.head, fold.state
        p = pen.palette
        name = self.mirror.agent_name(event.agent_id) if event.agent_id else event.actor
        word, style = state.word, words.style(p, state)
        mark = pen.glyphs.cursor if here else " "
        room = width - 2 - _TIME - _OUTCOME - 1
        who, what = _columns(room)
        left: list[Piece] = [
            (mark, p.accent if here else p.muted),
            (f"{hms(event.time)} ", p.muted),
            (pad(pen.clip(name or " ", who), who + 1), p.text),
        ]
        if what:
            said = "" if event.outcome == "denied" else words.why(self.mirror, event)
            said = words.came(state) or said
            most = None if width >= _ROOMY else 1
            where = "  ".join(words.beside(event, said)[:most])
            if room < _ROOM_FOR_WHERE:
                where = ""
            rest = max(room - who - what - 2, 1) + max(_OUTCOME - cell_width(word), 0)
            if not where:  # with nothing beside it, a long word need not be cut
                what, rest = what + rest, 0
            deed = words.deed(event)
            if event.type == "tenant.log":  # a sentence: it says more than where
                more = min(max(cell_width(deed) - what, 0), rest)
                what, rest = what + more, rest - more
            elif cell_width(where) > rest:  # what the deed leaves of its column
                spare = min(max(what - cell_width(deed), 0), cell_width(where) - rest)
                what, rest = what - spare, rest + spare
            action = pen.clip(deed, what)
            left.append((pad(action, what + 1), p.text))
            if rest:
                left.append((pen.clip(pen.own(where), rest), p.muted))
        # Few runs of style: at 500 events a second this is what goes over the wire.
        gap = width - 1 - cell_width(word) - cells(tuple(left))
        roomy = fold.later and width >= _ROOMY
        course = f" {event.word} {pen.glyphs.arrow} " if roomy else ""
        course = course if cell_width(course) <= gap else ""
        blank = " " * (gap - cell_width(course)) + course
        rows: list[Row] = [(*left, (blank, p.muted), (f"{word} ", style))]
        if self._tall(fold) == 2:
            why = pen.clip(words.why(self.mirror, event), max(width - _TIME - 4, 4))
            rows.append((("   " + " " * _TIME, p.muted), (why, p.muted)))
        return rows

    def _title(self, width: int) -> Row:
        pen, p, feed = self.pen, self.pen.palette, self.feed
        pace = self.mirror.decisions()
        row: Row = self.heading("Audit")
        row = (*row, *self._standing())
        if feed.filter:
            shown = f"  {len(feed.rows):,} of {feed.looked_at:,}"
            row = (*row, (shown, p.text), (f", {feed.hidden:,} hidden", p.waiting))
        rate = f"{pace / 60:.0f}/s " if pace >= 120 else f"{pace:,}/min "
        rate *= self.mirror.loaded
        return pen.spread(row, ((rate, p.muted),), width)

    def _standing(self) -> Row:
        p, feed, dash = self.pen.palette, self.feed, self.pen.glyphs.dash
        end = self.desk.key("last", "End")
        if feed.follow:
            words = "up to then" if self.desk.past else "following"
            return ((f"  {words}", p.text),)
        if feed.foreign:
            text = f"  OF A LEDGER THAT WAS REPLACED {dash} {end} shows the new one"
            return ((text, p.danger),)
        held: Row = (("  HELD", p.waiting),)
        if feed.uncounted:
            return (*held, (f"  many new {dash} {end}", p.waiting))
        if feed.arrived:
            return (*held, (f"  +{feed.arrived:,} new {dash} {end}", p.waiting))
        return held

    def action_move(self, rows: int) -> None:
        """Move the cursor; the first move holds."""
        if self.feed.follow and self.feed.folds:
            self._bottom = self.feed.folds[-1].head.seq
        self.feed.move(rows)
        self.after_move()

    def wheel(self, rows: int) -> None:
        self.action_move(rows)

    def action_page(self, direction: int) -> None:
        self.action_move(direction * max(self.size.height - 2, 1))

    def action_oldest(self) -> None:
        self.action_move(-len(self.feed.folds))

    def action_follow(self) -> None:
        self.feed.resume()
        self.after_move()

    def action_open(self) -> None:
        self.post_message(EventOpened())

    def toggle(self) -> None:
        if self.feed.follow:
            self.action_move(0)
        else:
            self.action_follow()

    def after_move(self) -> None:
        """Draw, and read older events if the screen is about to need them."""
        self.paint()
        self.fetch()
        self.post_message(EventMoved())

    @property
    def idle(self) -> bool:
        return self._reading is None or self._reading.done()

    def fetch(self) -> None:
        """Read a page when the screen is about to need it."""
        if self.idle and self.feed.wants(self.size.height):
            self._reading = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        for _ in range(_PAGES_AT_ONCE):
            want = self.feed.wants(self.size.height)
            if want is None:
                break
            try:
                page = await self.desk.link.audit(want.query)
            except AgentVaultError as error:
                self.unread = self.mirror.intake.shown(error.diagnosis())
                break
            self.unread = ""
            self.feed.take(page, want)
            self.took()
        self.settled()

    def took(self) -> None:
        self.paint()

    def settled(self) -> None:
        """Show what has been read, now that it is all."""
        self.paint()

    def on_unmount(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


def _columns(room: int) -> tuple[int, int]:
    """Return the widths of agent and action; the resource takes the rest."""
    if room < 20:
        return max(room - 1, 4), 0
    if room < _ROOM_FOR_WHERE:
        who = room * 4 // 10
        return who, room - who - 3
    who = min(max(room * 3 // 10, 14), 20)
    return who, min(max(room * 3 // 10, 14), 18)


def pad(text: str, width: int) -> str:
    """Fill *text* up to that many cells."""
    blank = width - cell_width(text)
    return text + " " * max(blank, 0)
