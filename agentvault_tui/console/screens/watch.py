"""The home screen: agents, what waits for a person, and the audit as it happens."""

from __future__ import annotations

from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from agentvault_tui.console.agentview import AgentView
from agentvault_tui.console.dialogs.desk import Desk
from agentvault_tui.console.feed import Feed
from agentvault_tui.console.filters import Filter
from agentvault_tui.console.layout import Wanted, plan
from agentvault_tui.console.link import Link
from agentvault_tui.console.pace import beats
from agentvault_tui.console.records import AgentRow
from agentvault_tui.console.screens.filtering import Filtering
from agentvault_tui.console.screens.footer import Focus, Place, keys
from agentvault_tui.console.telling import tell_news
from agentvault_tui.console.widgets.agents import AgentPane
from agentvault_tui.console.widgets.audit import AuditPane
from agentvault_tui.console.widgets.details import DetailsPane
from agentvault_tui.console.widgets.keybar import KeyBar
from agentvault_tui.console.widgets.masthead import Masthead
from agentvault_tui.console.widgets.pane import Pane
from agentvault_tui.console.widgets.rule import Rule
from agentvault_tui.console.widgets.stepupbar import StepUpBar

_QUIET_SURVEY: Final = 3.0
"""Seconds between looks at all agents while nothing happens."""
_SURVEY_SHARE: Final = 20
"""Looking at all agents may take one part in this many of the time."""


class Watch(Filtering):
    """What an operator keeps open all day."""

    DEFAULT_CSS = """
    Watch > * { position: absolute; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "out", "one step out", show=False),
        Binding("tab", "next", "next pane", show=False),
        Binding("shift+tab", "previous", "pane before", show=False),
        Binding("f", "follow", "follow or hold"),
        Binding("L", "audit", "the audit at full size"),
        Binding("o", "agent", "go to the event's agent"),
        Binding("y", "copy", "copy id"),
        Binding("t", "time", "look back in time"),
    ]

    def __init__(self, desk: Desk, link: Link, *, pulse: float) -> None:
        super().__init__(desk)
        self.link = link
        self._pulse = pulse
        self.view = AgentView(desk.mirror)
        self.feed = Feed(desk.mirror)
        self.masthead = Masthead(desk, id="masthead")
        self.waiting = StepUpBar(desk, id="waiting")
        self.agents = AgentPane(desk, self.view)
        self.details = DetailsPane(desk, self.agents)
        self.audit = AuditPane(desk, self.feed, link.audit)
        self.keybar = KeyBar(desk, id="keys")
        self.rules = (Rule(desk, id="rule"), Rule(desk, id="rule2"))
        self._fixed: tuple[Pane, ...] = (
            self.masthead,
            self.waiting,
            self.agents,
            self.details,
            *self.rules,
            self.audit,
            self.keybar,
        )
        self._big: Pane = self.agents
        self._boxes: object = None
        self._painted: tuple[object, ...] = ()
        self._survey_due = 0.0
        self._surveyed = (-1, -1)
        self._surveyed_agents = -1

    def compose(self) -> ComposeResult:
        """Lay out everything; `place` says where, before the first frame already."""
        self.place()
        yield from self._fixed

    def on_mount(self) -> None:
        """Start the one clock of this screen."""
        self.pulse()
        self.agents.focus()
        self.run_worker(self._beat(), name="pulse")

    # Time

    async def _beat(self) -> None:
        async for _ in beats(self.desk.mirror, self._pulse):
            self.pulse()

    def pulse(self) -> None:
        """Take what has changed since the last pulse, and repaint that."""
        mirror = self.desk.mirror
        now = mirror.clock.now()
        second = int(now.timestamp())
        if self._painted[:1] != (second,):
            mirror.tick(now)
        self._survey()
        tell_news(self.app, mirror.presence)
        streamed = self.feed.update()
        versions = mirror.versions
        stamp = (second, versions.status, versions.stepups, versions.roster)
        if stamp != self._painted:
            self._painted = stamp
            self.place()
            self.paint_all()
        elif streamed:
            self.audit.paint()
        if self.feed.filter:
            self.audit.fetch()

    def _survey(self) -> None:
        """Look who needs a person: once a second, seldomer if there are very many."""
        clock, versions = self.desk.mirror.clock, self.desk.mirror.versions
        started = clock.boot()
        standing = (versions.roster, versions.stepups)
        if started < self._survey_due and standing == self._surveyed:
            return
        quiet = versions.agents == self._surveyed_agents
        self._surveyed, self._surveyed_agents = standing, versions.agents
        self.view.update()
        took = clock.boot() - started
        wait = _QUIET_SURVEY if quiet else 1.0 - self._pulse / 2
        self._survey_due = started + max(wait, took * _SURVEY_SHARE)

    def paint_all(self) -> None:
        """Repaint what differs."""
        for pane in self._fixed:
            pane.paint()
        self._show_keys()

    # Place

    def place(self) -> None:
        """Put everything in its place for this size."""
        width, height = self.app.size
        boxes = plan(
            width,
            height,
            Wanted(
                masthead=self.masthead.wanted(width),
                waiting=bool(self.desk.mirror.open_stepups()),
                filtering=self.filtering,
                big=self._big.id or "agents",
            ),
        )
        if boxes == self._boxes:
            return
        self._boxes = boxes
        for widget in (*self._fixed, *([self.bar] if self.bar else [])):
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
        focused = self.focused
        if isinstance(focused, AgentPane | AuditPane | DetailsPane):
            self._big = focused
        self.place()
        self._show_keys()

    def _panes(self) -> list[Pane]:
        panes: list[Pane] = [self.agents, self.audit]
        if self.details.display:
            panes.insert(1, self.details)
        return panes

    def _step(self, direction: int) -> None:
        panes = self._panes()
        here = panes.index(self._big) if self._big in panes else 0
        self._focus(panes[(here + direction) % len(panes)])

    def _focus(self, pane: Widget) -> None:
        if isinstance(pane, Pane):
            self._big = pane
            self.place()
        self.set_focus(pane)

    def _show_keys(self) -> None:
        """Name the keys that fit the focus."""
        status, agent = self.desk.mirror.status, self.agents.agent
        place: Place = "agents"
        if self.bar is not None and self.bar.typing:
            place = "naming" if self.bar.naming else "filter"
        elif self.focused is self.audit:
            place = "audit"
        elif self.focused is self.details:
            place = "details"
        self.keybar.show(
            keys(
                Focus(
                    place,
                    "none" if not agent else "revoked" if agent.revoked else "active",
                    bool(self.desk.mirror.open_stepups()),
                    self.feed.follow,
                    status.panic.on,
                    not self.desk.read_only,
                )
            )
        )

    # Filter

    def narrow(self, text: str) -> None:
        """Filter as it is typed."""
        wanted = Filter.parse(text)
        if self.bar is not None:
            self.bar.complain(wanted.problem)
        self.view.narrow(wanted)
        self.feed.narrow(wanted)
        self.place()
        self.paint_all()
        self.audit.fetch()

    def back(self) -> None:
        """Give the focus back to the pane that had it."""
        self._focus(self._big)

    def action_out(self) -> None:
        """Take one step out: filter, details, hold."""
        if self.leave_filter():
            return
        if self._big is self.details:
            self._focus(self.agents)
        elif not self.feed.follow:
            self.audit.action_follow()
        elif self._big is self.audit:
            self._focus(self.agents)

    # Moving

    def action_next(self) -> None:
        """Go to the next pane."""
        self._step(1)

    def action_previous(self) -> None:
        """Go to the pane before."""
        self._step(-1)

    def action_follow(self) -> None:
        """Hold the audit, or follow it."""
        self.audit.toggle()
        self._show_keys()

    def action_time(self) -> None:
        """Look back: to the event that is held, or from the last one."""
        from agentvault_tui.console.screens.past import (  # noqa: PLC0415 - see Deciding
            look_back,
        )

        self.run_worker(
            look_back(self, pulse=self._pulse), group="past", exclusive=True
        )

    @on(AgentPane.Moved)
    def follow_cursor(self) -> None:
        """Show the details of the agent under the cursor."""
        self.details.paint()
        self._show_keys()

    @on(AgentPane.Opened)
    @on(DetailsPane.Opened)
    def open_agent(self) -> None:
        """Show everything about the agent under the cursor, over this screen."""
        from agentvault_tui.console.screens.agent import (  # noqa: PLC0415 - see Deciding
            AgentScreen,
        )

        if agent := self.chosen:
            self.app.push_screen(
                AgentScreen(self.desk, self.link, agent.id, pulse=self._pulse)
            )

    @on(AuditPane.Moved)
    def follow_audit(self) -> None:
        """Name the keys that fit."""
        self._show_keys()

    @on(AuditPane.Opened)
    def open_event(self) -> None:
        """Show the event under the cursor in full, on the audit screen."""
        if event := self.feed.under_cursor:
            self.open_audit(event.seq, full=True)

    def action_audit(self) -> None:
        """Show the audit at full size, where it is held."""
        self.open_audit(None if self.feed.follow else self.feed.cursor)

    def open_audit(
        self, seq: int | None, *, full: bool = False, filter_: str | None = None
    ) -> None:
        """Open the audit screen, at an event and with a filter; or as it is here."""
        from agentvault_tui.console.screens.audit import (  # noqa: PLC0415 - no first
            AuditScreen,
        )

        here = self.bar.text if self.bar else ""
        text = here if filter_ is None else filter_
        screen = AuditScreen(self.desk, self.link, pulse=self._pulse, filter_=text)
        if seq is not None:
            screen.begin_at(seq, full=full)
        self.app.push_screen(screen)

    def action_agent(self) -> None:
        """Put the cursor on the agent of the event under the cursor."""
        event = self.feed.under_cursor
        if event is not None and event.agent_id:
            self.visit(event.agent_id)

    def visit(self, agent_id: str) -> None:
        """Put the cursor on an agent."""
        self.view.go(agent_id)
        self._focus(self.agents)
        self.paint_all()

    # What keys act on

    @property
    def chosen(self) -> AgentRow | None:
        """The agent under the cursor of the agent pane, wherever the focus is."""
        return self.agents.agent

    def action_copy(self) -> None:
        """Copy the id of what is under the cursor; never a secret, there is none."""
        agent, event = self.agents.agent, self.feed.under_cursor
        what = ""
        if self.focused is self.audit and event is not None:
            what = event.decision_id or f"{event.seq}"
            kind = "decision" if event.decision_id else "event number"
        elif agent is not None:
            what, kind = agent.id, f"agent id of {agent.name}"
        if what:
            self.copy(kind, what)
