"""One agent's screen: who it is, may, holds, did, and what revoking it would cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final, Protocol

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from agentvault_tui.console.activity import ActivityRow
from agentvault_tui.console.agentlayout import Wanted, plan
from agentvault_tui.console.dialogs.desk import Desk
from agentvault_tui.console.records import AgentRow, EventPage
from agentvault_tui.console.screens.deciding import Deciding
from agentvault_tui.console.screens.footer import Focus, Place, agent_keys
from agentvault_tui.console.widgets.agentevents import EventsPane
from agentvault_tui.console.widgets.agentfacts import FactsPane
from agentvault_tui.console.widgets.audit import AuditPane
from agentvault_tui.console.widgets.day import DayPane
from agentvault_tui.console.widgets.keybar import KeyBar
from agentvault_tui.console.widgets.masthead import Masthead
from agentvault_tui.console.widgets.pane import Pane
from agentvault_tui.console.widgets.rule import Rule
from agentvault_tui.console.widgets.stepupbar import StepUpBar
from agentvault_tui.console.widgets.who import WhoPane
from agentvault_tui.errors import AgentVaultError

_PULSES_A_READ: Final = 8
"""Counts are read anew once in so many pulses, and only if the agent did something."""
_OLD: Final = 60.0
"""Seconds after which they are read anyway: the day moves on by itself."""


class Reader(Protocol):
    """Where an agent's counts and events are read: the link."""

    async def activity(self, agent_id: str) -> ActivityRow:
        """Read what one agent did."""
        ...

    async def audit(self, **query: object) -> EventPage:
        """Read a page of the audit."""
        ...


class AgentScreen(Deciding):
    """Stands over the home screen, and stays on the agent it was opened for."""

    DEFAULT_CSS = """
    AgentScreen > * { position: absolute; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "out", "back", show=False),
        Binding("tab", "next", "next pane", show=False),
        Binding("shift+tab", "previous", "pane before", show=False),
        Binding("f", "follow", "follow or hold"),
        Binding("L", "audit", "its audit at full size"),
        Binding("y", "copy", "copy id"),
    ]

    def __init__(
        self, desk: Desk, reader: Reader, agent_id: str, *, pulse: float
    ) -> None:
        super().__init__(desk)
        self.agent_id = agent_id
        self._pulse = pulse
        self.masthead = Masthead(desk, id="masthead")
        self.waiting = StepUpBar(desk, id="waiting")
        self.who = WhoPane(desk, agent_id)
        self.day = DayPane(desk)
        self.facts = FactsPane(desk, agent_id)
        self.events = EventsPane(desk, agent_id, reader.audit)
        self.keybar = KeyBar(desk, id="keys")
        self._fixed: tuple[Pane, ...] = (
            self.masthead,
            self.waiting,
            self.who,
            self.day,
            self.facts,
            Rule(desk, id="rule"),
            self.events,
            self.keybar,
        )
        self._big: Pane = self.facts
        self._boxes: object = None
        self._painted: object = None
        self._counts = _Counts(lambda: reader.activity(agent_id), self._take)

    def compose(self) -> ComposeResult:
        """Lay out everything, in its place from the first frame on."""
        self.place()
        yield from self._fixed

    def on_mount(self) -> None:
        """Start the one clock of this screen."""
        self.facts.focus()
        self.pulse()
        self.set_interval(self._pulse, self.pulse)

    def on_unmount(self) -> None:
        """Ask for nothing more."""
        self._counts.stop()

    # Time

    def pulse(self) -> None:
        """Take what has changed since the last pulse, and repaint that."""
        mirror = self.desk.mirror
        self._counts.look(
            self._did(), mirror.clock.boot(), self._pulse, mirror.link.live
        )
        streamed = self.events.feed.update()
        versions = mirror.versions
        second = int(mirror.clock.now().timestamp())
        stamp = (second, versions.status, versions.stepups, versions.roster)
        if stamp != self._painted:
            self._painted = stamp
            self.place()
            self.paint_all()
        elif streamed:
            self.events.paint()
        self.events.fetch()

    def _did(self) -> object:
        """Return what differs once the agent did something that is counted."""
        mirror, agent_id = self.desk.mirror, self.agent_id
        waiting = len(mirror.open_stepups(agent_id))
        return mirror.counts(agent_id), mirror.live_tokens(agent_id), waiting

    def _take(self, found: ActivityRow | AgentVaultError) -> None:
        """Show what was read, or that what stands there is old."""
        if isinstance(found, ActivityRow):
            self.day.take(found.day)
            self.facts.take(found)
        else:
            shown = self.desk.mirror.intake.shown(found.diagnosis(), 80)
            self.facts.complain(shown)

    def paint_all(self) -> None:
        """Repaint what differs."""
        for pane in self._fixed:
            pane.paint()
        self._show_keys()

    # Place

    def place(self) -> None:
        """Put everything in its place for this size."""
        width, height = self.app.size
        wanted = Wanted(
            masthead=self.masthead.wanted(width),
            waiting=bool(self.desk.mirror.open_stepups()),
            big=self._big.id or "facts",
        )
        boxes = plan(width, height, wanted)
        if boxes == self._boxes:
            return
        self._boxes = boxes
        for widget in self._fixed:
            box = boxes.get(widget.id or "")
            widget.display = box is not None
            if box is not None:
                widget.styles.offset = (box.x, box.y)
                widget.styles.width, widget.styles.height = box.width, box.height

    def on_resize(self) -> None:
        """Put everything in its place for the new size."""
        self.place()

    def on_descendant_focus(self) -> None:
        """Let the pane with the focus be the large one."""
        if isinstance(self.focused, DayPane | FactsPane | EventsPane):
            self._big = self.focused
        self.place()
        self._show_keys()

    def action_next(self) -> None:
        """Go to the next pane."""
        self._step(1)

    def action_previous(self) -> None:
        """Go to the pane before."""
        self._step(-1)

    def _step(self, step: int) -> None:
        panes: list[Pane] = [self.facts, self.events, self.day]
        here = panes.index(self._big)
        self._focus(panes[(here + step) % len(panes)])

    def _focus(self, pane: Widget) -> None:
        if isinstance(pane, Pane):
            self._big = pane
            self.place()
        self.set_focus(pane)

    def _show_keys(self) -> None:
        agent, mirror = self.chosen, self.desk.mirror
        places: dict[Pane, Place] = {self.day: "day", self.events: "audit"}
        self.keybar.show(
            agent_keys(
                Focus(
                    places.get(self._big, "details"),
                    "none" if not agent else "revoked" if agent.revoked else "active",
                    bool(mirror.open_stepups()),
                    self.events.feed.follow,
                    mirror.status.panic.on,
                    not self.desk.read_only,
                )
            )
        )

    # What keys act on

    @property
    def chosen(self) -> AgentRow | None:
        """The agent this screen was opened for, whatever else moves."""
        return self.desk.mirror.agents.get(self.agent_id)

    def action_out(self) -> None:
        """Take one step out: of held events, then back."""
        if self._big is self.events and not self.events.feed.follow:
            self.events.action_follow()
        else:
            self.dismiss()

    def action_follow(self) -> None:
        """Hold the events, or follow them."""
        self.events.toggle()
        self._show_keys()

    @on(AuditPane.Opened)
    def _open_event(self) -> None:
        """Show the event in full, among the others of this agent."""
        if event := self.events.feed.under_cursor:
            self._open_audit(event.seq, full=True)

    def action_audit(self) -> None:
        """Show all that this agent did at full size, where it is held."""
        feed = self.events.feed
        self._open_audit(None if feed.follow else feed.cursor)

    def _open_audit(self, seq: int | None, *, full: bool = False) -> None:
        from agentvault_tui.console.app import ConsoleApp  # noqa: PLC0415 - a cycle

        if isinstance(self.app, ConsoleApp):
            of_agent = f"agent:{self.agent_id}"
            self.app.watch_screen.open_audit(seq, full=full, filter_=of_agent)

    @on(AuditPane.Moved)
    def _moved(self) -> None:
        self._show_keys()

    def action_copy(self) -> None:
        """Copy the id of what is under the cursor; never a secret, there is none."""
        agent, event = self.chosen, self.events.feed.under_cursor
        if self._big is self.events and event is not None:
            kind = "decision" if event.decision_id else "event number"
            self.copy(kind, event.decision_id or f"{event.seq}")
        elif agent is not None:
            self.copy(f"agent id of {agent.name}", agent.id)


class _Counts:
    """Reads the counts when they may have changed, one read at a time, calmly."""

    def __init__(
        self,
        read: Callable[[], Awaitable[ActivityRow]],
        take: Callable[[ActivityRow | AgentVaultError], None],
    ) -> None:
        self._read = read
        self._take = take
        self._reading: asyncio.Task[None] | None = None
        self._read_of: object = None
        self._read_at = float("-inf")

    def look(self, did: object, now: float, pulse: float, live: bool) -> None:
        """Read anew if the agent did something, or the last reading is old."""
        if not live or (self._reading is not None and not self._reading.done()):
            return
        age = now - self._read_at
        if age >= _OLD or (did != self._read_of and age >= pulse * _PULSES_A_READ):
            self._read_of, self._read_at = did, now
            self._reading = asyncio.create_task(self._once())

    async def _once(self) -> None:
        try:
            found = await self._read()
        except AgentVaultError as error:
            self._read_of = None  # tried again at the next calm moment
            self._take(error)
        else:
            self._take(found)

    def stop(self) -> None:
        """Let go of a reading that is under way."""
        if self._reading is not None:
            self._reading.cancel()
