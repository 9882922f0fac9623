"""The audit at full size: the list of events, and the event under the cursor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from textual.binding import BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.feedrow import FeedColumns
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.folds import FeedRow
from agentvault_tui.console.state.verdicts import LinkVerdicts
from agentvault_tui.console.term.keyed import moves
from agentvault_tui.console.widgets.audit import AuditPane, EventMoved
from agentvault_tui.console.widgets.pane import Painted, ScrollPane
from agentvault_tui.presenters.evidence import EventEvidence, evidence
from agentvault_tui.presenters.lines import Row
from agentvault_tui.presenters.records import EventRow

_TIME: Final = 13
_WIDE: Final = 96
"""From here on numbers and milliseconds have columns of their own."""


class LedgerList(AuditPane):
    """The same window as on the home screen, with room to say more."""

    def __init__(self, desk: Desk, feed: EventWindow, checked: LinkVerdicts) -> None:
        super().__init__(desk, feed)
        self._checked = checked
        self._going = False

    def go(self, seq: int) -> None:
        """Hold at an event, with its surroundings in sight."""
        self.feed.jump(seq)
        self._going = True
        if self.feed.wants(self.size.height):
            self.fetch()
        else:
            self.settled()

    def action_oldest(self) -> None:
        self.go(1)

    def took(self) -> None:
        """Wait with the picture for both sides of a place just gone to."""
        if not self._going:
            self.paint()

    def settled(self) -> None:
        if self._going:
            self._going = False
            lines, below = self.feed.lines, (self.size.height - 1) // 2
            low = min(self.feed.index + below, len(lines) - 1)
            self._bottom = lines[low].anchor if lines else 0
            self.post_message(EventMoved())
        self.paint()

    def _depends(self) -> tuple[object, ...]:
        return (*super()._depends(), self._checked.version)

    def _columns(self, width: int) -> FeedColumns:
        if width < _WIDE:
            return super()._columns(width)
        lead = 1 + self._number + 1 + _TIME
        return FeedColumns.of(width, lead, longest=self.longest)

    @property
    def _number(self) -> int:
        return max(len(f"{self.mirror.last_seq:,}"), 7)

    def _row(
        self, line: FeedRow, columns: FeedColumns, *, here: bool, mark: str
    ) -> list[Row]:
        rows = super()._row(line, columns, here=here, mark=mark)
        if not any(self._checked.problem(event.seq) for event in line.last.events):
            return rows
        failed = (self.pen.glyphs.failed, self.pen.palette.danger)
        return [(failed, *rows[0][1:]), *rows[1:]]

    def _when(self, event: EventRow) -> str:
        """Write number and time; of another day the date and a rough time."""
        if self.size.width < _WIDE:
            return super()._when(event)
        today = event.time.date() == self.mirror.clock.now().date()
        when = (
            f"{event.time:%H:%M:%S.%f}"[:12] if today else f"{event.time:%m-%d %H:%M} "
        )
        return f"{event.seq:>{self._number},} {when} "

    def _title(self, width: int) -> Row:
        pen, p, feed = self.pen, self.pen.palette, self.feed
        row: Row = (*self.heading("Audit"), *self._standing())
        if feed.filter:
            shown = f"  {len(feed.rows):,} of {feed.looked_at:,}"
            row = (*row, (shown, p.text))
            if width >= _WIDE:
                hidden = f", {feed.hidden:,} hidden"
                row = (*row, (" looked at", p.text), (hidden, p.waiting))
        return pen.spread(row, self._verified(width), width)

    def _verified(self, width: int) -> Row:
        """Word whether the visible rows were computed again here, and hold."""
        p, g = self.pen.palette, self.pen.glyphs
        right, wrong, unknown = self._checked.count(self.on_screen)
        if wrong:
            verb = "does" if wrong == 1 else "do"
            return ((f"{g.failed} {wrong} of these {verb} not match ", p.danger),)
        if unknown or not right:
            return (("not checked " if unknown else "", p.muted),)
        words = "verified here " if width < _WIDE else "on screen verified here "
        return ((f"{g.done} {right} {words}", p.accent),)


class EvidencePane(ScrollPane):
    """Follows the cursor of the list."""

    BINDINGS: ClassVar[list[BindingType]] = moves("turn", pages="pagedown,ctrl+d,space")

    def __init__(
        self, desk: Desk, checked: LinkVerdicts, row: Callable[[], EventRow | None]
    ) -> None:
        super().__init__(desk, id="evidence")
        self.raw = False
        """Whether the body is shown as it was hashed, nothing masked."""
        self.by_seq: dict[int, EventEvidence] = {}
        self._checked = checked
        self._row = row
        self._shown = 0

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw the event under the cursor; another one begins at its top."""
        row = self._row()
        if row is None:
            return []
        if row.seq != self._shown:
            self._shown, self._top, self.raw = row.seq, 0, False
        problem = self._checked.problem(row.seq)
        rows = evidence(
            self.pen,
            self.mirror,
            row,
            self.by_seq.get(row.seq),
            problem,
            width=width - 2,
            raw=self.raw,
            raw_key=self.desk.key("raw", "v"),
        )

        def title(rows: int) -> Row:
            return self._title(row, problem, rows, width)

        return self.scrolled(rows, height, title)

    def _title(self, row: EventRow, problem: str | None, below: int, width: int) -> Row:
        pen, p, g = self.pen, self.pen.palette, self.pen.glyphs
        left: Row = (*self.heading(f"Event {row.seq:,}"),)
        if problem:
            left = (*left, (f"  {g.failed} does not match", p.danger))
        elif problem is not None:
            left = (*left, (f"  {g.done} verified here", p.accent))
        else:
            left = (*left, ("  not checked", p.muted))
        return pen.spread(left, self.below(below), width)

    def toggle_raw(self) -> None:
        """Show the body as it was hashed, or hide it again."""
        self.raw = not self.raw
        self.paint()
        if self.raw:
            self.action_turn(100_000)
