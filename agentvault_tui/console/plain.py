"""The console line by line: no alternate screen, for screen readers and serial lines.

What happens is told in sentences; what is typed is a command.
The same safety as in the dialogs: a decision is confirmed by typing what it is about,
it acts on what was shown when it was asked for, and a line that comes within 600 ms
(a paste) confirms nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from agentvault_tui.clock import SystemClock
from agentvault_tui.console import before, find, glyphs, sentences
from agentvault_tui.console.actions import caution
from agentvault_tui.console.dialogs.desk import ARM_SECONDS, Desk
from agentvault_tui.console.filters import Filter
from agentvault_tui.console.known import agent_facts, read_filter
from agentvault_tui.console.lines import plural
from agentvault_tui.console.link import Link
from agentvault_tui.console.memory import Memory
from agentvault_tui.console.mirror import Mirror
from agentvault_tui.console.records import StepUpRow
from agentvault_tui.console.saved import SavedFilters
from agentvault_tui.console.teller import Teller
from agentvault_tui.console.typed import typed_lines
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.settings import Settings

_WORD: Final = "panic"
_PATIENCE: Final = 60.0
"""Seconds a question waits for its word, while what happens is held back."""
_HELP: Final = """\
list [filter]            agents, and the step-ups that wait
show NAME or ID          all about an agent or a step-up
approve ID               approve a step-up with a second factor
deny ID [reason]         deny a step-up; the agent reads the reason
revoke NAME [reason]     cut an agent off
restore NAME             serve an agent again
panic [reason]           stop everything
lift                     end the panic
who                      the other operators, and what they look at
events all or few        tell every event, or leave out the daily round of tokens
events FILTER            tell only events that match, as in outcome:denied agent:mail
help, quit
ID is a step-up's id or its four-letter fingerprint."""


def run(
    socket: Path,
    *,
    read_only: bool,
    settings: Settings,
    broker_note: str = "",
    config_folder: Path | None = None,
) -> int:
    """Run a session over the broker's *socket* until the operator leaves."""
    alphabet = glyphs.choose(settings.console.ascii, os.environ)
    mirror = Mirror(SystemClock(), ascii_only=alphabet.ascii_only)
    link = Link(mirror, socket, Memory(socket), read_only=read_only)
    link.face = "plain"
    saved = SavedFilters(config_folder)
    desk = Desk(mirror, link, alphabet, read_only=read_only, saved=saved)
    plain = Plain(desk, sys.stdout)
    if broker_note:
        plain.say(broker_note)
    try:
        asyncio.run(
            follow(plain, link, sys.stdin.fileno(), stay=not sys.stdin.isatty())
        )
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads any more; nor may the interpreter try to flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


async def follow(plain: Plain, link: Link, descriptor: int, *, stay: bool) -> None:
    """Follow the broker for as long as the session lasts."""
    following = asyncio.create_task(link.run())
    try:
        await plain.run(descriptor, stay=stay)
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


@dataclass(frozen=True, slots=True)
class _Pending:
    """A decision that waits for its word."""

    words: frozenset[str]
    asked_at: float
    act: Callable[[], Awaitable[Iterable[str]]]


class Plain:
    """One session; `take` a line, `news` tells what has changed."""

    def __init__(self, desk: Desk, out: TextIO) -> None:
        self.desk = desk
        self.mirror = desk.mirror
        self.teller = Teller(desk.mirror, out)
        self.over = False
        self._pending: _Pending | None = None
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "list": self._list,
            "show": self._show,
            "approve": self._approve,
            "deny": self._deny,
            "revoke": self._revoke,
            "restore": self._restore,
            "panic": self._panic,
            "lift": self._lift,
            "who": self._who,
            "events": self._events,
            "help": self._help,
            "quit": self._quit,
        }

    async def run(self, descriptor: int, *, stay: bool) -> None:
        """Tell and take until quit, or the end of input unless told to *stay*."""
        self.say("AgentVault, line by line. Type help for the commands, quit to leave.")
        tasks = {
            asyncio.create_task(self.teller.run()),
            asyncio.create_task(self._take_all(descriptor, stay=stay)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_all(self, descriptor: int, *, stay: bool) -> None:
        async for line in typed_lines(descriptor):
            await self.take(line)
            if self.over:
                return
        if stay:
            self.say("The input has ended. This goes on telling what happens.")
            await asyncio.Event().wait()

    def say(self, *lines: str) -> None:
        """Print whole lines."""
        self.teller.say(*lines)

    async def take(self, line: str) -> None:
        """Carry out one typed line."""
        if self._pending is not None:
            await self._answer(line.strip())
            return
        word, _, rest = line.strip().partition(" ")
        if not word:
            return
        command = self._commands.get(word.lower())
        if command is None:
            shown = self.mirror.intake.shown(word, 40)
            self.say(f"There is no command {shown}. Type help for those there are.")
            return
        self.desk.actions.look(None)
        await command(rest.strip())

    # Commands that read

    async def _list(self, text: str) -> None:
        mirror = self.mirror
        waiting = mirror.open_stepups()
        now = mirror.clock.now()
        self.say(*(sentences.of_stepup(row, now) for row in waiting))
        self.say(f"{plural(len(waiting), 'step-up')} waiting.")
        wanted, facts = self._filter(text), agent_facts(mirror)
        found = [a for a in mirror.agents.values() if wanted.agent(a, facts)]
        self.say(*(sentences.agent_line(mirror, agent) for agent in found))
        total = plural(len(mirror.agents), "agent")
        hidden = len(mirror.agents) - len(found)
        self.say(
            f"{len(found):,} of {total}, {hidden:,} hidden." if text else f"{total}."
        )

    async def _show(self, what: str) -> None:
        mirror = self.mirror
        if row := find.stepup(self.mirror, what):
            self.say(*await self._facts(row))
            self.say(*sentences.of_device(row, mirror.clock.now()))
        elif agent := find.agent(self.mirror, what):
            self.say(*sentences.agent_facts(mirror, agent))
        else:
            self._unknown("agent or step-up", what)

    async def _facts(self, row: StepUpRow) -> Iterable[str]:
        """Tell all of a request, and how requests like it were decided."""
        self.desk.actions.look(row.id)
        now = self.mirror.clock.now()
        try:
            rows = await self.desk.actions.before(row.id)
        except AgentVaultError as error:
            past = [f"  Before: not known: {self.mirror.intake.shown(error.what)}"]
        else:
            past = [f"  Before: {before.tally(rows)}"]
            past += [f"    {line}" for line in before.sentences(rows, row, now)]
        return sentences.facts(row, self._owner(row), now, past)

    async def _events(self, which: str) -> None:
        wanted = Filter() if which in {"all", "few", ""} else self._filter(which)
        every = self.teller.all = which == "all"
        self.teller.filter = wanted
        if wanted:
            self.say("Only what matches is told. events few ends that.")
        else:
            self.say(
                "Every event is told." if every else "The daily round is not told."
            )

    def _filter(self, text: str) -> Filter:
        """Read a filter, or a saved one by its name, and tell what is wrong with it."""
        wanted = read_filter(text, self.desk.saved)
        if wanted.problem:
            shown = self.mirror.intake.shown(wanted.problem, 200)
            self.say(f"In the filter, {shown}.")
        return wanted

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

    async def _help(self, _: str) -> None:
        self.say(_HELP)

    async def _quit(self, _: str) -> None:
        self.over = True

    # Commands that decide

    async def _approve(self, what: str) -> None:
        row = self._open_stepup(what)
        if row is None or self._refused("approve"):
            return
        self.say(*await self._facts(row))

        async def act() -> Iterable[str]:
            begun = await self.desk.actions.approve(row.id, row.digest)
            return sentences.of_device(begun, self.mirror.clock.now())

        self._ask("approve it with a second factor", {row.fingerprint}, act)

    async def _deny(self, rest: str) -> None:
        what, _, reason = rest.partition(" ")
        row = self._open_stepup(what)
        if row is None or self._refused("revoke"):
            return
        self.say(*await self._facts(row))

        async def act() -> Iterable[str]:
            await self.desk.actions.deny(row.id, reason.strip())
            return ()

        told = "The agent will read your reason. " if reason else ""
        self._ask("deny it", {row.fingerprint}, act, told)

    async def _revoke(self, rest: str) -> None:
        what, _, reason = rest.partition(" ")
        agent = find.agent(self.mirror, what)
        if agent is None:
            self._unknown("agent", what)
        elif agent.revoked:
            self.say(f"{agent.name} is revoked already. restore serves it again.")
        elif not self._refused("revoke"):
            tokens = plural(self.mirror.live_tokens(agent.id), "token")
            waiting = plural(len(self.mirror.open_stepups(agent.id)), "step-up")
            self.say(*sentences.agent_facts(self.mirror, agent))
            cuts = f"This cuts {tokens} and {waiting} now. "

            async def act() -> Iterable[str]:
                cut = await self.desk.actions.revoke(agent.id, reason.strip())
                steps = [f"  {step.step}: {step.status}" for step in cut.upstream]
                done = f"Closed here after {cut.effective_ms:.1f} ms: {agent.name}, "
                what = (
                    f"{plural(cut.tokens, 'token')}, {plural(cut.stepups, 'step-up')}"
                )
                return (f"{done}{what} cut.", *steps, *caution(cut))

            self._ask("revoke it", {agent.name, agent.id}, act, cuts)

    async def _restore(self, what: str) -> None:
        agent = find.agent(self.mirror, what)
        if agent is None:
            self._unknown("agent", what)
        elif not agent.revoked:
            self.say(f"{agent.name} is served: there is nothing to restore.")
        elif not self._refused("restore"):

            async def act() -> Iterable[str]:
                await self.desk.actions.restore(agent.id)
                return (f"{agent.name} is served again. What was cut stays cut.",)

            self._ask("restore it", {agent.name, agent.id}, act)

    async def _panic(self, reason: str) -> None:
        if self.mirror.status.panic.on:
            self.say("Everything is stopped already. lift ends it.")
        elif not self._refused("revoke"):
            cuts = f"This stops {plural(len(self.mirror.agents), 'agent')} now. "

            async def act() -> Iterable[str]:
                cut = await self.desk.actions.panic(reason)
                tokens = plural(cut.tokens, "token")
                after = f"Everything is stopped after {cut.effective_ms:.1f} ms"
                return (f"{after}, {tokens} cut. lift ends it.", *caution(cut))

            self._ask("stop everything", {_WORD}, act, cuts)

    async def _lift(self, _: str) -> None:
        if not self.mirror.status.panic.on:
            self.say("The panic switch is off: there is nothing to lift.")
        elif not self._refused("restore"):

            async def act() -> Iterable[str]:
                await self.desk.actions.lift()
                return ("Lifted. Agents revoked singly stay revoked.",)

            self._ask("serve agents again", {"lift"}, act)

    # Confirming

    def _ask(
        self,
        what: str,
        words: set[str],
        act: Callable[[], Awaitable[Iterable[str]]],
        before: str = "",
    ) -> None:
        now = self.mirror.clock.boot()
        self._pending = _Pending(frozenset(words), now, act)
        self.teller.hold_until = now + _PATIENCE
        word = min(words, key=len)
        self.say(f"{before}Type {word} to {what}; anything else leaves it as it is.")

    async def _answer(self, typed: str) -> None:
        pending = self._pending
        if pending is None:
            return
        self._pending = None
        self.teller.hold_until = 0.0
        waited = self.mirror.clock.boot() - pending.asked_at
        if typed not in pending.words:
            self.say("Left as it is.")
        elif waited < ARM_SECONDS:
            self.say("Too soon to have been read. Left as it is; ask again.")
        elif waited > _PATIENCE:
            self.say("That was asked too long ago. Left as it is; ask again.")
        elif not self._refused():
            try:
                self.say(*(await pending.act()))
            except AgentVaultError as error:
                shown = self.mirror.intake.shown(error.diagnosis(), 300)
                self.say(f"Not done: {shown}")

    def _refused(self, need: str = "") -> bool:
        refusal = self.desk.refusal(need)
        if refusal:
            self.say(refusal)
        return refusal is not None

    # Finding

    def _owner(self, row: StepUpRow) -> str:
        agent = self.mirror.agents.get(row.agent_id)
        return agent.owner if agent else ""

    def _open_stepup(self, what: str) -> StepUpRow | None:
        row = find.stepup(self.mirror, what)
        if row is None:
            self._unknown("step-up", what)
        elif not row.open:
            self.say(sentences.of_stepup(row, self.mirror.clock.now()))
            row = None
        return row

    def _unknown(self, kind: str, what: str) -> None:
        shown = self.mirror.intake.shown(what, 60) or "nothing"
        self.say(f"No single {kind} is called {shown}. Type list; ids always work.")
