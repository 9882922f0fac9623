"""A cut that the ledger did not take holds over a restart, and is recorded once."""

from __future__ import annotations

import asyncio
import os
import posix
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.manual_clock import ManualClock
from support.stepups import ask, latched, redeemable

from agentvault_tui.broker.answers import Escalated, Granted
from agentvault_tui.broker.core import SYSTEM
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.pending_cuts import OVERFLOW, deduplicated
from agentvault_tui.broker.recovery import record_missed, recover
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.usecases.disconnect import close_accounts
from agentvault_tui.broker.usecases.redeem import introspect, revoke_token
from agentvault_tui.broker.usecases.revoke import (
    lift_panic,
    panic,
    restore_agent,
    revoke_agent,
)
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.ledger import (
    Attempt,
    CutJournal,
    KeptCut,
    Ledger,
    Recovery,
    encode_cuts,
)
from agentvault_tui.ledger import ledger as ledger_module
from agentvault_tui.ledger.journal import CAPACITY
from agentvault_tui.model import (
    Account,
    Action,
    AgentStatus,
    Draft,
    EventType,
    StepUpStatus,
)

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")
NONE: frozenset[str] = frozenset()


async def killed(bench: Bench, clock: ManualClock) -> Bench:
    """Return another broker on the home; the first recorded nothing at its end."""
    await bench.close()
    return await Bench.open(bench.home, clock)


class Stage:
    """One of everything that can be cut, and how to see that it is."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def set_up(self) -> None:
        bench = self.bench
        self.agent = await bench.agent("bot")
        self.server = await bench.agent("api", resource_server=True)
        granted = await ask(bench, self.agent, CALENDAR)
        assert isinstance(granted, Granted)
        self.secret = granted.access_token
        held = await ask(bench, self.agent, PAYMENT)
        assert isinstance(held, Escalated)
        self.stepup = held.stepup
        account = Account(
            self.agent.id,
            "google",
            "cac_1",
            "https://t/",
            "auth0|1",
            "Alice",
            ("x",),
            bench.clock.now(),
        )
        bench.broker.registry.accounts.put(account)
        await bench.broker.record(changes=[account])

    async def revoked(self) -> None:
        await revoke_agent(self.bench.broker, self.agent.id, "runaway", OPERATOR)

    async def stopped(self) -> None:
        await panic(self.bench.broker, "all of it", OPERATOR)

    async def ungranted(self) -> None:
        gone = frozenset({"write:calendar", "send:payment"})
        await change_scopes(self.bench.broker, self.agent.id, NONE, gone, OPERATOR)

    async def handed_back(self) -> None:
        await revoke_token(self.bench.broker, self.agent, self.secret)

    async def denied(self) -> None:
        await deny(self.bench.broker, self.stepup.id, "no", OPERATOR)

    async def disconnected(self) -> None:
        account = self.bench.broker.registry.accounts.get(self.agent.id, "google")
        assert account is not None
        await close_accounts(self.bench.broker, [account], OPERATOR)

    async def give_back(self, what: str) -> None:
        broker = self.bench.broker
        if what == "restore":
            await restore_agent(broker, self.agent.id, OPERATOR)
        elif what == "lift":
            await lift_panic(broker, OPERATOR)
        else:
            given = frozenset({"write:calendar"})
            await change_scopes(broker, self.agent.id, given, NONE, OPERATOR)

    async def in_force(self, bench: Bench, cut: str) -> bool:
        """Tell whether *cut* holds in *bench*, as an outsider would find out."""
        registry = bench.broker.registry
        told = await introspect(bench.broker, self.server, self.secret)
        stepup = registry.stepups.get(self.stepup.id)
        match cut:
            case "revoked":
                status = registry.agent(self.agent.id).status
                dead = stepup.status is StepUpStatus.CANCELLED
                return status is AgentStatus.REVOKED and told.token is None and dead
            case "stopped":
                return registry.revocations.panic is not None and told.token is None
            case "ungranted":
                scopes = registry.agent(self.agent.id).scopes
                dead = stepup.status is StepUpStatus.CANCELLED
                return not scopes and told.token is None and dead
            case "handed_back":
                return told.token is None
            case "denied":
                waits = registry.stepups.cooldowns.remaining(self.agent.id)
                return stepup.status is StepUpStatus.DENIED and waits > 0
            case _:
                account = registry.accounts.get(self.agent.id, "google")
                return account is not None and account.removing


KINDS = {
    "revoked": "agent.revoked",
    "stopped": "panic.on",
    "ungranted": "agent.scopes_changed",
    "handed_back": "token.revoked",
    "denied": "stepup.denied",
    "disconnected": "connection.removed",
}


@pytest.fixture
async def stage(bench: Bench) -> Stage:
    stage = Stage(bench)
    await stage.set_up()
    return stage


@pytest.mark.slow
@pytest.mark.parametrize("cut", KINDS)
async def test_a_cut_the_ledger_did_not_take_survives_a_kill(
    stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """In force from the first moment after the kill, and once the ledger writes, there.

    Also through a second start at which the ledger still cannot write.
    """
    bench = stage.bench
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", latched)
        await getattr(stage, cut)()
        assert bench.broker.recording.cuts.durability is Kept.JOURNAL
        assert any("kept in the cut journal" in line for line in warnings(bench.broker))
        second = await killed(bench, clock)
        assert await stage.in_force(second, cut)
        assert second.broker.recording.cuts.durability is Kept.JOURNAL
    third = await killed(second, clock)
    try:
        assert await stage.in_force(third, cut)
        assert third.broker.recording.cuts.durability is Kept.LEDGER
        (event,) = await third.events(KINDS[cut])
        assert event.actor.name in {"olga", "bot"}
        assert event.detail["took_effect_at"].startswith("2026-11-24T10:00:00")
    finally:
        await third.close()
    last = await Bench.open(bench.home, clock)
    try:
        assert await stage.in_force(last, cut)
        assert len(await last.events(KINDS[cut])) == 1
    finally:
        await last.close()


@pytest.mark.parametrize("cut", KINDS)
async def test_a_kill_between_recording_and_clearing_records_nothing_twice(
    stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """The journal still has what the ledger has too: one event, and it stays undone.

    What was undone after its record, a restore say, is not cut again.
    """
    bench = stage.bench
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", latched)
        await getattr(stage, cut)()
    with monkeypatch.context() as patch:
        # Killed as it is about to clear: the file stays as it is.
        patch.setattr(CutJournal, "write", lambda *_: True)
        await record_missed(bench.broker)
        if cut == "revoked":
            await restore_agent(bench.broker, stage.agent.id, OPERATOR)
        if cut == "stopped":
            await lift_panic(bench.broker, OPERATOR)
        if cut == "ungranted":
            scopes = frozenset({"write:calendar", "send:payment"})
            await change_scopes(bench.broker, stage.agent.id, scopes, NONE, OPERATOR)
        await bench.close()
    again = await Bench.open(bench.home, clock)
    try:
        undone = cut in {"revoked", "stopped", "ungranted"}
        assert await stage.in_force(again, cut) is not undone
        expected = 2 if cut == "ungranted" else 1  # the second gives them back
        assert len(await again.events(KINDS[cut])) == expected
        assert (await asyncio.to_thread(read_journal, again)) == ()
    finally:
        await again.close()


def shorten(bench: Bench, patch: pytest.MonkeyPatch, found: str | None) -> None:
    """Let the disk be short of space, or not, for whoever looks."""
    patch.setattr(ledger_module, "shortage", lambda *_, **__: found)
    patch.setattr(bench.ledger._upkeep, "shortage", found)


def read_journal(bench: Bench) -> tuple[KeptCut, ...]:
    ledger_id = bench.ledger.ledger_id
    found = CutJournal.open(bench.home, ledger_id, expected=True, fresh=False)
    assert found.problem is None
    return found.entries


@pytest.mark.slow
async def test_a_cut_whose_record_hangs_is_in_the_journal_before_its_reply(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 250 ms the reply says where it is; once recorded, it is there no more."""
    bench, go_on = stage.bench, asyncio.Event()
    commit = bench.ledger.commit

    async def slow(*drafts: Any, **more: Any) -> Any:
        await go_on.wait()
        return await commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", slow)
    told: list[int] = []
    bench.broker.health.listeners.append(
        lambda: told.append(bench.broker.recording.cuts.waiting)
    )
    cut = await revoke_agent(bench.broker, stage.agent.id, "runaway", OPERATOR)
    assert told[-1] == 1
    assert (cut.recorded, cut.durability) == (False, Kept.JOURNAL)
    (kept,) = read_journal(bench)
    assert (kept.kind, kept.agent, kept.why) == ("revoke", stage.agent.id, "runaway")
    go_on.set()
    await bench.until(lambda: bench.broker.recording.cuts.durability is Kept.LEDGER)
    assert told[-1] == 0
    assert read_journal(bench) == ()
    assert len(await bench.events("agent.revoked")) == 1


async def test_a_healthy_ledger_leaves_the_journal_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation that is recorded in time writes nothing else."""

    def never(*_: object) -> bool:
        raise AssertionError("the journal was written")

    monkeypatch.setattr(CutJournal, "write", never)
    for cut in reversed(KINDS):
        await getattr(stage, cut)()
    assert stage.bench.broker.recording.cuts.durability is Kept.LEDGER


async def test_a_token_spent_while_nothing_is_recorded_stays_spent_over_a_kill(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server heard of an error and may have paid: nobody gets it again."""
    _, server, secret = await redeemable(bench)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", latched)
        with pytest.raises(LedgerUnwritableError):
            await introspect(bench.broker, server, secret)
    async with bench.restarted() as again:
        told = await introspect(again.broker, server, secret)
        assert told.token is None


@pytest.mark.parametrize("damage", ["file", "marker", "byte"])
async def test_with_a_damaged_journal_everything_is_stopped(
    stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Told why, until it is lifted; then it keeps cuts again."""
    bench = stage.bench
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", latched)
        await stage.revoked()
    home = bench.home
    if damage == "file":
        home.cut_journal.unlink()
    elif damage == "marker":
        home.cut_marker.unlink()
    else:
        content = bytearray(home.cut_journal.read_bytes())
        content[4096 + 50] ^= 1
        home.cut_journal.write_bytes(content)
    async with AsyncExitStack() as closing:
        again = await killed(bench, clock)
        closing.push_async_callback(again.close)
        assert again.broker.registry.revocations.panic is not None
        assert "stopped at the start" in again.broker.registry.revocations.panic.reason
        assert any("may be missing" in line for line in warnings(again.broker))
        assert len(await again.events("panic.on")) == 1
        assert await stage.in_force(again, "revoked") is (damage == "marker")
        assert home.cut_marker.exists()
    last = await Bench.open(home, clock)
    try:
        assert last.broker.registry.revocations.panic is not None
        await lift_panic(last.broker, OPERATOR)
        assert last.broker.registry.revocations.panic is None
        assert read_journal(last) == ()
    finally:
        await last.close()


@pytest.mark.slow
async def test_where_nothing_can_be_written_the_next_start_stops_everything(
    stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ledger nor journal takes the cut: a file that is gone stands for it."""
    bench = stage.bench
    bench.home.cut_journal.write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", latched)
        cut = await revoke_agent(bench.broker, stage.agent.id, "", OPERATOR)
        assert cut.durability is Kept.STOP
        assert any("next start stops" in line for line in warnings(bench.broker))
        second = await killed(bench, clock)
        assert second.broker.registry.revocations.panic is not None
    third = await killed(second, clock)
    try:
        assert third.broker.registry.revocations.panic is not None
        assert len(await third.events("panic.on")) == 1
    finally:
        await third.close()


async def test_once_all_is_recorded_the_marker_is_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that failed is made anew, so that the next start stops nothing."""
    bench = stage.bench
    bench.home.cut_journal.write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", latched)
        await stage.revoked()
    assert not bench.home.cut_marker.exists()
    await record_missed(bench.broker)
    async with bench.restarted() as again:
        assert again.broker.registry.revocations.panic is None
        assert await stage.in_force(again, "revoked")


async def test_nothing_is_given_back_before_the_cut_is_recorded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore recorded before its revocation would be undone by the next start."""
    bench, commit = stage.bench, stage.bench.ledger.commit
    monkeypatch.setattr(bench.ledger, "commit", latched)
    await stage.revoked()
    with pytest.raises(LedgerUnwritableError):
        await restore_agent(bench.broker, stage.agent.id, OPERATOR)
    monkeypatch.setattr(bench.ledger, "commit", commit)
    await restore_agent(bench.broker, stage.agent.id, OPERATOR)
    kinds = [e.type.value for e in await bench.events() if e.agent_id == stage.agent.id]
    assert kinds.index("agent.revoked") < kinds.index("agent.restored")


async def test_a_scope_is_given_again_once_the_cut_is_recorded(
    bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut's record comes first, so that it ends nothing issued since."""
    scopes = frozenset({"write:calendar"})
    agent = await bench.agent()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", latched)
        await change_scopes(bench.broker, agent.id, NONE, scopes, OPERATOR)
    await change_scopes(bench.broker, agent.id, scopes, NONE, OPERATOR)
    again = bench.broker.registry.agent(agent.id)
    assert isinstance(await ask(bench, again, CALENDAR), Granted)
    await record_missed(bench.broker)
    cut, given = await bench.events("agent.scopes_changed")
    assert (cut.detail["ungranted"], given.detail["granted"]) == (
        ["write:calendar"],
        ["write:calendar"],
    )
    bench = await killed(bench, clock)
    try:
        assert "write:calendar" in bench.broker.registry.agent(agent.id).scopes
        assert len(bench.broker.registry.tokens_of(agent.id)) == 1
        assert bench.broker.health.state_problem is None
    finally:
        await bench.close()


@pytest.mark.parametrize("what", ["restore", "lift", "grant"])
async def test_what_was_not_given_back_is_not_given_back_by_a_restart(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Told that it failed, though the record reached the disk: it stays cut."""
    bench, agent = stage.bench, stage.agent.id
    if what == "restore":
        await stage.revoked()
    elif what == "lift":
        await stage.stopped()
    else:
        await stage.ungranted()
    commit, failed = bench.ledger.commit, False

    async def doubtful(*drafts: Any, **more: Any) -> Any:
        nonlocal failed
        if not failed:
            failed = True
            await commit(*drafts, **more)
        raise LedgerUnwritableError("input/output error")

    monkeypatch.setattr(bench.ledger, "commit", doubtful)
    with pytest.raises(LedgerUnwritableError):
        await stage.give_back(what)
    async with bench.restarted() as again:
        if what == "grant":
            assert again.broker.registry.agent(agent).scopes == ()
        else:
            assert not again.broker.registry.serves(agent)
        assert again.broker.recording.cuts.durability is Kept.LEDGER


@pytest.mark.parametrize("noted", [False, True])
async def test_a_home_of_an_older_version_is_not_stopped(
    bench: Bench, *, noted: bool
) -> None:
    """It never had a journal, and gets one; from the next start on it is missed."""
    detail = {"cut_journal": "cuts.journal"} if noted else {}
    started = Draft(EventType.BROKER_STARTED, SYSTEM, detail=detail)
    await bench.broker.record(started)
    bench.home.cut_journal.unlink()
    bench.home.cut_marker.unlink()
    async with bench.restarted() as again:
        assert (again.broker.registry.revocations.panic is not None) is noted
        assert again.home.cut_journal.exists()
        assert again.home.cut_marker.exists()


async def test_an_elevated_token_is_not_spent_by_an_answer_nobody_gets(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing can be recorded, it is not even looked at."""
    _, server, secret = await redeemable(bench)
    with monkeypatch.context() as patch:
        shorten(bench, patch, "the disk is nearly full")
        with pytest.raises(LedgerUnwritableError):
            await introspect(bench.broker, server, secret)
    told = await introspect(bench.broker, server, secret)
    assert told.token is not None


async def test_a_cut_that_reached_the_ledger_after_all_is_recorded_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit failed, its batch is found: it is not recorded a second time."""
    bench, commit = stage.bench, stage.bench.ledger.commit
    attempts: list[Attempt] = []

    async def doubtful(*drafts: Any, **more: Any) -> Any:
        await commit(*drafts, **more)
        attempts.append(Attempt(drafts, tuple(more["changes"])))
        raise LedgerUnwritableError("input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", doubtful)
        await stage.revoked()
    event = (await bench.events())[-1]
    await recover(bench.broker, Recovery(True, tuple(attempts), event))
    async with bench.restarted() as again:
        assert len(await again.events("agent.revoked")) == 1
        assert await stage.in_force(again, "revoked")
        assert read_journal(again) == ()


@pytest.mark.slow
async def test_near_the_end_of_the_disk_no_agent_uses_up_what_is_left(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may end a hundred of its tokens; then there is room again, and it may more."""
    bench = stage.bench
    secrets = [await ask(bench, stage.agent, CALENDAR) for _ in range(102)]
    shorten(bench, monkeypatch, "the disk is nearly full")
    for granted in secrets[:100]:
        await revoke_token(bench.broker, stage.agent, granted.access_token)
    with pytest.raises(LedgerUnwritableError):
        await revoke_token(bench.broker, stage.agent, secrets[100].access_token)
    cut = await revoke_agent(bench.broker, stage.server.id, "", OPERATOR)
    assert cut.durability is Kept.LEDGER
    shorten(bench, monkeypatch, None)
    for granted in secrets[100:]:
        await revoke_token(bench.broker, stage.agent, granted.access_token)
    assert len(await bench.events("token.revoked")) == 102


class _Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("steps", range(6))
async def test_killed_between_any_two_steps_no_reply_is_a_lie(
    stage: Stage,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    *,
    broken: bool,
) -> None:
    """What a reply says is kept is kept; where the journal is broken, all is stopped.

    Killed before it, the start after that stops nothing that nobody stopped.
    """
    bench, left = stage.bench, steps
    if broken:
        bench.home.cut_journal.write_bytes(b"")

    def killing(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise _Killed
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", latched)
        for name in ("pwrite", "fsync", "unlink"):
            patch.setattr(os, name, killing(name))
        cut = await revoke_agent(bench.broker, stage.agent.id, "", OPERATOR)
        for name in ("pwrite", "fsync", "unlink"):
            patch.setattr(os, name, getattr(posix, name))
        again = await killed(bench, clock)
    try:
        stopped = again.broker.registry.revocations.panic is not None
        held = stopped or await stage.in_force(again, "revoked")
        assert stopped is broken
        assert held or cut.durability is Kept.MEMORY
        safe = Kept.STOP if broken else Kept.JOURNAL
        assert cut.durability is (safe if left >= 0 else Kept.MEMORY)
    finally:
        await again.close()


@pytest.mark.slow
async def test_an_agent_that_ends_its_tokens_in_an_outage_is_bounded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many are kept; more is answered as RFC 7009 has it, and nobody else waits."""
    bench = stage.bench
    secrets = [await ask(bench, stage.agent, CALENDAR) for _ in range(101)]
    written, write = 0, CutJournal.write

    def counted(journal: CutJournal, cuts: list[KeptCut]) -> bool:
        nonlocal written
        written += 1
        return write(journal, cuts)

    monkeypatch.setattr(CutJournal, "write", counted)
    monkeypatch.setattr(bench.ledger, "commit", latched)
    ending = [
        asyncio.create_task(
            revoke_token(bench.broker, stage.agent, granted.access_token)
        )
        for granted in secrets[:100]
    ]
    await asyncio.sleep(0)
    cut = await revoke_agent(bench.broker, stage.server.id, "", OPERATOR)
    assert cut.durability is Kept.JOURNAL
    await asyncio.gather(*ending)
    assert written <= 3
    with pytest.raises(LedgerUnwritableError):
        await revoke_token(bench.broker, stage.agent, secrets[100].access_token)
    assert len(read_journal(bench)) == 101


def kept(kind: str, number: int, **more: Any) -> KeptCut:
    by = ("operator", "uid:0", "olga")
    return KeptCut(kind, "2026-11-24T10:00:00Z", by, 7, f"agt_{number:016}", **more)


def test_too_many_cuts_of_one_agent_become_its_revocation() -> None:
    """An agent that ends its own tokens in an outage cannot fill what others need."""
    cuts = [kept("token", 1, id=f"tok_{n:016}") for n in range(5000)]
    fitted = deduplicated([*cuts, kept("revoke", 2, why="runaway")])
    assert [(cut.kind, cut.agent[-1], cut.why) for cut in fitted] == [
        ("revoke", "1", OVERFLOW),
        ("revoke", "2", OVERFLOW),
    ]


@pytest.mark.slow
def test_more_agents_than_the_journal_holds_stop_everything() -> None:
    """What fits is kept as well, for when the panic is lifted."""
    fitted = deduplicated(kept("revoke", n, why="x" * 200) for n in range(20_000))
    assert len(encode_cuts(fitted)) <= CAPACITY
    assert fitted[0].kind == "panic"
    assert len(fitted) > 1000


def test_the_same_cut_again_takes_no_more_room() -> None:
    """Revoked twice in an outage, an agent has one record, the first."""
    first = kept("revoke", 1, why="first")
    assert deduplicated([first, replace(first, why="second")]) == [first]
