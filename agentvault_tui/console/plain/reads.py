"""The commands that read what the mirror knows, and say what is to be told."""

from __future__ import annotations

from collections.abc import Iterable

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.lines import plural
from agentvault_tui.console.draw.words import population
from agentvault_tui.console.link.link import Link
from agentvault_tui.console.plain import find, sentences
from agentvault_tui.console.plain.command import Command
from agentvault_tui.console.plain.recorded import Recorded, event_asked
from agentvault_tui.console.plain.teller import Teller
from agentvault_tui.console.state import before
from agentvault_tui.console.state.filters import Filter
from agentvault_tui.console.state.known import agent_facts
from agentvault_tui.console.state.records import AgentRow, StepUpRow
from agentvault_tui.errors import AgentVaultError


class Reads:
    """Tells what the mirror knows, and asks the broker for the rest."""

    def __init__(self, desk: Desk, link: Link, teller: Teller) -> None:
        self.desk = desk
        self.mirror = desk.mirror
        self.link = link
        self.teller = teller
        self.say = teller.say
        self.recorded = Recorded(desk, link, teller.say)
        self._told: AgentRow | StepUpRow | None = None
        self._told_before: AgentRow | StepUpRow | None = None

    def commands(self) -> Iterable[Command]:
        """Return them as the help names them."""
        return (
            Command("list [filter]", "agents, and the step-ups that wait", self._list),
            Command(
                "show NAME, ID or #1842",
                "all about an agent, a step-up or an event",
                self._show,
            ),
            *self.recorded.commands(),
            Command("status", "link, tenant, ledger, panic", self._status),
            Command("who", "the other operators, and what they look at", self._who),
            Command(
                "events all or few",
                "tell every event, or leave out the daily round of tokens",
                self._events,
            ),
            Command("events FILTER", "tell only the events that match", self._events),
            Command("hold", "tell no event, and count them", self._hold),
            Command("follow", "tell events again", self._follow),
        )

    def turn(self) -> None:
        """Begin another command: only the one just before it may have shown things."""
        self._told_before, self._told = self._told, None
        self.desk.actions.look(None)

    # What there is

    async def _list(self, text: str) -> None:
        mirror = self.mirror
        waiting = mirror.open_stepups()
        now = mirror.clock.now()
        self.say(*(sentences.of_stepup(row, now) for row in waiting))
        self.say(f"{plural(len(waiting), 'step-up')} waiting.")
        wanted, facts = self.recorded.filter(text), agent_facts(mirror)
        found = [a for a in mirror.agents.values() if wanted.agent(a, facts)]
        self.say(*(sentences.agent_line(mirror, agent) for agent in found))
        total = population(mirror)
        hidden = len(mirror.agents) - len(found)
        self.say(
            f"{len(found):,} of {total}, {hidden:,} hidden." if text else f"{total}."
        )

    async def _status(self, _: str) -> None:
        self.say(*sentences.status(self.mirror))

    async def _who(self, _: str) -> None:
        presence, stepups = self.mirror.presence, self.mirror.stepups
        self.say(*(sentences.of_operator(row, stepups) for row in presence.others))
        if presence.unlisted:
            self.say(f"{plural(presence.unlisted, 'more stream')}, not listed.")
        if not presence.others:
            known = "Nobody else is connected." if presence.you else "Nobody knows."
            self.say(known)
        if presence.me and presence.me.signed_in:
            self.say(f"You are {presence.me.known_as}.")

    # All about one thing

    async def _show(self, what: str) -> None:
        if asked := event_asked(what):
            await self.recorded.event(asked[0], raw=asked[1])
        elif row := find.stepup(self.mirror, what):
            self._told_before = None
            await self.tell_stepup(row)
            now = self.mirror.clock.now()
            self.say(*sentences.of_device(row, now, self.desk))
        elif agent := find.agent(self.mirror, what):
            self._told_before = None
            await self.tell_agent(agent)
        else:
            self.unknown("agent or step-up", what)

    async def tell_agent(self, agent: AgentRow) -> None:
        """Tell all about an agent, unless the command just before has done that."""
        self._told = agent
        if agent == self._told_before:
            return
        try:
            activity = await self.link.activity(agent.id)
        except AgentVaultError as error:
            self.say(*sentences.agent_facts(self.mirror, agent, None))
            shown = self.mirror.intake.shown(error.diagnosis(), 300)
            self.say(f"  What it did is not known: {shown}.")
        else:
            self.say(*sentences.agent_facts(self.mirror, agent, activity))

    async def tell_stepup(self, row: StepUpRow) -> None:
        """Tell all of a request, unless the command just before has done that."""
        self.desk.actions.look(row.id)
        self._told = row
        if row == self._told_before:
            self.say(f"{sentences.gist(row)} All of it stands above.")
            return
        now = self.mirror.clock.now()
        try:
            rows = await self.desk.actions.before(row.id)
        except AgentVaultError as error:
            past = [f"  Before: not known: {self.mirror.intake.shown(error.what)}"]
        else:
            past = [f"  Before: {before.tally(rows)}"]
            past += [f"    {line}" for line in before.sentences(rows, row, now)]
        agent = self.mirror.agents.get(row.agent_id)
        self.say(*sentences.facts(row, agent.owner if agent else "", now, past))

    # What is told by itself

    async def _events(self, which: str) -> None:
        few = which in {"all", "few", ""}
        wanted = Filter() if few else self.recorded.filter(which)
        every = self.teller.all = which == "all"
        self.teller.filter = wanted
        if wanted:
            self.say("Only what matches is told. events few ends that.")
        else:
            self.say(
                "Every event is told." if every else "The daily round is not told."
            )

    async def _hold(self, _: str) -> None:
        self.teller.hold()
        self.say("Events are held; step-ups are still told. follow goes on.")

    async def _follow(self, _: str) -> None:
        missed = self.teller.follow()
        told = f" {plural(missed, 'event')} meanwhile; audit tells the last."
        self.say(f"Events are told as they come.{told if missed else ''}")

    # Words

    def unknown(self, kind: str, what: str) -> None:
        """Say that a word names nothing, and the name that is nearest to it."""
        shown = self.mirror.intake.shown(what, 60) or "nothing"
        near = find.nearest(self.mirror, what)
        hint = f"Did you mean {near}? " if near else ""
        self.say(
            f"No single {kind} is called {shown}. {hint}Type list; ids always work."
        )
