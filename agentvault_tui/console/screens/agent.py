"""One agent's screen: identity, permissions, tokens, actions, revocation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

from msgspec import structs
from textual import on
from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.advice import AdviceDialog
from agentvault_tui.console.draw.layout import Box, plan_agent
from agentvault_tui.console.messages import ShowAudit
from agentvault_tui.console.screens.base import PaneScreen, follow_key
from agentvault_tui.console.widgets.agent import DayPane, EventsPane, FactsPane, WhoPane
from agentvault_tui.console.widgets.audit import EventMoved, EventOpened
from agentvault_tui.console.widgets.pane import Pane, Rule
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.operator_api.calls import GIVE_BACK
from agentvault_tui.presenters.activity import day_of
from agentvault_tui.presenters.records import AgentRow

_PULSES_A_READ: Final = 8
"""Counts are read again once in so many pulses, and only if the agent did something."""
_OLD: Final = 60.0
"""Seconds after which they are read anyway: the day moves on by itself."""


class AgentScreen(PaneScreen):
    """Show one agent; the agent stays the same whatever moves below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("L", "audit", "its audit at full size"),
        Binding("t", "now", "back to now", id="time"),
        Binding("b", "give_back", "restore what a trial took"),
    ]

    PANES = (FactsPane, EventsPane, DayPane)

    def __init__(self, desk: Desk, agent_id: str) -> None:
        super().__init__(desk)
        self.agent_id = agent_id
        self.who = WhoPane(desk, agent_id)
        self.day = DayPane(desk)
        self.facts = FactsPane(desk, agent_id)
        self.events = EventsPane(desk, agent_id)
        self.panes = (
            self.masthead,
            self.waiting,
            self.who,
            self.day,
            self.facts,
            Rule(desk, id="rule"),
            self.events,
            self.keybar,
        )
        self.big = self.facts
        self._counted: object = None
        """The agent's actions when its counts were read."""
        self._counted_at = float("-inf")
        self._counting = False

    def on_mount(self) -> None:
        self.facts.focus()
        self.begin()

    # Time

    def take(self) -> None:
        self._count()
        streamed = self.events.feed.update()
        if self.covered:
            return
        if not self.repaint() and streamed:
            self.events.paint()
        self.events.fetch()

    def _did(self) -> object:
        """Return a value that changes with the agent's counts or revocation."""
        mirror, agent_id = self.desk.mirror, self.agent_id
        waiting = len(mirror.open_stepups(agent_id))
        revoked = agent_id in mirror.revoked
        counts = structs.astuple(mirror.counts(agent_id))
        return counts, mirror.live_tokens(agent_id), waiting, revoked

    def _count(self) -> None:
        """Read the counts if the agent did something, or the last reading is old."""
        now, did = self.desk.mirror.clock.boot(), self._did()
        age = now - self._counted_at
        due = did != self._counted and age >= self.desk.pulse * _PULSES_A_READ
        if self.desk.mirror.link.live and not self._counting and (due or age >= _OLD):
            self._counted, self._counted_at, self._counting = did, now, True
            work: Callable[[], Awaitable[None]] = self._read_counts
            self.run_worker(work, group="counts")

    async def _read_counts(self) -> None:
        """Show the broker's counts, or that the shown ones are old."""
        try:
            counts = await self.link.activity(self.agent_id)
        except AgentVaultError as error:
            self._counted = None  # tried again at the next calm moment
            self.facts.complain(self.desk.mirror.intake.shown(error.diagnosis(), 80))
        else:
            self.day.take(day_of(counts))
            self.facts.take(counts)
            self.place()
            self.show_keys()
        finally:
            self._counting = False

    def _count_anew(self) -> None:
        self._counted, self._counted_at = None, float("-inf")

    # Place

    def plan(self, width: int, height: int) -> dict[str, Box]:
        return plan_agent(
            width,
            height,
            masthead=self.masthead.wanted(width),
            waiting=bool(self.desk.mirror.open_stepups()),
            day=self._has_day,
            big=(self.big and self.big.id) or "facts",
        )

    def stops(self) -> list[Pane]:
        return [self.facts, self.events, *([self.day] if self._has_day else [])]

    @property
    def _has_day(self) -> bool:
        """Whether anything was asked for within the last 24 hours."""
        return self.day.day is not None and any(self.day.day.totals)

    def show_keys(self) -> None:
        keys = [("t", "now")] if self.desk.past else []
        keys += [("Esc", "back"), *self.named("revoke", "restore", "step-ups", "panic")]
        if self.on_trial is not None:
            keys.append(("b", "restore"))
        if self.big is self.day:
            keys.append(("h l", "quarter"))
        elif self.big is self.events:
            keys.append(("Enter", "event"))
        keys += [("Tab", "pane"), follow_key(self.events.feed.follow)]
        keys += [("L", "audit"), (":", "command"), ("y", "copy id")]
        self.hint(*keys)

    # What keys act on

    @property
    def chosen(self) -> AgentRow | None:
        return self.desk.mirror.agents.get(self.agent_id)

    def action_out(self) -> None:
        """Take one step out: of held events, then back."""
        if self.big is self.events and not self.events.feed.follow:
            self.events.action_follow()
        else:
            self.dismiss()

    def action_follow(self) -> None:
        self.events.toggle()
        self.show_keys()

    @on(EventOpened)
    def _open_event(self) -> None:
        """Show the event in full, among the others of this agent."""
        if event := self.events.feed.under_cursor:
            self._show_audit(event.seq, full=True)

    def action_audit(self) -> None:
        """Show all that this agent did at full size, where it is held."""
        feed = self.events.feed
        self._show_audit(None if feed.follow else feed.cursor)

    def _show_audit(self, seq: int | None, *, full: bool = False) -> None:
        text = f"agent:{self.agent_id}"
        self.app.post_message(ShowAudit(text, seq, full=full))

    @on(EventMoved)
    def _moved(self) -> None:
        self.show_keys()

    @property
    def on_trial(self) -> AdviceInfo | None:
        """The permission that a key restores: the one whose trial ends first."""
        activity = self.facts.activity
        return next(iter(activity.trials), None) if activity and self.decides else None

    def action_give_back(self) -> None:
        """Ask about the trial; the rest is on the screen of advice."""
        agent, one = self.chosen, self.on_trial
        if agent is not None and one is not None:
            dialog = AdviceDialog(self.desk, one, agent.name, "restore", GIVE_BACK)
            self.app.push_screen(dialog, lambda _: self._count_anew())

    def action_copy(self) -> None:
        """Copy the id under the cursor; there is no secret to copy."""
        event = self.events.feed.under_cursor
        if self.big is self.events and event is not None:
            self.copy_event(event)
        else:
            self.copy_agent()
