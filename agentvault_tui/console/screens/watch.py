"""The home screen: agents, waiting requests, and the audit as it happens."""

from __future__ import annotations

from itertools import takewhile
from typing import ClassVar, Final

from textual import on
from textual.app import App
from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.layout import Box, bar_rows, plan
from agentvault_tui.console.messages import ShowAudit, ShowPast
from agentvault_tui.console.screens.base import TYPING_KEYS, follow_key
from agentvault_tui.console.screens.filtered import FilteredScreen
from agentvault_tui.console.state.agents import STILL, AgentView
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.presence import OperatorsPresent
from agentvault_tui.console.widgets.agents import (
    AgentMoved,
    AgentOpened,
    AgentPane,
    DetailsPane,
)
from agentvault_tui.console.widgets.audit import EventMoved, EventOpened, FeedPane
from agentvault_tui.console.widgets.pane import Pane, Rule
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.outcomes import ROUTINE
from agentvault_tui.presenters.records import AgentRow

_NEWS_SECONDS: Final = 6
_NEWS_AT_ONCE: Final = 3
_FILTERING: Final = (
    *TYPING_KEYS,
    *(("Tab", "complete"), ("ctrl+s", "save"), ("ctrl+o", "saved")),
)
_NAMING: Final = (("Enter", "save"), ("Esc", "back to the filter"))


def tell_news(app: App[object], presence: OperatorsPresent) -> None:
    """Show the news, a few lines at most; a dialog has it in its lower edge.

    There a toast would lie over the keys that decide.
    """
    if not presence.news:
        return
    news = list(presence.news)
    presence.news.clear()
    if app.screen.is_modal:
        return
    for text in news[-_NEWS_AT_ONCE:]:
        app.notify(text, markup=False, timeout=_NEWS_SECONDS)
    if len(news) > _NEWS_AT_ONCE:
        more = f"and {len(news) - _NEWS_AT_ONCE} more decisions by others"
        app.notify(more, markup=False, timeout=_NEWS_SECONDS)


_HELP: Final = 8
"""Lines that say how to register the first agent."""
_QUIET_SURVEY: Final = 3.0
"""Seconds between looks at all agents while nothing happens."""
_SURVEY_SHARE: Final = 20
"""Looking at all agents may take one part in this many of the time."""


class Watch(FilteredScreen):
    """The home screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("L", "audit", "the audit at full size"),
        Binding("o", "agent", "go to the event's agent"),
        Binding("t", "time", "look back in time"),
        Binding("i", "acknowledge", "acknowledge: let it leave the top"),
    ]

    PANES = (AgentPane, DetailsPane, FeedPane)

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.view = AgentView(desk.mirror)
        self.feed = EventWindow(desk.mirror, collapse=True, news=not desk.past)
        self.agents = AgentPane(desk, self.view)
        self.details = DetailsPane(desk, self.agents)
        self.audit = FeedPane(desk, self.feed)
        self.rules = (Rule(desk, id="rule"), Rule(desk, id="rule2"))
        self.panes = (
            self.masthead,
            self.waiting,
            self.agents,
            self.details,
            *self.rules,
            self.audit,
            self.keybar,
        )
        self.big = self.agents
        self._barred = 0, (0, 0), 0.0
        """The rows of the bar, for which size, and until when they stay."""
        self._ticked = -1
        self._survey_due = 0.0
        self._surveyed = (-1, -1)
        self._surveyed_agents = -1
        self._fed = 0
        """The last event that the feed was painted with."""

    def on_mount(self) -> None:
        self.agents.focus()
        self.begin()

    # Time

    def take(self) -> None:
        """Take the stream, and repaint unless another screen covers this one."""
        mirror = self.desk.mirror
        if self.second != self._ticked:
            self._ticked = self.second
            mirror.tick(mirror.clock.now())
        tell_news(self.app, mirror.presence)
        self.desk.absence.take(mirror)
        streamed = self.feed.update()
        if self.covered:
            return
        self._survey()
        if self.repaint() or (streamed and self._feed_due()):
            self._fed = mirror.last_seq
            self.audit.paint()
        if self.feed.filter:
            self.audit.fetch()

    def _feed_due(self) -> bool:
        """Check whether to paint the feed now.

        If more routine came than the pane has rows, it cannot be read, and a frame a
        second, with all else, shows as much. A row that matters is painted at once.
        """
        events = reversed(self.desk.mirror.events)
        fresh = takewhile(lambda row: row.seq > self._fed, events)
        words = [row.word for row in fresh]
        return len(words) <= self.audit.size.height or not ROUTINE.issuperset(words)

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
        wait = _QUIET_SURVEY if quiet else 1.0 - self.desk.pulse / 2
        self._survey_due = started + max(wait, took * _SURVEY_SHARE)

    # Place

    def plan(self, width: int, height: int) -> dict[str, Box]:
        return plan(
            width,
            height,
            masthead=self.masthead.wanted(width),
            bar=self._bar(width, height),
            filtering=self.filtering,
            big=(self.big and self.big.id) or "agents",
            agents=max(len(self.view.order), 1 if self.desk.mirror.agents else _HELP),
        )

    def _bar(self, width: int, height: int) -> int:
        """Return the rows of the bar: after a decision as many, for a few seconds."""
        now, size = self.desk.mirror.clock.boot(), (width, height)
        rows = bar_rows(width, height, len(self.desk.mirror.open_stepups()))
        before, then, until = self._barred
        if rows < before and size == then and now < until:
            return before
        self._barred = rows, size, now + STILL
        return rows

    def stops(self) -> list[Pane]:
        panes: list[Pane] = [self.agents, self.audit]
        if self.details.display:
            panes.insert(1, self.details)
        return panes

    def show_keys(self) -> None:
        """Name the keys of the focus: a typed filter, an event, or an agent."""
        if self.bar is not None and self.bar.typing:
            self.keybar.show(_NAMING if self.bar.naming else _FILTERING)
            return
        follow, audit = follow_key(self.feed.follow), self.focused is self.audit
        keys = self.named("step-ups")
        if audit:
            keys += [follow, ("Enter", "event"), ("o", "agent")]
        elif self.chosen is not None:
            keys += self.named("revoke", "restore")
        keys += self.named("panic")
        keys += [("0", "all" if self.feed.notable else "matters")]
        if not audit and self.chosen is not None:
            keys += [*self.named("acknowledge"), ("Enter", "agent")]
        keys += [("/", "filter"), *self.named("calls"), (":", "command")]
        keys += [] if audit else [follow]
        keys += [("L", "audit"), ("t", "time"), ("Tab", "pane"), ("y", "copy id")]
        self.hint(*keys)

    # Filter

    def narrow(self, wanted: Filter) -> None:
        self.view.narrow(wanted)
        self.feed.narrow(wanted)
        self.place()
        self.paint_all()
        self.audit.fetch()

    def back(self) -> None:
        self.focus_on(self.big or self.agents)

    def action_out(self) -> None:
        """Take one step out: filter, details, hold."""
        if self.leave_filter():
            return
        if self.big is self.details:
            self.focus_on(self.agents)
        elif self.audit.fold():
            return
        elif not self.feed.follow:
            self.audit.action_follow()
        elif self.big is self.audit:
            self.focus_on(self.agents)

    # Moving

    def action_follow(self) -> None:
        self.audit.toggle()
        self.show_keys()

    def action_time(self) -> None:
        """Look back: to the event that is held, or from the last one."""
        self.app.post_message(ShowPast())

    @on(AgentMoved)
    def follow_cursor(self) -> None:
        self.details.paint()
        self.show_keys()

    @on(AgentOpened)
    def open_agent(self) -> None:
        """Show everything about the agent under the cursor, over this screen."""
        self.show_agent()

    @on(EventMoved)
    def follow_audit(self) -> None:
        self.show_keys()

    @on(EventOpened)
    def open_event(self) -> None:
        """Show the event under the cursor in full, on the audit screen."""
        if event := self.feed.under_cursor:
            self.show_audit(event.seq, full=True)

    def action_audit(self) -> None:
        self.show_audit(None if self.feed.follow else self.feed.cursor)

    def show_audit(self, seq: int | None, *, full: bool = False) -> None:
        """Show the audit screen, with the filter that is on here."""
        text = self.bar.text if self.bar else ""
        self.app.post_message(ShowAudit(text, seq, full=full))

    def action_agent(self) -> None:
        event = self.feed.under_cursor
        if event is not None and event.agent_id:
            self.visit(event.agent_id)

    def visit(self, agent_id: str) -> None:
        self.view.go(agent_id)
        self.focus_on(self.agents)
        self.paint_all()

    # What keys act on

    def applies(self, name: str | None) -> bool:
        if name == "acknowledge":
            if self.desk.past:
                return False
            look = self.view.look(self.view.cursor or "")
            return bool(look.misbehaved or look.revoked_lately)
        return super().applies(name)

    def target(self, name: str) -> str:
        if name != "agent":
            return super().target(name)
        # The newest event of a feed that follows is another one a moment later.
        event = None if self.feed.follow else self.feed.under_cursor
        has_agent = event is not None and event.agent_id
        return (
            self.desk.mirror.agent_name(event.agent_id) if event and has_agent else ""
        )

    def action_acknowledge(self) -> None:
        """Let the agent under the cursor leave the top, until it misbehaves again."""
        agent = self.chosen
        if not self.refuses_past() and agent and self.view.acknowledge(agent.id):
            self.paint_all()

    @property
    def chosen(self) -> AgentRow | None:
        """The agent under the cursor of the agent pane, wherever the focus is."""
        return self.agents.agent

    def action_copy(self) -> None:
        """Copy the id under the cursor; there is no secret to copy."""
        event = self.feed.under_cursor
        if self.focused is self.audit and event is not None:
            self.copy_event(event)
        else:
            self.copy_agent()
