"""Commands of plain mode that decide; each is confirmed by a typed word."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from agentvault_tui.console.desk import (
    ARM_SECONDS,
    UNDO_SECONDS,
    Desk,
    offer_undo,
    offered_undo,
    take_back,
)
from agentvault_tui.console.plain import sentences
from agentvault_tui.console.plain.announcer import Announcer, Command
from agentvault_tui.console.plain.reads import (
    ReadCommands,
    find_agent,
    find_agent_first,
    find_stepup,
)
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.model import repeat_words
from agentvault_tui.operator_api.answers import ChangeWaitsError
from agentvault_tui.presenters import revocations
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.presenters.revocations import Revoked, caution
from agentvault_tui.presenters.stepups import read_repeat
from agentvault_tui.text import Shown

_WORD: Final = "panic"
_PATIENCE: Final = 60.0
"""Seconds a question waits for its word, while events are held back."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A decision that waits for its confirming word."""

    words: frozenset[str]
    asked_at: float
    act: Callable[[], Awaitable[Iterable[str]]]


class DecisionCommands:
    """Confirm decisions by a typed word, and act on the values captured when asking."""

    def __init__(self, desk: Desk, reads: ReadCommands, announcer: Announcer) -> None:
        self.desk = desk
        self.mirror = desk.mirror
        self.reads = reads
        self.announcer = announcer
        self.say = announcer.say
        self._pending: _Pending | None = None

    def commands(self) -> Iterable[Command]:
        """Return the commands that decide something."""
        return (
            Command(
                "approve ID [N SECONDS]",
                "approve a step-up with a second factor, and N more like it",
                self._approve,
            ),
            Command(
                "deny ID [reason]",
                "deny a step-up, the agent reads the reason; or end its repeats",
                self._deny,
            ),
            Command("revoke NAME [reason]", "cut an agent off", self._revoke),
            Command("restore NAME", "serve an agent again", self._restore),
            Command("undo", "revoke again, within 10 s of a restore", self._undo),
            Command("panic [reason]", "stop everything", self._panic),
            Command("lift", "end the panic", self._lift),
            Command("accept", "take a CHANGED ledger for the true one", self._accept),
        )

    async def _approve(self, rest: str) -> None:
        """Begin the second factor; with ``5 600 amount=5000`` for more like it too."""
        what, _, more = rest.partition(" ")
        row = self._open_stepup(what)
        if row is None or self._refused("approve"):
            return
        if row.is_change and more.strip():
            self.say("A change is approved once: leave out how many more.")
            return
        repeat = read_repeat(more) if more.strip() else None
        if isinstance(repeat, str):
            self.say(self.mirror.intake.shown(repeat, 200))
            return
        if not await self.reads.tell_stepup(row):
            self.say("It can be approved once the lines that change are read.")
            return

        async def act() -> Iterable[str]:
            """Revoke the agent, and return the sentences about it."""
            begun = await self.desk.link.approve(row.id, row.digest, repeat)
            return sentences.of_device(begun, self.mirror.clock.now(), self.desk)

        series = ""
        if repeat is not None:
            most = {str(name): one.max for name, one in repeat.bounds.items()}
            series = repeat_words(repeat.count, repeat.within, most)
            series = f"NOT ONCE: this also approves {series}. "
        self._ask("approve it with a second factor", {row.fingerprint}, act, series)

    async def _deny(self, rest: str) -> None:
        """Deny a waiting request, or end the remaining repeats of an approved one."""
        what, _, reason = rest.partition(" ")
        stepup = find_stepup(self.mirror, what)
        repeats = stepup is not None and stepup.repeats(self.mirror.clock.now())
        row = stepup if repeats else self._open_stepup(what)
        if row is None or self._refused("revoke"):
            return
        await self.reads.tell_stepup(row)

        async def act() -> Iterable[str]:
            return (await self.desk.link.deny(row.id, reason.strip())).cautions

        reader = "The requester" if row.is_change else "The agent"
        note = f"{reader} will read your reason. " if reason else ""
        does = "end what is left of its repeats" if repeats else "deny it"
        self._ask(does, {row.fingerprint}, act, "" if repeats else note)

    async def _revoke(self, rest: str) -> None:
        agent, reason = find_agent_first(self.mirror, rest)
        if agent is None:
            self.reads.unknown("agent", rest.partition(" ")[0])
        elif agent.revoked:
            self.say(f"{agent.name} is revoked already. restore serves it again.")
        elif not self._refused("revoke"):
            await self.reads.tell_agent(agent)

            async def act() -> Iterable[str]:
                ended = await self.desk.link.revoke(agent.id, reason)
                row = self.mirror.agents.get(agent.id, agent)
                return (
                    *_result_lines(agent.name, ended),
                    *revocations.remains(
                        row, self.mirror.clock.now(), everywhere=ended.everywhere
                    ),
                    *caution(ended),
                )

            cuts = sentences.cuts(self.mirror, agent)
            self._ask("revoke it", {agent.name, agent.id}, act, f"{cuts} ")

    async def _restore(self, what: str) -> None:
        agent = find_agent(self.mirror, what)
        if agent is None:
            self.reads.unknown("agent", what)
        elif not agent.revoked:
            self.say(f"{agent.name} is served: there is nothing to restore.")
        elif not self._refused("own"):

            async def act() -> Iterable[str]:
                since = self.mirror.last_seq
                await self.desk.link.restore(agent.id)
                offer_undo(self.desk, agent, since)
                message = f"{agent.name} is served again. Its ended tokens stay ended."
                return (
                    f"{message} undo revokes it again, within {UNDO_SECONDS:.0f} s.",
                )

            self._ask("restore it", {agent.name, agent.id}, act)

    async def _undo(self, _: str) -> None:
        """Revoke again at once; revoking needs no confirmation here."""
        undo = offered_undo(self.desk)
        if undo is None:
            self.say("Nothing to undo: a restore can be taken back for 10 s.")
        elif not self._refused("revoke"):

            async def act() -> Iterable[str]:
                ended = await take_back(self.desk, undo)
                return (*_result_lines(undo.name, ended), *caution(ended))

            await self._carry_out(act)

    async def _panic(self, reason: str) -> None:
        if self.mirror.status.panic.on:
            self.say("Everything is stopped already. lift ends it.")
        elif not self._refused("revoke"):
            cuts = f"This stops {self.mirror.population()} now. "

            async def act() -> Iterable[str]:
                ended = await self.desk.link.panic(reason)
                after = f"Everything is stopped after {ended.here}"
                text = f"{after}. Ended: {ended.ended}. lift ends it."
                return (text, *caution(ended))

            self._ask("stop everything", {_WORD}, act, cuts)

    async def _lift(self, _: str) -> None:
        if not self.mirror.status.panic.on:
            self.say("The panic switch is off: there is nothing to lift.")
        elif not self._refused("restore"):

            async def act() -> Iterable[str]:
                await self.desk.link.lift()
                return ("Lifted. Agents revoked singly stay revoked.",)

            self._ask("serve agents again", {"lift"}, act)

    async def _accept(self, _: str) -> None:
        """Take the ledger as it is; only this console's memory changes."""
        if "ledger" not in self.mirror.warnings:
            self.say("The ledger is the one seen here before.")
            return

        async def act() -> Iterable[str]:
            self.reads.link.accept_ledger()
            return ("From now on this ledger is the true one here.",)

        self._ask("take this ledger for the true one", {"accept"}, act)

    # Confirming

    @property
    def waits(self) -> bool:
        """Whether the next line answers a question."""
        return self._pending is not None

    def _ask(
        self,
        what: str,
        words: set[str],
        act: Callable[[], Awaitable[Iterable[str]]],
        before: str = "",
    ) -> None:
        now = self.mirror.clock.boot()
        self._pending = _Pending(frozenset(words), now, act)
        self.announcer.hold_until = now + _PATIENCE
        word = min(words, key=len)
        self.say(f"{before}Type {word} to {what}; anything else leaves it as it is.")

    async def answer(self, typed: str) -> None:
        """Carry out the asked action, if this is its word, in time."""
        pending = self._pending
        if pending is None:
            return
        self._pending = None
        self.announcer.hold_until = 0.0
        waited = self.mirror.clock.boot() - pending.asked_at
        if typed not in pending.words:
            self.say("Left as it is.")
        elif waited < ARM_SECONDS:
            self.say("Too soon to have been read. Left as it is; ask again.")
        elif waited > _PATIENCE:
            self.say("That was asked too long ago. Left as it is; ask again.")
        elif not self._refused():
            await self._carry_out(pending.act)

    async def _carry_out(self, act: Callable[[], Awaitable[Iterable[str]]]) -> None:
        try:
            self.say(*(await act()))
        except ChangeWaitsError as waits:
            await self._waits(waits)
        except AgentVaultError as error:
            shown = self.mirror.intake.shown(error.diagnosis(), 300)
            self.say(f"Not done: {shown}")

    async def _waits(self, waits: ChangeWaitsError) -> None:
        """Print the change that the decision became; the news have all of it."""
        mark = self.mirror.intake.shown(waits.change.fingerprint, 8)
        self.say(
            f"Not done yet: it is change {mark}, which waits for an approver. Type:"
            f" show {mark}"
        )
        with contextlib.suppress(AgentVaultError):  # the stream brings it too
            await self.desk.link.waiting(waits.change.id)

    def _refused(self, need: str = "") -> bool:
        refusal = self.desk.refusal(need)
        if refusal:
            self.say(refusal)
        return refusal is not None

    def _open_stepup(self, what: str) -> StepUpRow | None:
        row = find_stepup(self.mirror, what)
        if row is None:
            self.reads.unknown("step-up", what)
        elif not row.open:
            self.say(sentences.of_stepup(row, self.mirror.clock.now()))
            row = None
        return row


def _result_lines(name: Shown, ended: Revoked) -> Iterable[str]:
    """Word the result of a revocation, and the steps under way elsewhere."""
    yield f"Closed here after {ended.here}: {name}. Ended: {ended.ended}."
    yield from revocations.steps(ended.upstream)
