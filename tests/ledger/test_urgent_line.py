"""A revocation is placed over a connection of its own: once, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.ledger_kit import agent, decision, note, token
from support.manual_clock import ManualClock
from support.patience import PATIENT, until
from support.postgres import Database
from support.postgres_relay import Relay

from agentvault_tui.errors import LedgerUnwritableError, OutcomeUnknownError
from agentvault_tui.home import Home
from agentvault_tui.ledger import (
    DropAgentTokens,
    EventQuery,
    Ledger,
    Recovery,
    urgent_line,
    verify_ledger,
)
from agentvault_tui.ledger.postgres_store import PostgresStore
from agentvault_tui.ledger.shared_log import SharedLog, StoreHead
from agentvault_tui.ledger.urgent_line import Position
from agentvault_tui.model import AgentId, Event, EventType

REVOKED = EventType.AGENT_REVOKED
DROP = [DropAgentTokens(AgentId("agt_1"))]


@pytest.fixture
def place(short: Path) -> Home:
    return Home(short / "a", short / "a")


@pytest.fixture
async def team(
    relay: Relay, short: Path, place: Home, store: Database, clock: ManualClock
) -> AsyncIterator[Ledger]:
    """A broker's ledger, behind the relay, with an agent that has a token."""
    settings = store.settings_at(short / "relay")
    opened = await Ledger.open(place, clock=clock, settings=settings)
    await opened.commit(note(), changes=[agent()])
    await opened.commit(decision(), changes=[token(clock)])
    yield opened
    await opened.close()
    assert verify_ledger(place).ok


async def revocations(ledger: Ledger) -> list[Event]:
    found = await ledger.events(EventQuery(after=0, limit=1000))
    return [event for event in found.events if event.type is REVOKED]


async def test_it_does_not_wait_for_a_transaction_that_is_on_its_way(
    team: Ledger, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the store while an earlier one has not arrived there."""
    held, sent, append = asyncio.Event(), asyncio.Event(), SharedLog.append
    placed = asyncio.Event()

    async def later(log: SharedLog, *args: Any, urgent: bool, **more: Any) -> Any:
        if not urgent:
            sent.set()
            await held.wait()
        found = await append(log, *args, urgent=urgent, **more)
        if urgent:
            placed.set()
        return found

    monkeypatch.setattr(SharedLog, "append", later)
    other = team.commit(decision("agt_2"), changes=[token(clock, "tok_2", "agt_2")])
    await sent.wait()
    cut = team.commit(note(REVOKED), changes=DROP, urgent=True)
    async with asyncio.timeout(PATIENT):
        await placed.wait()
    held.set()
    assert [(await one)[0].seq for one in (cut, other)] == [3, 4]
    assert [one.id for one in (await team.load()).tokens] == ["tok_2"]


async def test_it_does_not_wait_for_the_copy(
    short: Path, store: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is placed while a transaction comes to it that is behind another broker's."""
    monkeypatch.setattr(Position, "notify", lambda *_: None)
    homes = [Home(short / name, short / name) for name in "bc"]
    team = await Ledger.open(homes[0], clock=clock, settings=store.settings)
    await team.commit(note(), changes=[agent()])
    other = await Ledger.open(homes[1], clock=clock, settings=store.settings)
    held, reached, placed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    write_copy, append = PostgresStore._write_copy, SharedLog.append

    async def later(writer: PostgresStore, statements: Any, head: StoreHead) -> None:
        if writer is team._store and head.batch:
            reached.set()
            await held.wait()
        await write_copy(writer, statements, head)

    async def noted(log: SharedLog, *args: Any, urgent: bool, **more: Any) -> Any:
        found = await append(log, *args, urgent=urgent, **more)
        if urgent:
            placed.set()
        return replace(found, missed=())  # so that it is read up to there

    monkeypatch.setattr(PostgresStore, "_write_copy", later)
    monkeypatch.setattr(SharedLog, "append", noted)
    await other.commit(note(agent="agt_3"), changes=[agent("agt_3")])
    mine = team.commit(decision("agt_2"), changes=[token(clock, "tok_2", "agt_2")])
    await reached.wait()
    cut = team.commit(note(REVOKED), changes=DROP, urgent=True)
    async with asyncio.timeout(PATIENT):
        await placed.wait()
    held.set()
    assert [(await one)[0].seq for one in (mine, cut)] == [3, 4]
    for ledger in (team, other):
        await ledger.close()


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_one_that_had_no_answer_is_placed_once(
    team: Ledger, relay: Relay, lost: Any
) -> None:
    """Whether it had arrived or not; a lost connection alone refuses nothing."""
    problems = list[str | None]()
    team.listeners.state.append(lambda: problems.append(team.store_problem))
    relay.lose, relay.word = lost, REVOKED.value.encode()
    (event,) = await team.commit(note(REVOKED), changes=DROP, urgent=True)
    assert relay.lost.is_set()
    assert event.seq == 3
    assert await revocations(team) == [event]
    assert (await team.load()).tokens == ()
    await team.commit(decision())
    assert problems == []


async def test_one_that_is_asked_for_again_is_as_it_was_sent(
    team: Ledger, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the broker knows more by then: what is in the store is accepted."""
    lost, append = asyncio.Event(), SharedLog.append
    other: asyncio.Future[tuple[Event, ...]]

    async def unheard(log: SharedLog, *args: Any, urgent: bool, **more: Any) -> Any:
        found = await append(log, *args, urgent=urgent, **more)
        if not urgent:
            placed.set()
            await lost.wait()
        elif not lost.is_set():
            lost.set()
            await other
            raise LedgerUnwritableError("it had no answer")
        return found

    placed = asyncio.Event()
    monkeypatch.setattr(SharedLog, "append", unheard)
    many = [token(clock, f"tok_2{n}", "agt_2") for n in range(3)]
    other = team.commit(decision("agt_2"), changes=many)
    await placed.wait()
    cut = team.commit(note(REVOKED), changes=DROP, urgent=True)
    assert [(await one)[0].type for one in (other, cut)][1] is REVOKED
    assert len((await team.load()).tokens) == 3


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_one_that_nobody_knows_of_in_time_is_recorded_once_all_the_same(
    team: Ledger, relay: Relay, lost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller hears that nobody knows; later the broker hears that it was found."""
    monkeypatch.setattr(urgent_line, "DOUBT_SECONDS", 0.3)
    recoveries = asyncio.Queue[Recovery]()
    team.listeners.recovered.append(recoveries.put)
    relay.lose, relay.word = lost, REVOKED.value.encode()
    cut = team.commit(note(REVOKED), changes=DROP, urgent=True)
    await relay.lost.wait()
    relay.away = True
    relay.cut()
    with pytest.raises(OutcomeUnknownError):
        await cut
    with pytest.raises(LedgerUnwritableError):
        team.commit(note(REVOKED), urgent=True)
    relay.away = False
    async with asyncio.timeout(PATIENT):
        while not (await recoveries.get()).committed:
            pass
    (event,) = await revocations(team)
    assert event.seq == 3
    assert (await team.load()).tokens == ()


async def test_one_that_waits_behind_an_unknown_one_is_refused(
    team: Ledger, relay: Relay
) -> None:
    """Its caller keeps it otherwise, rather than wait for the store."""
    relay.lose, relay.word = "request", REVOKED.value.encode()
    first = team.commit(note(REVOKED), changes=DROP, urgent=True)
    await relay.lost.wait()
    relay.away = True
    relay.cut()
    second = team.commit(note(REVOKED, "agt_2"), urgent=True)
    with pytest.raises(LedgerUnwritableError):
        await second
    relay.away = False
    assert [one.seq for one in await first] == [3]
    assert [one.agent_id for one in await revocations(team)] == ["agt_1"]


async def test_what_is_urgent_is_placed_before_the_ledger_is_closed(
    team: Ledger,
) -> None:
    """As all that waits is."""
    cut = team.commit(note(REVOKED), changes=DROP, urgent=True)
    await team.close()
    assert [one.seq for one in await cut] == [3]


async def test_a_store_that_refuses_one_is_examined(
    team: Ledger, store: Database
) -> None:
    """It was not placed, its caller hears of it, and later ones are placed again."""
    sql = "ALTER FUNCTION agentvault.append RENAME TO {}"
    store.run(sql.format("gone"))
    cut = team.commit(note(REVOKED), changes=DROP, urgent=True)
    with pytest.raises(LedgerUnwritableError):
        await cut
    store.run("ALTER FUNCTION agentvault.gone RENAME TO append")
    await until(lambda: team.writable)
    (event,) = await team.commit(note(REVOKED), changes=DROP, urgent=True)
    assert await revocations(team) == [event]


@pytest.mark.parametrize("urgent", [False, True])
async def test_a_store_that_chains_an_event_in_another_way_is_left(
    team: Ledger, store: Database, monkeypatch: pytest.MonkeyPatch, *, urgent: bool
) -> None:
    """What it holds is not what was sent: no broker grants until a person looks."""
    append, fault = SharedLog.append, "SELECT fault FROM agentvault.head"

    async def otherwise(*args: Any, **more: Any) -> Any:
        return replace(await append(*args, **more), hash=bytes(32))

    monkeypatch.setattr(SharedLog, "append", otherwise)
    with pytest.raises(LedgerUnwritableError):
        await team.commit(note(REVOKED), changes=DROP, urgent=urgent)
    assert not team.writable
    assert "in another way than this broker" in (team.problem or "")
    await until(lambda: store.run(fault) != [(None,)])


async def test_a_fault_that_nobody_foresaw_refuses_later_ones_at_once(
    team: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their callers keep them otherwise, and nothing is granted until a restart."""

    async def nothing(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(SharedLog, "append", nothing)
    for _ in range(2):
        with pytest.raises(LedgerUnwritableError):
            async with asyncio.timeout(PATIENT):
                await team.commit(note(REVOKED), changes=DROP, urgent=True)
    assert "AttributeError" in (team.problem or "")
