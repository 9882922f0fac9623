"""The audit pane: requests and their answers, as they happen."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Final

from textual.binding import Binding, BindingType
from textual.message import Message

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.feedrow import FeedColumns, draw_feed_row
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.folds import FeedRow
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.widgets.pane import Painted, Pane
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.presenters import event_words
from agentvault_tui.presenters.lines import Row
from agentvault_tui.presenters.moments import clock_time, hms, plural
from agentvault_tui.presenters.records import EventRow
from agentvault_tui.text import cell_width

_PAGES_AT_ONCE: Final = 20
_TIME: Final = 9
_PINNED: Final = frozenset({"denied", "failed", "unknown", "cut"})
"""Outcomes that routine does not scroll away while the feed is followed."""
_PINNED_FOR: Final = timedelta(minutes=10)


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
        self._names = -1, 0
        self._bottom = 0
        """The number of the lowest event on screen, while held."""
        self._key: object = None
        self._lines: list[Painted] = []

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        top: list[Painted] = [(row, None) for row in self._top(width)]
        lines = self.feed.lines
        if not lines:
            self.on_screen = []
            text = self.pen.own(f" {self._nothing()}")
            return [*top, ((), None), (((text, self.pen.palette.muted),), None)]
        room = max(height - len(top), 1)
        key = (width, room, self.has_focus, self.pen, *self._depends())
        if key != self._key:
            self._key, self._lines = key, self._window(lines, width, room)
        return [*top, *self._lines]

    def _top(self, width: int) -> list[Row]:
        """Write the rows above the list."""
        return [self._title(width)]

    def _depends(self) -> tuple[object, ...]:
        """Return a value; when it changes, the lines are drawn again."""
        versions = self.mirror.versions
        changed = (versions.roster, versions.stepups)
        return (self.feed.version, self.feed.notable, *changed, self.unread)

    def _nothing(self) -> str:
        """Word why there is no row; an unread stretch is never passed over."""
        feed = self.feed
        if self.unread:
            return f"Not read: {self.unread}"
        if not feed.filter:
            read = feed.exhausted or (feed.follow and self.mirror.loaded)
            return "Nothing has happened." if read else "Reading…"
        if feed.exhausted or not feed.looked_at:
            return self._none
        return f"Nothing matches from event {feed.floor:,} on; looking further back…"

    @property
    def _none(self) -> str:
        return f"Nothing matches. {self.desk.key('out', 'Esc')} clears the filter."

    def _window(self, lines: list[FeedRow], width: int, height: int) -> list[Painted]:
        """Fill *height* lines upwards from the lowest row in sight."""
        index = self.feed.index
        columns, marks = self._columns(width), self._fingerprints()
        if self.feed.follow:
            seen = self._latest(lines, columns, height)
        else:
            low = self._lowest(lines, columns, index, height)
            seen = lines[max(low - height + 1, 0) : low + 1]
        upwards: list[Painted] = []
        shown: list[FeedRow] = []
        for line in reversed(seen):
            if len(upwards) >= height:
                break
            here = not self.feed.follow and line is lines[index]
            over = self.pen.palette.cursor if here and self.has_focus else None
            drawn = self._row(line, columns, here=here, mark=marks.get(line.anchor, ""))
            # A reason never stands without its row.
            drawn = drawn[: height - len(upwards)]
            upwards += [(row, over) for row in reversed(drawn)]
            upwards += self._gap(line, first=line is lines[0])
            shown.append(line)
        events = (event for line in shown for event in line.last.events)
        self.on_screen = sorted(events, key=lambda event: event.seq)
        return upwards[:height][::-1]

    def _latest(
        self, lines: list[FeedRow], columns: FeedColumns, height: int
    ) -> list[FeedRow]:
        """Return the latest rows; routine scrolls away first, what waits last."""
        tall = sum(columns.tall(self.mirror, line) for line in lines[: height + 1])
        if tall <= height:
            return lines
        since = self.mirror.clock.now() - _PINNED_FOR
        chosen: set[int] = set()
        room = height
        for rank, spare in enumerate((-1, height // 2, height // 3, -1)):
            for line in reversed(lines):
                if _rank(line, since) != rank:
                    continue
                takes = columns.tall(self.mirror, line)
                if room <= 0 or room - takes < spare:
                    break
                room -= takes
                chosen.add(id(line))
        return [line for line in lines if id(line) in chosen]

    def _fingerprints(self) -> dict[int, str]:
        """Return the fingerprints of requests that wait, by their events' numbers."""
        waits = {
            (row.agent_id, row.action, row.resource): row.fingerprint
            for row in self.mirror.open_stepups()
        }
        if not waits:
            return {}
        return {
            line.anchor: waits.get(
                (line.head.agent_id, line.head.action, line.head.resource), ""
            )
            for line in self.feed.lines
            if line.word == "waiting"
        }

    def _columns(self, width: int) -> FeedColumns:
        return FeedColumns.of(width, 1 + _TIME, longest=self.longest)

    @property
    def longest(self) -> int:
        """Cells of the longest name."""
        roster = self.mirror.versions.roster
        if self._names[0] != roster:
            names = (cell_width(agent.name) for agent in self.mirror.agents.values())
            self._names = roster, max(names, default=0)
        return self._names[1]

    def _gap(self, line: FeedRow, *, first: bool) -> list[Painted]:
        """Word the gap before a row: numbers have no gaps of their own."""
        if first and self.unread and not self.feed.exhausted:
            waiting = self.pen.palette.waiting
            return [(((f"   not read: {self.unread}", waiting),), None)]
        if not line.missing:
            return []
        start, end = line.missing
        text = f"   {end - start + 1:,} missing: {start:,} to {end:,}"
        return [(((text, self.pen.palette.danger),), None)]

    def _lowest(
        self, lines: list[FeedRow], columns: FeedColumns, index: int, height: int
    ) -> int:
        """Return the lowest row to show so that the cursor is in sight."""
        low = bisect_left(lines, self._bottom, key=lambda line: line.anchor)
        low = max(min(low, len(lines) - 1), index)
        rows = sum(columns.tall(self.mirror, line) for line in lines[index : low + 1])
        while low > index and rows > height:
            rows -= columns.tall(self.mirror, lines[low])
            low -= 1
        self._bottom = lines[low].anchor
        return low

    def _row(
        self, line: FeedRow, columns: FeedColumns, *, here: bool, mark: str
    ) -> list[Row]:
        pen = self._pen or self.pen  # it was looked up for the title
        p = pen.palette
        lead: Row = (
            (pen.glyphs.cursor if here else " ", p.accent if here else p.muted),
            (self._when(line.last.turn), p.muted),
        )
        return draw_feed_row(pen, self.mirror, line, columns, lead=lead, mark=mark)

    def _when(self, event: EventRow) -> str:
        return f"{hms(event.time)} "

    def _title(self, width: int) -> Row:
        pen, p, feed = self.pen, self.pen.palette, self.feed
        pace = self.mirror.decisions()
        row: Row = (*self.heading("Audit"), *self._standing())
        if feed.filter:
            shown = f"  {len(feed.rows):,} of {feed.looked_at:,}"
            row = (*row, (shown, p.text), (f", {feed.hidden:,} hidden", p.waiting))
        rate = f"{pace / 60:.0f}/s " if pace >= 120 else f"{pace:,}/min "
        rate *= self.mirror.loaded
        return pen.spread(row, ((rate, p.muted),), width)

    def _standing(self) -> Row:
        p, feed, dash = self.pen.palette, self.feed, self.pen.glyphs.dash
        end = self.desk.key("last", "End")
        link = self.mirror.link
        if feed.follow and link.state is LinkState.LOST and link.since:
            return ((f"  no news since {clock_time(link.since)}", p.waiting),)
        if feed.follow:
            words = "up to then" if self.desk.past else "following"
            return ((f"  {words}", p.text),)
        if feed.foreign:
            text = f"  OF A LEDGER THAT WAS REPLACED {dash} {end} shows the new one"
            return ((text, p.danger),)
        every = ", every event" if feed.every and not feed.filter else ""
        held: Row = (("  HELD", p.waiting), (every, p.text))
        if feed.uncounted:
            return (*held, (f"  many new {dash} {end}", p.waiting))
        if feed.arrived:
            return (*held, (f"  +{feed.arrived:,} new {dash} {end}", p.waiting))
        return held

    def action_move(self, rows: int) -> None:
        """Move the cursor; the first move holds."""
        if self.feed.follow and self.feed.lines:
            self._bottom = self.feed.lines[-1].anchor
        self.feed.move(rows)
        self.after_move()

    def wheel(self, rows: int) -> None:
        self.action_move(rows)

    def action_page(self, direction: int) -> None:
        self.action_move(direction * max(self.size.height - 2, 1))

    def action_oldest(self) -> None:
        self.action_move(-len(self.feed.lines))

    def action_follow(self) -> None:
        self.feed.resume()
        self.after_move()

    def action_open(self) -> None:
        """Show each of several that are alike, or the event in full."""
        if self.feed.unfold():
            self.after_move()
        else:
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

    def fold(self) -> bool:
        """Collapse again the unfolded row; return whether there was one."""
        folded = self.feed.fold()
        if folded:
            self.after_move()
        return folded

    def took(self) -> None:
        self.paint()

    def settled(self) -> None:
        """Show the read rows, now that they are all."""
        self.paint()

    def on_unmount(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


def _rank(line: FeedRow, since: datetime) -> int:
    """Rank a row: it waits, says who stopped what *since* then, matters, or not."""
    if line.word == "waiting":
        return 0
    if line.at <= since:
        return 3
    if line.word == "changed" and event_words.loud(line.head):
        return 1
    return 2 if line.word in _PINNED else 3


class FeedPane(AuditPane):
    """The audit as it happens, under the events since the last key."""

    def _top(self, width: int) -> list[Row]:
        rows = super()._top(width)
        absence = self.desk.absence
        missed = None if self.desk.past else absence.parts()
        if missed is not None:
            since, parts = missed
            start = f" since {since:%H:%M}, your last key: "
            if not absence.away:
                start = f" from {since:%H:%M}, while no key was pressed: "
            rows.append(self._since(start, parts, width))
        elif self.feed.earlier:
            rows.append(self._before(width))
        return rows

    def _before(self, width: int) -> Row:
        """Count the changes before this console began, which only the log shows."""
        pen, feed, key = self.pen, self.feed, self.desk.key("audit", "L")
        rule, dot = pen.glyphs.dash * 2, pen.glyphs.separator
        changes = plural(feed.earlier, "change")
        text = f" {rule} before {hms(feed.began)}: {changes} {dot} {key} shows them "
        return ((pen.clip(text, width), pen.palette.muted),)

    def _since(self, start: str, parts: list[str], width: int) -> Row:
        """Write the events of an absence, as many parts as fit."""
        pen, p = self.pen, self.pen.palette
        text, room = "", width - cell_width(start) - 1
        for number, part in enumerate(parts):
            more = f"{text} {pen.glyphs.separator} {part}" if text else part
            rest = len(parts) - number - 1
            if cell_width(more) + (len(f" +{rest}") if rest else 0) > room:
                text = f"{text} +{rest + 1}" if text else pen.clip(part, room)
                break
            text = more
        if not parts:
            return ((f"{start}nothing that matters", p.muted),)
        return ((start, p.muted), (pen.own(text), p.waiting))
