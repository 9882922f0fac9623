"""Commands of plain mode that read mirror and ledger."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from agentvault_tui.clock import span
from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.stepup_reads import ChangeLines
from agentvault_tui.console.link.export import Export, read_path, suggestion
from agentvault_tui.console.link.past import look
from agentvault_tui.console.plain import sentences
from agentvault_tui.console.plain.announcer import Announcer, Command
from agentvault_tui.console.state.completion import read_filter
from agentvault_tui.console.state.folds import fold
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.past import PastMirror, parse_past_moment, when
from agentvault_tui.console.state.verdicts import LinkVerdicts
from agentvault_tui.errors import AgentVaultError, UsageError
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.presenters.body import unread
from agentvault_tui.presenters.evidence import EventEvidence, evidence
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.moments import LedgerMoment, ago, plural
from agentvault_tui.presenters.records import AgentRow, BodyView, EventRow, StepUpRow
from agentvault_tui.presenters.stepup_rows import PastDecisions, StepUpFacts
from agentvault_tui.text import Shown


def find_stepup(mirror: Mirror, what: str) -> StepUpRow | None:
    """Find by id, or by a fingerprint that only one has; open ones come first."""
    rows = mirror.stepups
    if exact := rows.get(what):
        return exact
    same = [row for row in rows.values() if row.fingerprint == what.upper()]
    waiting = [row for row in same if row.open]
    matches = waiting or same
    return matches[0] if len(matches) == 1 else None


def find_agent(mirror: Mirror, what: str) -> AgentRow | None:
    """Find by id, or by a name that only one has."""
    agents = mirror.agents
    if what in agents:
        return agents[what]
    matches = [agent for agent in agents.values() if agent.name == what]
    return matches[0] if len(matches) == 1 else None


def find_agent_first(mirror: Mirror, text: str) -> tuple[AgentRow | None, str]:
    """Find the agent a line begins with, and the rest; names may have spaces."""
    what, _, rest = text.partition(" ")
    if what in mirror.agents:
        return mirror.agents[what], rest.strip()
    names = {agent.name for agent in mirror.agents.values()}
    begun = [name for name in names if f"{text} ".startswith(f"{name} ")]
    name = max(begun, key=len, default=what)
    return find_agent(mirror, name), text[len(name) :].strip()


def nearest_name(mirror: Mirror, what: str) -> str:
    """Return the agent's name a word was meant for, most likely; empty if none is."""
    names = sorted({agent.name for agent in mirror.agents.values()})
    begun = [name for name in names if what and name.startswith(what)]
    near = begun or difflib.get_close_matches(what, names, n=1)
    return near[0] if near else ""


_EVENTS: Final = 20
"""Events of the audit printed at once."""
_PAGE, _PAGES = 250, 40
"""How far back they are looked for before the operator is asked to go on."""
_EVENT: Final = re.compile(r"#([0-9][0-9,]{0,23})(\s+raw)?", re.ASCII)
_FILES: Final = (".jsonl", ".csv")


def event_asked(text: str) -> tuple[int, bool] | None:
    """Read ``#1842`` or ``#1842 raw``: an event's number, and whether its body too."""
    match = _EVENT.fullmatch(text)
    return (int(match[1].replace(",", "")), bool(match[2])) if match else None


class ReadCommands:
    """Print the mirror's state, and read the rest from the broker."""

    def __init__(self, desk: Desk, announcer: Announcer) -> None:
        self.desk = desk
        self.mirror = desk.mirror
        self.link = desk.link
        self.announcer = announcer
        self.say = announcer.say
        self._printed: AgentRow | StepUpRow | None = None
        self._told_before: AgentRow | StepUpRow | None = None
        self._older: tuple[str, int] | None = None
        """The last printed filter, and the event before which it goes on."""

    def commands(self) -> Iterable[Command]:
        """Return the commands that only print."""
        return (
            Command("list [filter]", "agents, and the step-ups that wait", self._list),
            Command(
                "show NAME, ID or #1842",
                "all about an agent, a step-up or an event",
                self._show,
            ),
            Command("audit [filter]", "the last events that match", self._audit),
            Command("older", "the events before those told last", self._go_on),
            Command(
                "export [FILE] [filter]",
                "write events to a .jsonl or .csv file",
                self._export,
            ),
            Command("past TIME or #1842", "what there was then", self._past),
            Command("calls", "calls in flight and held", self._calls),
            Command("tree [NAME]", "tokens that agents delegated", self._tree),
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
        self._told_before, self._printed = self._printed, None
        self.link.look(None)

    # What there is

    async def _list(self, text: str) -> None:
        mirror = self.mirror
        waiting = mirror.open_stepups()
        now = mirror.clock.now()
        self.say(*(sentences.of_stepup(row, now) for row in waiting))
        self.say(f"{plural(len(waiting), 'step-up')} waiting.")
        wanted, held = self.filter(text), {row.agent_id for row in waiting}
        matches = [
            a
            for a in mirror.agents.values()
            if wanted.agent(a, mirror, held, mirror.counts(a.id))
        ]
        self.say(*(sentences.agent_line(mirror, agent) for agent in matches))
        total = mirror.population()
        hidden = len(mirror.agents) - len(matches)
        self.say(
            f"{len(matches):,} of {total}, {hidden:,} hidden." if text else f"{total}."
        )

    async def _calls(self, _: str) -> None:
        mirror = self.mirror
        now, rows = mirror.clock.now(), mirror.calls.values()
        ordered = sorted(rows, key=lambda row: (not row.held, row.started_at))
        self.say(*(sentences.of_call(row, now) for row in ordered))
        self.say(f"{plural(len(ordered), 'call')} in flight or held.")

    async def _tree(self, what: str) -> None:
        """Print the holders of delegated tokens, each below the parent."""
        agent = find_agent(self.mirror, what) if what else None
        if what and agent is None:
            self.unknown("agent", what)
            return
        try:
            rows = await self.link.tree(agent.id if agent else None)
        except AgentVaultError as error:
            self.say(f"Not read: {self.mirror.intake.shown(error.diagnosis(), 300)}")
            return
        now = self.mirror.clock.now()
        self.say(*(sentences.of_delegated(row, now) for row in rows))
        delegated = sum(row.tokens for row in rows if row.depth)
        self.say(f"{plural(delegated, 'delegated token')}.")

    async def _status(self, _: str) -> None:
        self.say(*sentences.status(self.mirror))

    async def _who(self, _: str) -> None:
        presence, stepups = self.mirror.presence, self.mirror.stepups
        self.say(*(sentences.of_operator(row, stepups) for row in presence.others))
        if presence.unlisted:
            self.say(f"{plural(presence.unlisted, 'more stream')}, not listed.")
        if not presence.others:
            sentence = "Nobody else is connected." if presence.you else "Nobody knows."
            self.say(sentence)
        if presence.me and presence.me.signed_in:
            self.say(f"You are {presence.me.display_name}.")

    # All about one thing

    async def _show(self, what: str) -> None:
        if seq := event_asked(what):
            await self._tell_event(seq[0], raw=seq[1])
        elif row := find_stepup(self.mirror, what):
            self._told_before = None
            await self.tell_stepup(row)
            now = self.mirror.clock.now()
            self.say(*sentences.of_device(row, now, self.desk))
        elif agent := find_agent(self.mirror, what):
            self._told_before = None
            await self.tell_agent(agent)
        else:
            self.unknown("agent or step-up", what)

    async def tell_agent(self, agent: AgentRow) -> None:
        """Print all about an agent, unless the command just before has done that."""
        self._printed = agent
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

    async def tell_stepup(self, row: StepUpRow) -> bool:
        """Write all of a request, unless the command just before has done that.

        Args:
            row: the request.

        Returns:
            whether that is all: False if the lines of a change could not be read.
        """
        self.link.look(row.id)
        self._printed = row
        if row == self._told_before:
            self.say(f"{sentences.gist(row)} All of it stands above.")
            return True
        now = self.mirror.clock.now()
        try:
            rows = await self.link.before(row.id)
        except AgentVaultError as error:
            past = PastDecisions(problem=self.mirror.intake.shown(error.what))
        else:
            past = PastDecisions(rows)
        agent = self.mirror.agents.get(row.agent_id)
        owner = agent.owner if agent else Shown("")
        body = await self._body(row)
        lines = ChangeLines(self.desk, row)
        if lines.missing:
            await lines.read()
        facts = StepUpFacts(row, owner, past, now, body, lines.shown)
        self.say(*sentences.facts(facts))
        if lines.missing:
            self._printed = None  # they are read again with the next command
        return not lines.missing

    async def _body(self, row: StepUpRow) -> BodyView | None:
        """Read the body of a held call, or the reason why it cannot be shown."""
        if row.request is None:
            return None
        try:
            return await self.link.body(row.id, row.request)
        except AgentVaultError as error:
            return unread(row.request, self.mirror.intake.shown(error.what))

    # What is told by itself

    async def _events(self, which: str) -> None:
        few = which in {"all", "few", ""}
        wanted = Filter() if few else self.filter(which)
        every = self.announcer.all = which == "all"
        self.announcer.filter = wanted
        if wanted:
            self.say("Only what matches is told. events few ends that.")
        else:
            self.say(
                "Every event is told." if every else "The daily round is not told."
            )

    async def _hold(self, _: str) -> None:
        self.announcer.hold()
        self.say("Events are held; step-ups are still told. follow goes on.")

    async def _follow(self, _: str) -> None:
        missed = self.announcer.follow()
        note = f" {plural(missed, 'event')} meanwhile; audit tells the last."
        self.say(f"Events are told as they come.{note if missed else ''}")

    # Words

    def unknown(self, kind: str, what: str) -> None:
        """Say that a word names nothing, and the name that is nearest to it."""
        shown = self.mirror.intake.shown(what, 60) or "nothing"
        near = nearest_name(self.mirror, what)
        hint = f"Did you mean {near}? " if near else ""
        self.say(
            f"No single {kind} is called {shown}. {hint}Type list; ids always work."
        )

    # What the ledger holds

    async def _tell_event(self, seq: int, *, raw: bool) -> None:
        """Print an event as the audit screen does: members, story, and its link."""
        mirror, checked = self.mirror, LinkVerdicts(self.mirror)
        try:
            page = await self.link.audit(AuditQuery(after=seq - 1, limit=1))
            if not page.rows or page.rows[0].seq != seq:
                self.say(f"There is no event {seq:,}: the last is {mirror.last_seq:,}.")
                return
            proofs = await self.link.links([seq])
            story, complete = await self.link.story(seq)
        except AgentVaultError as error:
            self._failed("Not read", error)
            return
        (row,) = page.rows
        checked.take([row], proofs)
        proof = proofs[0] if proofs else None
        shown_evidence = EventEvidence(proof, tuple(story), complete, mirror.last_seq)
        rows = evidence(
            sentences.PEN,
            mirror,
            row,
            shown_evidence,
            checked.problem(seq),
            width=sentences.WIDTH,
            raw=raw,
            raw_key=f"show #{seq} raw",
        )
        self.say(f"Event {seq:,}", *sentences.written(rows))

    # The audit

    async def _audit(self, text: str) -> None:
        await self._tell_before(text, self.mirror.last_seq + 1)

    async def _go_on(self, _: str) -> None:
        if self._older is None:
            self.say("There are no older ones: audit begins at the last event.")
        else:
            await self._tell_before(*self._older)

    async def _tell_before(self, text: str, before: int) -> None:
        """Print the last events before one that match, the oldest first."""
        wanted = self.filter(text)
        try:
            events, rest = await self._last_events(wanted, before)
        except AgentVaultError as error:
            self._failed("Not read", error)
            return
        mirror = self.mirror
        self.say(
            *(
                f"#{one.head.seq} {sentences.of_row(mirror, one)}"
                for one in fold(events)
            )
        )
        if not events:
            self.say("No event matches." if wanted else "Nothing is recorded yet.")
        self._older = (text, rest) if rest else None
        if rest:
            self.say(f"older goes on before event {rest:,}.")

    async def _last_events(
        self, wanted: Filter, before: int
    ) -> tuple[list[EventRow], int | None]:
        """Return events that match, and before which looking goes on, if it does."""
        mirror, now = self.mirror, self.mirror.clock.now()
        query = wanted.query(mirror.agents, now, text=True)
        events: list[EventRow] = []
        rest: int | None = before
        for _ in range(_PAGES):
            page = await self.link.audit(replace(query, before=rest, limit=_PAGE))
            for row in page.rows:
                if wanted.event(row, mirror, now):
                    events.insert(0, row)
                if len(events) == _EVENTS:
                    return events, row.seq if row.seq > 1 else None
            rest = page.next
            if rest is None:
                break
        return events, rest

    async def _export(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        if not name.endswith(_FILES):
            name, text = suggestion(self.mirror.clock.now()), rest
        wanted = self.filter(text)
        if wanted.problem:
            self.say("Nothing was written.")
            return
        began = self.mirror.clock.boot()
        try:
            path = read_path(name)
            export = Export(self.link, wanted)
            # Also what was decided a moment ago, and has not been told here yet.
            newest = await self.link.audit(AuditQuery(limit=1))
            export.upto = max([export.upto, *(row.seq for row in newest.rows)])
            await export.run(path)
        except UsageError as error:
            self._failed("Not written", error)
        except AgentVaultError as error:
            self._failed("Not written, and no file was left", error)
        else:
            took = span(self.mirror.clock.boot() - began)
            where = self.mirror.intake.shown(str(path), 800)
            many = plural(export.written, "event")
            self.say(f"{many} written to {where}, mode 0600, in {took}.")

    # The past

    async def _past(self, text: str) -> None:
        """Print the state at a moment; nothing of it can be decided about."""
        mirror, past = self.mirror, PastMirror(self.mirror)
        if not mirror.last_seq:
            self.say("Nothing is recorded yet.")
            return
        now = mirror.clock.now()
        try:
            past.fill(*await look(self.link, LedgerMoment(seq=mirror.last_seq)))
            aim = parse_past_moment(text, past, past.place, now)
            if isinstance(aim, str):
                self.say(aim)
                return
            past.fill(*await look(self.link, aim))
        except AgentVaultError as error:
            self._failed("Not read", error)
            return
        then = past.clock.now()
        self.say(f"THE PAST, {when(then, now)}, {ago(then, now)}:")
        self.say(*(f"  {line}" for line in _then(past)))

    # Words

    def filter(self, text: str) -> Filter:
        """Read a filter, or a saved one by its name, and print its fault."""
        wanted = read_filter(text, self.desk.saved, self.mirror)
        if wanted.problem:
            shown = self.mirror.intake.shown(wanted.problem, 200)
            self.say(f"In the filter, {shown}.")
        return wanted

    def _failed(self, words: str, error: AgentVaultError) -> None:
        self.say(f"{words}: {self.mirror.intake.shown(error.diagnosis(), 300)}.")


def _then(past: PastMirror) -> Iterable[str]:
    panic, now = past.status.panic, past.clock.now()
    if panic.on:
        yield f"PANIC: everything was stopped,{panic.cause}"
    for row in past.open_stepups():
        yield sentences.waited(row, now)
    yield f"{plural(len(past.open_stepups()), 'step-up')} waited."
    yield from (sentences.agent_line(past, agent) for agent in past.agents.values())
    yield f"{plural(len(past.agents), 'agent')}."
