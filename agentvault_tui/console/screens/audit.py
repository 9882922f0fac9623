"""The audit screen: any event of the ledger, in full, with its story and its proof."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from agentvault_tui.clock import iso
from agentvault_tui.console.desk import Desk, copy
from agentvault_tui.console.draw.layout import Box, plan_audit
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.messages import ShowAudit
from agentvault_tui.console.screens.base import TYPING_KEYS, follow_key
from agentvault_tui.console.screens.filtered import FilteredScreen
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.verdicts import LinkVerdicts
from agentvault_tui.console.widgets.audit import EventMoved, EventOpened
from agentvault_tui.console.widgets.ledger import EvidencePane, LedgerList
from agentvault_tui.console.widgets.line_input import Prompt
from agentvault_tui.console.widgets.pane import Pane, Rule
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.presenters.evidence import EventEvidence
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.moments import (
    EXAMPLES,
    LedgerMoment,
    parse_ledger_moment,
)
from agentvault_tui.presenters.records import AgentRow, EventRow

_REMEMBERED: Final = 64
_NEW: Final = 200
"""Recent events looked through for more of a story."""


class EvidenceReader:
    """Read links and related events from the broker, and show them."""

    def __init__(
        self,
        link: BrokerLink,
        checked: LinkVerdicts,
        events: LedgerList,
        pane: EvidencePane,
    ) -> None:
        self._link = link
        self._mirror = link.mirror
        self._checked = checked
        self._list = events
        self._pane = pane
        self._ledger = link.mirror.versions.ledger
        self._seen: list[int] = []
        self._checking: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    def look(self, *, wanted: bool) -> None:
        """Read the visible unknown events; the story only if it is *wanted*."""
        if not self._mirror.link.live or self._list.feed.foreign:
            return
        if self._ledger != self._mirror.versions.ledger:
            self._ledger = self._mirror.versions.ledger
            self._pane.by_seq.clear()
        rows = self._list.on_screen
        seqs = [row.seq for row in rows]
        still = not self._list.feed.follow or seqs == self._seen
        self._seen = seqs
        if still and not _busy(self._checking):
            unchecked = self._checked.unknown(rows)
            if unchecked:
                self._checking = asyncio.create_task(self._check(unchecked))
        row = self._list.feed.under_cursor
        if wanted and row is not None and still and not _busy(self._telling):
            evidence = self._pane.by_seq.get(row.seq)
            if evidence is None or self._grew(evidence):
                self._telling = asyncio.create_task(self._tell(row))

    @property
    def idle(self) -> bool:
        return not _busy(self._checking) and not _busy(self._telling)

    def stop(self) -> None:
        for task in (self._checking, self._telling):
            if task is not None:
                task.cancel()

    def _grew(self, evidence: EventEvidence) -> bool:
        for number, row in enumerate(reversed(self._mirror.events)):
            if row.seq <= evidence.upto or number == _NEW:
                return False
            if evidence.grows_by(row):
                return True
        return False

    async def _check(self, rows: list[EventRow]) -> None:
        try:
            proofs = await self._link.links(row.seq for row in rows)
        except AgentVaultError:
            return  # stays unchecked, which is what the title says
        self._checked.take(rows, proofs)
        self._list.paint()
        self._pane.paint()

    async def _tell(self, row: EventRow) -> None:
        upto = self._mirror.last_seq
        try:
            proofs = await self._link.links([row.seq])
            story, complete = await self._link.story(row.seq)
        except AgentVaultError:
            return
        evidence = self._pane.by_seq
        if len(evidence) >= _REMEMBERED:
            evidence.clear()
        proof = proofs[0] if proofs else None
        evidence[row.seq] = EventEvidence(proof, tuple(story), complete, upto)
        self._pane.paint()
        self.look(wanted=True)


def _busy(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()


class AuditScreen(FilteredScreen):
    """A list of events, and next to or below it the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("at", "go", "go to a time or a number"),
        Binding(
            "left_square_bracket",
            "story(-1)",
            "event before, of its story",
            id="story-before",
        ),
        Binding(
            "right_square_bracket",
            "story(1)",
            "next event of its story",
            id="story-next",
        ),
        Binding("v", "raw", "the body as hashed"),
        Binding("e", "export", "export what the filter shows"),
        Binding("o", "agent", "its agent"),
        Binding("t", "now", "back to now", id="time"),
    ]

    PANES = (LedgerList, EvidencePane)

    def __init__(self, desk: Desk, message: ShowAudit) -> None:
        super().__init__(desk)
        self._shown_for = message
        self.feed = EventWindow(desk.mirror, collapse=True)
        self.feed.narrow(Filter.parse(message.filter))
        checked = LinkVerdicts(desk.mirror)
        self.list = LedgerList(desk, self.feed, checked)
        self.evidence = EvidencePane(desk, checked, lambda: self.feed.under_cursor)
        self.rule = Rule(desk, id="rule")
        self.prompt = Prompt("go to", EXAMPLES, id="prompt")
        self.reading = EvidenceReader(self.link, checked, self.list, self.evidence)
        self.panes = (
            self.masthead,
            self.waiting,
            self.list,
            self.rule,
            self.evidence,
            self.keybar,
        )
        self.open = message.full
        """Whether the event under the cursor is shown in full."""
        self._asking = False

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield self.prompt

    async def on_mount(self) -> None:
        self.set_focus(self.list)
        await self.use_filter(self._shown_for.filter)
        self.begin()
        if (first := self._shown_for.seq) is not None:
            self.call_after_refresh(self.list.go, first)

    def on_unmount(self) -> None:
        self.reading.stop()

    # Time

    def take(self) -> None:
        streamed = self.feed.update()
        if self.covered:
            return
        if not self.repaint() and streamed:
            self.list.paint()
            if self.feed.follow:
                self.evidence.paint()
        if not self.list.unread or self.desk.mirror.link.live:
            self.list.fetch()
        self.reading.look(wanted=self.open)

    # Going to a place

    def plan(self, width: int, height: int) -> dict[str, Box]:
        return plan_audit(
            width,
            height,
            masthead=self.masthead.wanted(width),
            waiting=bool(self.desk.mirror.open_stepups()),
            line="prompt" if self._asking else "filter" if self.filtering else "",
            opened=self.open,
            inside=self.focused is self.evidence,
        )

    def lines(self) -> list[Widget]:
        return [*super().lines(), self.prompt]

    def stops(self) -> list[Pane]:
        return [self.list, self.evidence]

    @property
    def _apart(self) -> bool:
        return not {"audit", "evidence"} <= self._boxes.keys()

    def show_keys(self) -> None:
        """Name the keys of the typed line, of the list, or of the open event."""
        if self.typing or self._asking:
            asks = (("Enter", "go"), ("Esc", "back"))
            self.keybar.show(TYPING_KEYS if self.typing else asks)
            return
        keys = [("t", "now")] if self.desk.past else []
        keys += self.named("step-ups")
        if self.open:
            keys += [("[ ]", "story"), ("v", "raw"), ("Esc", "back")]
            keys += [] if self.focused is self.evidence else [("Tab", "into it")]
        else:
            keys += [("Enter", "event"), ("e", "export")]
        keys += [follow_key(self.feed.follow), ("@", "go to"), ("/", "filter")]
        keys += [("0", "all" if self.feed.notable else "matters")]
        keys += self.named("panic")
        if self.decides and self.chosen is not None:
            keys.append(("r", "revoke agent"))
        keys += [("e", "export")] if self.open else []
        keys += [("o", "agent"), ("y", "copy id")]
        keys += [] if self.open else [("Esc", "home")]
        self.hint(*keys)

    # Moving

    @on(EventMoved)
    def follow_cursor(self) -> None:
        self.evidence.paint()
        self.reading.look(wanted=self.open)
        self.show_keys()

    @on(EventOpened)
    def open_event(self) -> None:
        """Show the event in full; once more, go into it."""
        self.feed.hold()
        again, self.open = self.open, True
        self.place()
        if again or self._apart:
            self.evidence.display = True
            self.set_focus(self.evidence)
        self.paint_all()
        self.reading.look(wanted=True)

    def action_previous(self) -> None:
        """Go to the other pane: there are two."""
        self.action_next()

    def action_next(self) -> None:
        if self.open and self.focused is self.list:
            self.open_event()
        else:
            self.set_focus(self.list)

    def action_out(self) -> None:
        """Take one step out: event, filter, screen."""
        if (self.typing or not self.open) and self.leave_filter():
            return
        if self.focused is self.evidence and not self._apart:
            self.set_focus(self.list)
        elif not self.open and self.list.fold():
            return
        elif self.open:
            self.open = False
            self.set_focus(self.list)
        else:
            self.dismiss()
        self.place()
        self.paint_all()

    def action_follow(self) -> None:
        self.list.toggle()

    def action_story(self, step: int) -> None:
        """Go to the next event, or the one before, of the same story."""
        row = self.feed.under_cursor
        evidence = self.evidence.by_seq.get(row.seq) if row else None
        if row is None or evidence is None:
            return
        seqs = [event.seq for event in evidence.story]
        at = seqs.index(row.seq) + step if row.seq in seqs else -1
        if 0 <= at < len(seqs):
            if self.feed.filter and not self._shows(seqs[at]):
                self.app.notify("The filter hides it; Esc clears the filter.")
            self.list.go(seqs[at])

    def _shows(self, seq: int) -> bool:
        return any(row.seq == seq for row in self.feed.rows)

    def action_raw(self) -> None:
        if not self.open:
            self.open_event()
        self.evidence.toggle_raw()

    # Going to a place

    def action_go(self) -> None:
        self._asking = True
        self.prompt.field.value = ""
        self.prompt.refuse("")
        self.place()
        self.set_focus(self.prompt.field)

    @on(Prompt.Closed)
    def stop_asking(self) -> None:
        self._asking = False
        self.set_focus(self.list)
        self.place()
        self.paint_all()

    @on(Prompt.Answered)
    def go_there(self, message: Prompt.Answered) -> None:
        place = parse_ledger_moment(message.text, self.desk.mirror.clock.now())
        if isinstance(place, str):
            self.prompt.refuse(place)
        elif place.seq is None and place.at is None:
            self.stop_asking()
            self.list.action_follow()
        else:
            self.run_worker(self._go(place), group="go", exclusive=True)

    async def _go(self, place: LedgerMoment) -> None:
        seq, text = place.seq, ""
        last = self.desk.mirror.last_seq
        if place.at is not None:
            try:
                page = await self.link.audit(
                    AuditQuery(after=0, since=iso(place.at), limit=1)
                )
            except AgentVaultError as error:
                shown = self.desk.mirror.intake.shown(error.diagnosis())
                self.prompt.refuse(f"not found out: {shown}")
                return
            seq = page.rows[0].seq if page.rows else last
            if not page.rows:
                text = f"Nothing was recorded since {place.at:%Y-%m-%d %H:%M:%S}Z."
            elif seq == 1 and page.rows[0].time > place.at:
                text = f"The ledger begins at {page.rows[0].time:%Y-%m-%d %H:%M:%S}Z."
        elif seq is not None and seq > last:
            text = f"The last event is {last:,}."
        if text:
            self.app.notify(text, markup=False, timeout=5)
        self.stop_asking()
        self.list.go(seq or 1)

    # Filter

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        asking = self._asking and action == "filter"
        return not asking and super().check_action(action, parameters)

    def narrow(self, wanted: Filter) -> None:
        """Filter the list, around the event under the cursor where it is held."""
        if wanted == self.feed.filter:
            self.place()
            return
        self.feed.narrow(wanted, stay=True)
        self.place()
        if self.feed.follow:
            self.list.fetch()
        else:
            self.list.go(self.feed.cursor)
        self.paint_all()

    def back(self) -> None:
        self.set_focus(self.list)

    # What keys act on

    @property
    def chosen(self) -> AgentRow | None:
        row = self.feed.under_cursor
        return self.desk.mirror.agents.get(row.agent_id) if row else None

    def action_agent(self) -> None:
        self.show_agent()

    def action_copy(self) -> None:
        if row := self.feed.under_cursor:
            if self.focused is self.evidence and row.hash:
                copy(self.app, f"hash of event {row.seq:,}", row.hash)
            else:
                self.copy_event(row)

    def action_export(self) -> None:
        from agentvault_tui.console.dialogs.ask import (  # noqa: PLC0415 - seldom
            ExportDialog,
        )

        self.app.push_screen(ExportDialog(self.desk, self.feed.filter))
