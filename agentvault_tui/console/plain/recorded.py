"""The commands that ask the ledger: one event, the audit, its export, the past."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from agentvault_tui.clock import span
from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw import theme
from agentvault_tui.console.draw.glyphs import ASCII
from agentvault_tui.console.draw.lines import Pen, plural
from agentvault_tui.console.link.link import Link
from agentvault_tui.console.link.past import look
from agentvault_tui.console.plain import sentences
from agentvault_tui.console.plain.command import Command
from agentvault_tui.console.state.checked import Checked
from agentvault_tui.console.state.evidence import Evidence, evidence
from agentvault_tui.console.state.export import Export, read_path, suggestion
from agentvault_tui.console.state.filters import Filter
from agentvault_tui.console.state.known import event_facts, read_filter
from agentvault_tui.console.state.past import (
    Aim,
    PastMirror,
    ago,
    read_aim,
    when,
)
from agentvault_tui.console.state.records import EventRow
from agentvault_tui.errors import AgentVaultError, UsageError

_EVENTS: Final = 20
"""Events of the audit told at once."""
_PAGE, _PAGES = 250, 40
"""How far back they are looked for before the operator is asked to go on."""
_WIDTH: Final = 78
"""Cells of the lines an event is told in."""
_EVENT: Final = re.compile(r"#([0-9][0-9,]{0,23})(\s+raw)?", re.ASCII)
_FILES: Final = (".jsonl", ".csv")


def event_asked(text: str) -> tuple[int, bool] | None:
    """Read ``#1842`` or ``#1842 raw``: an event's number, and whether its body too."""
    match = _EVENT.fullmatch(text)
    return (int(match[1].replace(",", "")), bool(match[2])) if match else None


class Recorded:
    """Asks the broker; what cannot be had is said."""

    def __init__(self, desk: Desk, link: Link, say: Callable[..., None]) -> None:
        self.desk = desk
        self.mirror = desk.mirror
        self.link = link
        self.say = say
        self._older: tuple[str, int] | None = None
        """The filter told last, and before which event it goes on."""

    def commands(self) -> Iterable[Command]:
        """Return them as the help names them."""
        return (
            Command("audit [filter]", "the last events that match", self._audit),
            Command("older", "the events before those told last", self._go_on),
            Command(
                "export [FILE] [filter]",
                "write events to a .jsonl or .csv file",
                self._export,
            ),
            Command("past TIME or #1842", "what there was then", self._past),
        )

    async def event(self, seq: int, *, raw: bool) -> None:
        """Tell an event as the audit screen does: members, story, and its link."""
        mirror, checked = self.mirror, Checked(self.mirror)
        try:
            page = await self.link.audit(after=seq - 1, limit=1)
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
        known = Evidence(proof, tuple(story), complete, mirror.last_seq)
        pen = Pen(theme.palette("mono"), ASCII)
        rows = evidence(
            pen,
            mirror,
            row,
            known,
            checked.problem(seq),
            width=_WIDTH,
            raw=raw,
            raw_key=f"show #{seq} raw",
        )
        lines = ("".join(text for text, _ in line).rstrip() for line in rows)
        self.say(f"Event {seq:,}", *(line for line in lines if line))

    # The audit

    async def _audit(self, text: str) -> None:
        await self._tell_before(text, self.mirror.last_seq + 1)

    async def _go_on(self, _: str) -> None:
        if self._older is None:
            self.say("There are no older ones: audit begins at the last event.")
        else:
            await self._tell_before(*self._older)

    async def _tell_before(self, text: str, before: int) -> None:
        """Tell the last events before one that match, the oldest first."""
        wanted = self.filter(text)
        try:
            found, rest = await self._last_events(wanted, before)
        except AgentVaultError as error:
            self._failed("Not read", error)
            return
        mirror = self.mirror
        self.say(*(f"#{row.seq} {sentences.of_event(mirror, row)}" for row in found))
        if not found:
            self.say("No event matches." if wanted else "Nothing is recorded yet.")
        self._older = (text, rest) if rest else None
        if rest:
            self.say(f"older goes on before event {rest:,}.")

    async def _last_events(
        self, wanted: Filter, before: int
    ) -> tuple[list[EventRow], int | None]:
        """Return events that match, and before which looking goes on, if it does."""
        mirror, now = self.mirror, self.mirror.clock.now()
        facts = event_facts(mirror)
        query = wanted.query(mirror.agents, now, text=True)
        found: list[EventRow] = []
        rest: int | None = before
        for _ in range(_PAGES):
            page = await self.link.audit(before=rest, limit=_PAGE, **query)
            for row in page.rows:
                if wanted.event(row, mirror.agent_name(row.agent_id), now, facts):
                    found.insert(0, row)
                if len(found) == _EVENTS:
                    return found, row.seq if row.seq > 1 else None
            rest = page.next
            if rest is None:
                break
        return found, rest

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
            newest = await self.link.audit(limit=1)
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
        """Tell what there was at a moment; nothing of it can be decided about."""
        mirror, past = self.mirror, PastMirror(self.mirror)
        if not mirror.last_seq:
            self.say("Nothing is recorded yet.")
            return
        now = mirror.clock.now()
        try:
            past.fill(*await look(self.link, Aim(seq=mirror.last_seq)))
            aim = read_aim(text, past, past.place, now)
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
        """Read a filter, or a saved one by its name, and tell what is wrong with it."""
        wanted = read_filter(text, self.desk.saved, self.mirror)
        if wanted.problem:
            shown = self.mirror.intake.shown(wanted.problem, 200)
            self.say(f"In the filter, {shown}.")
        return wanted

    def _failed(self, words: str, error: AgentVaultError) -> None:
        self.say(f"{words}: {self.mirror.intake.shown(error.diagnosis(), 300)}.")


def _then(past: PastMirror) -> Iterable[str]:
    """Tell what a mirror of the past holds."""
    panic, now = past.status.panic, past.clock.now()
    if panic.on:
        yield f"PANIC: everything was stopped, by {panic.by}: {panic.reason}"
    for row in past.open_stepups():
        yield sentences.waited(row, now)
    yield f"{plural(len(past.open_stepups()), 'step-up')} waited."
    yield from (sentences.agent_line(past, agent) for agent in past.agents.values())
    yield f"{plural(len(past.agents), 'agent')}."
