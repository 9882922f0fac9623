"""Brokers on one store: one chain, whoever writes, and no grant from an old state."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.ledger_kit import agent, decision, manual_clock, note, stepup, token
from support.manual_clock import ManualClock
from support.patience import PATIENT, until
from support.postgres import TEAM, Database

from agentvault_tui.clock import SharedClock
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerUnwritableError,
    OvertakenError,
)
from agentvault_tui.home import Home
from agentvault_tui.ledger import (
    DropAgentTokens,
    DropToken,
    EventQuery,
    Ledger,
    Meta,
    Panic,
    postgres_store,
    verify_ledger,
)
from agentvault_tui.ledger.shared_log import SharedLog
from agentvault_tui.ledger.urgent_line import Position
from agentvault_tui.model import AgentId, Event, EventType, Outcome, Token, TokenId
from agentvault_tui.store_connection import Connector

ONE = AgentId("agt_1")


class Team:
    """Ledgers on one store, each with a home, and what each was told of others."""

    def __init__(self, folder: Path, store: Database, clock: ManualClock) -> None:
        self.folder, self.store, self.clock = folder, store, clock
        self.told: dict[str, list[tuple[tuple[Event, ...], Sequence[Any]]]] = {}
        self.open_ones: list[Ledger] = []

    def home(self, name: str) -> Home:
        return Home(self.folder / name, self.folder / name)

    async def broker(self, name: str) -> Ledger:
        opened = await Ledger.open(
            self.home(name), clock=self.clock, settings=self.store.settings
        )
        told = self.told[name] = []

        async def followed(events: tuple[Event, ...], changes: Sequence[Any]) -> None:
            told.append((events, changes))

        opened.listeners.followed.append(followed)
        self.open_ones.append(opened)
        return opened

    def other(self) -> psycopg.Connection[Any]:
        """Connect to the store as no broker does."""
        return psycopg.connect(
            host=str(self.store.cluster.folder), dbname=self.store.name, user="postgres"
        )

    def rows(self, name: str) -> dict[str, list[tuple[Any, ...]]]:
        """Return all that a copy has, but what is its own."""
        with closing(sqlite3.connect(self.home(name).database)) as db:
            found = {
                table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
                for table in (
                    *("events", "eras", "agents", "tokens", "dropped", "voided"),
                    *("stepups", "outbox", "meta", "texts"),
                )
            }
        found["meta"] = [row for row in found["meta"] if row[0] != "ledger copy"]
        return found


@pytest.fixture
async def team(short: Path, store: Database, clock: ManualClock) -> AsyncIterator[Team]:
    team = Team(short, store, clock)
    yield team
    for opened in team.open_ones:
        await opened.close()


async def test_every_copy_has_the_same_bytes(team: Team, clock: ManualClock) -> None:
    """Events and rows that several brokers wrote are equal in all homes, and verify."""
    a, b = await team.broker("a"), await team.broker("b")
    changes = [agent(), token(clock), stepup(clock), Meta("k", "v")]
    await a.commit(decision(), note(), changes=changes)
    await b.confirm()
    await b.commit(decision("agt_2"), changes=[token(clock, "tok_2", "agt_2")])
    await a.confirm()
    await a.commit(
        note(EventType.TOKEN_REDEEMED), changes=[DropToken(TokenId("tok_2"))]
    )
    await a.confirm()
    await b.confirm()
    assert a.head == b.head
    assert team.rows("a") == team.rows("b")
    for ledger in (a, b):
        await ledger.close()
    late = await team.broker("c")
    assert late.head == a.head
    assert (await late.load()).agents == (agent(),)
    await late.close()
    assert team.rows("c") == team.rows("a")
    reports = [verify_ledger(team.home(name)) for name in "abc"]
    assert all(one.ok and one.events == a.head.seq for one in reports), reports


async def test_brokers_that_write_at_once_leave_no_gap(
    team: Team, clock: ManualClock
) -> None:
    """Two brokers' commits are numbered through; none is lost, doubled or refused."""
    a, b = await team.broker("a"), await team.broker("b")

    async def many(ledger: Ledger, who: str) -> None:
        for number in range(20):
            name = f"tok_{who}_{number}"
            await ledger.commit(decision(who), changes=[token(clock, name, who)])

    await asyncio.gather(
        *(many(one, f"agt_{id(one)}_{n}") for one in (a, b) for n in range(8))
    )
    await asyncio.gather(a.confirm(), b.confirm())
    assert a.head == b.head
    assert a.head.seq == 2 * 8 * 20
    assert team.rows("a") == team.rows("b")
    tokens = {one.id for one in (await b.load()).tokens}
    assert len(tokens) == 2 * 8 * 20


async def test_what_others_wrote_arrives_before_anything_later(
    team: Team, clock: ManualClock
) -> None:
    """After `confirm` whatever another broker wrote was handed on, in order, once."""
    a, b = await team.broker("a"), await team.broker("b")
    for number in range(5):
        await a.commit(decision(number=number), changes=[token(clock, f"tok_{number}")])
    await b.confirm()
    events = [event for heard, _ in team.told["b"] for event in heard]
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert events == list((await b.events(EventQuery(after=0))).events)
    changes = [change for _, heard in team.told["b"] for change in heard]
    assert sorted(one.id for one in changes) == [f"tok_{n}" for n in range(5)]
    assert all(isinstance(one, Token) for one in changes)
    assert team.told["a"] == []


@pytest.mark.parametrize("listed", [True, False])
async def test_an_append_has_what_others_wrote(
    team: Team, monkeypatch: pytest.MonkeyPatch, *, listed: bool
) -> None:
    """It is placed at once, or once that is known if its keys are listed no more."""

    async def follow(*_: object) -> None:
        raise LedgerUnwritableError("the store was read once more")

    outcomes = []
    append = SharedLog.append

    async def noted(*args: Any, **more: Any) -> Any:
        outcomes.append(await append(*args, **more))
        return outcomes[-1]

    monkeypatch.setattr(Position, "notify", lambda *_: None)
    a = await team.broker("a")
    await a.commit(note(), changes=[Meta("k", "v")])
    b = await team.broker("b")
    monkeypatch.setattr(SharedLog, "append", noted)
    monkeypatch.setattr(SharedLog, "follow", follow)
    monkeypatch.setattr(SharedLog, "follow_beside", follow)
    (first,) = await a.commit(note(), changes=[agent()])
    if not listed:
        team.store.run("DELETE FROM agentvault.written")
    mine = replace(agent("agt_2"), name="another")
    (second,) = await b.commit(note(), changes=[mine])
    assert (first.seq, second.seq) == (2, 3)
    behind = [] if listed else ["behind"]
    assert [one.outcome for one in outcomes] == ["placed", *behind, "placed"]
    (*_, (events, changes)) = team.told["b"]
    assert (events, len(changes)) == ((first,), 1)
    for ledger in (a, b):
        await ledger.close()
    monkeypatch.undo()
    late = await team.broker("c")
    await late.close()
    assert team.rows("c") == team.rows("b")


@pytest.mark.parametrize("revoked", [ONE, AgentId("agt_2")])
async def test_who_asks_is_told_while_an_own_append_waits_for_its_turn(
    team: Team, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, revoked: AgentId
) -> None:
    """What another broker cut is known first, and ends the grant that waits as well."""
    a, b = await team.broker("a"), await team.broker("b")
    held, sent, append = asyncio.Event(), asyncio.Event(), SharedLog.append

    async def later(log: SharedLog, *args: Any, **more: Any) -> Any:
        if log is b.shared:
            sent.set()
            await held.wait()
        return await append(log, *args, **more)

    monkeypatch.setattr(SharedLog, "append", later)
    granted = b.commit(decision(), changes=[token(clock)])
    await sent.wait()
    drop = [DropAgentTokens(revoked)]
    (first,) = await a.commit(note(EventType.AGENT_REVOKED), changes=drop, urgent=True)
    await b.confirm()
    ((events, _),) = team.told["b"]
    assert events == (first,)
    held.set()
    if revoked == ONE:
        with pytest.raises(OvertakenError):
            await granted
    else:
        assert [one.seq for one in await granted] == [2]
    await a.confirm()
    assert team.rows("a") == team.rows("b")


async def test_an_idle_broker_is_told_without_asking(team: Team) -> None:
    """What another broker wrote arrives by itself."""
    a, b = await team.broker("a"), await team.broker("b")
    heard = asyncio.Event()

    async def followed(*_: object) -> None:
        heard.set()

    b.listeners.followed.append(followed)
    await a.commit(note())
    await heard.wait()
    assert b.head == a.head


async def test_a_broker_that_cannot_take_over_what_others_wrote_grants_nothing(
    team: Team, clock: ManualClock
) -> None:
    """Its memory may allow what was cut off: it cuts, and answers for nothing else."""
    a, b = await team.broker("a"), await team.broker("b")

    async def broken(*_: object) -> None:
        raise KeyError("a listener's own fault")

    b.listeners.followed.append(broken)
    await a.commit(note())
    with pytest.raises(LedgerUnwritableError, match="restart this broker"):
        await b.confirm()
    with pytest.raises(LedgerUnwritableError):
        b.commit(decision(), changes=[token(clock)])
    await b.commit(note(EventType.AGENT_REVOKED), urgent=True)
    assert a.writable


async def test_a_grant_that_a_revocation_elsewhere_overtook_is_not_written(
    team: Team, clock: ManualClock
) -> None:
    """The broker that did not know of it fails the commit, and then knows."""
    a, b = await team.broker("a"), await team.broker("b")
    await a.commit(note(), changes=[agent()])
    await b.confirm()
    held = asyncio.Event()
    follow = b._store._follow  # type: ignore[union-attr]

    async def later(*args: Any) -> None:
        await held.wait()
        await follow(*args)

    b._store._follow = later  # type: ignore[union-attr, method-assign]
    await a.commit(
        note(EventType.AGENT_REVOKED), changes=[DropAgentTokens(ONE)], urgent=True
    )
    granted = b.commit(decision(), changes=[token(clock)])
    other = b.commit(decision("agt_2"), changes=[token(clock, "tok_2", "agt_2")])
    held.set()
    with pytest.raises(OvertakenError):
        await granted
    (event,) = await other
    assert event.seq == 3
    assert [one.id for one in (await b.load()).tokens] == ["tok_2"]


async def test_what_cuts_is_never_overtaken(team: Team, clock: ManualClock) -> None:
    """A revocation made before others' tokens were known still ends them."""
    a, b = await team.broker("a"), await team.broker("b")
    await a.commit(decision(), changes=[token(clock, "tok_1"), agent()])
    await a.commit(note(), changes=[Panic(True, clock.now(), "olga", "")], urgent=True)
    (event,) = await b.commit(
        note(EventType.AGENT_REVOKED), changes=[DropAgentTokens(ONE)], urgent=True
    )
    assert event.seq == 4
    await a.confirm()
    assert (await a.load()).tokens == (await b.load()).tokens == ()


async def test_an_own_revocation_overtakes_what_is_on_its_way(
    team: Team, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grant that is not placed when its agent is revoked here is refused as well."""
    a = await team.broker("a")
    await a.commit(note())
    revoked, sent, append = asyncio.Event(), asyncio.Event(), SharedLog.append

    async def later(log: SharedLog, *args: Any, urgent: bool, **more: Any) -> Any:
        if not urgent:
            sent.set()
            await revoked.wait()
        found = await append(log, *args, urgent=urgent, **more)
        if urgent:
            revoked.set()
        return found

    monkeypatch.setattr(SharedLog, "append", later)
    granted = a.commit(decision(), changes=[token(clock)])
    await sent.wait()
    waiting = a.commit(decision(), changes=[token(clock, "tok_2")])
    other = a.commit(decision("agt_2"), changes=[token(clock, "tok_3", "agt_2")])
    (cut,) = await a.commit(
        note(EventType.AGENT_REVOKED), changes=[DropAgentTokens(ONE)], urgent=True
    )
    assert cut.seq == 2
    for one in (granted, waiting):
        with pytest.raises(OvertakenError):
            await one
    assert [one.seq for one in await other] == [3]
    await a.close()
    assert [row[1] for row in team.rows("a")["tokens"]] == ["tok_3"]


async def test_one_assertion_counts_once_over_the_team(
    team: Team, clock: ManualClock
) -> None:
    """Of two brokers that redeem one token at once, one is told that it was late."""
    a, b = await team.broker("a"), await team.broker("b")
    await a.commit(decision(), changes=[token(clock)])
    await b.confirm()
    drop = [DropToken(TokenId("tok_1"))]
    done = await asyncio.gather(
        *(one.commit(note(EventType.TOKEN_REDEEMED), changes=drop) for one in (a, b)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in done) == ["OvertakenError", "tuple"]


async def test_times_are_the_stores_and_never_go_back(team: Team) -> None:
    """A broker's own clock is not asked, and a store whose clock steps back holds."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    team.clock.advance(-600)
    a = await team.broker("a")
    (first,) = await a.commit(note())
    assert first.time > before
    await a.close()
    ahead = "2036-01-01T00:00:00.000000Z"
    team.store.run("UPDATE agentvault.head SET time = %s", ahead)
    again = await team.broker("a")
    (second,) = await again.commit(note())
    assert second.time.year == 2036
    assert team.rows("a")["eras"] == [(1,)]


async def test_a_broker_whose_clock_is_wrong_decides_by_the_stores(
    short: Path, store: Database
) -> None:
    """Ten minutes off: from the start on its clock is the team's."""
    wrong = ManualClock(datetime.now(UTC) - timedelta(minutes=10))
    clock = SharedClock(wrong)
    home = Home(short / "home", short / "home")
    ledger = await Ledger.open(home, clock=clock, settings=store.settings)
    assert -602 < clock.ahead < -598
    (event,) = await ledger.commit(note())
    assert abs(event.time - clock.now()) < timedelta(minutes=1)
    await ledger.close()


@pytest.mark.slow
async def test_a_grant_that_waits_too_long_is_refused(
    team: Team, clock: ManualClock
) -> None:
    """While another holds the head nothing is granted; afterwards it is again."""
    a = await team.broker("a")
    await a.commit(note())
    with team.other() as other:
        other.execute("SELECT * FROM agentvault.head FOR UPDATE")
        granted = a.commit(decision(), changes=[token(clock)])
        with pytest.raises(LedgerUnwritableError):
            await granted
        assert not a.writable
    await until(lambda: a.writable)
    await a.commit(decision(), changes=[token(clock)])


async def test_what_is_placed_anew_stays_before_what_came_later(
    team: Team, clock: ManualClock
) -> None:
    """Numbers of rows follow the order of commits, or an older row would stay."""
    a, b = await team.broker("a"), await team.broker("b")
    for number in range(3):
        await b.commit(decision(), changes=[token(clock, f"tok_{number}")])
    await a.confirm()
    with psycopg.connect(
        host=str(team.store.cluster.folder),
        dbname=team.store.name,
        user="postgres",
        autocommit=True,
    ) as other:
        turn = "UPDATE agentvault.head SET turn = %s, turn_ends = now() + '1 day'"
        other.execute(turn, ["brk_other"])
        commits = []
        for value in ("older", "newer"):
            made = a.commit(note(), changes=[Meta("k", value)])
            commits.append(asyncio.ensure_future(made))
            for _ in range(5):  # a asks for its turn meanwhile
                await b.confirm()
        other.execute(turn, [None])
    await asyncio.gather(*commits)
    await b.confirm()
    assert team.rows("a") == team.rows("b")
    assert ("app:k", "newer", 3 + 2) in team.rows("a")["meta"]


@pytest.mark.slow
async def test_a_cut_queues_behind_no_other_append(
    team: Team, clock: ManualClock
) -> None:
    """While others stand in line for the head a grant is busy, and a cut is placed."""
    a = await team.broker("a")
    await a.commit(note())
    with team.other() as other:
        other.execute("LOCK TABLE agentvault.queue IN EXCLUSIVE MODE")
        b = await team.broker("b")
        granted = b.commit(decision(), changes=[token(clock)])
        (cut,) = await a.commit(note(EventType.AGENT_REVOKED), urgent=True)
        assert cut.seq == 2
        with pytest.raises(LedgerBusyError):
            await granted
        assert b.store_problem is None
    (event,) = await b.commit(decision(), changes=[token(clock)])
    assert event.seq == 3


@pytest.mark.slow
@pytest.mark.parametrize("shared", ["", "_shared"])
async def test_a_role_without_rights_stops_no_grant(
    team: Team, clock: ManualClock, shared: str
) -> None:
    """It may connect and take advisory locks; the table that brokers lock is theirs."""
    a = await team.broker("a")
    await a.commit(note())
    cluster = team.store.cluster
    cluster.role("av_stranger")
    with cluster.session(team.store.name, "av_stranger") as db, db.transaction():
        for number in range(3):
            oid = "(SELECT oid::bigint FROM pg_class WHERE relname = 'head')"
            db.execute(f"SELECT pg_advisory_xact_lock{shared}({oid} + {number})")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
            db.execute("LOCK TABLE agentvault.queue IN ACCESS SHARE MODE")
        await a.commit(decision(), changes=[token(clock)])


@pytest.mark.slow
async def test_while_others_are_first_a_grant_is_refused_and_a_report_waits(
    team: Team, clock: ManualClock
) -> None:
    """A grant that waited for a second is busy; a denial, or a cut, is not refused."""
    a = await team.broker("a")
    await a.commit(note())
    team.store.run(
        "UPDATE agentvault.head SET turn = 'brk_x', turn_ends = 'infinity'::timestamptz"
    )
    granted = a.commit(decision(), changes=[token(clock)])
    denied = a.commit(decision(outcome=Outcome.DENIED))
    with pytest.raises(LedgerBusyError):
        await granted
    (cut,) = await a.commit(note(EventType.AGENT_REVOKED), urgent=True)
    assert cut.seq == 2
    (event,) = await denied
    assert event.seq == 3
    assert a.store_problem is None


async def test_a_policy_that_is_urgent_is_placed_however_long_it_waited(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every grant depends on the policy; one that waited as long is refused."""
    a = await team.broker("a")
    await a.commit(note())
    monkeypatch.setattr(postgres_store, "WAIT_SECONDS", -PATIENT)
    with pytest.raises(LedgerBusyError):
        await a.commit(note(EventType.POLICY_CHANGED))
    (event,) = await a.commit(note(EventType.POLICY_CHANGED), urgent=True)
    assert event.seq == 2


async def test_callers_hear_of_their_calls_where_what_came_next_is_refused(
    team: Team, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They make way for a grant, which waited too long: nothing else is recorded."""
    a = await team.broker("a")
    monkeypatch.setattr(postgres_store, "WAIT_SECONDS", -PATIENT)
    late: list[Awaitable[object]] = []

    def written(*_: object) -> None:
        if not late:
            late.append(a.commit(decision(), changes=[token(clock)]))

    a.listeners.written.append(written)
    calls = [a.commit(note(EventType.GATEWAY_RESULT)) for _ in range(10)]
    async with asyncio.timeout(PATIENT):
        await asyncio.gather(*calls)
    with pytest.raises(LedgerBusyError):
        await late[0]


async def test_without_a_store_there_is_nothing_to_confirm(ledger: Ledger) -> None:
    """A ledger of one broker is its own store."""
    await ledger.confirm()
    assert ledger.store_problem is None
    assert ledger.shared is None


async def test_a_dead_broker_is_told_of_for_a_day(store: Database) -> None:
    """Then it is not among the holders, and pruning the store deletes its row."""
    shared = SharedLog(Connector(store.url, TEAM), "brk_a", 1, manual_clock())
    ages = {"brk_a": "0 hours", "brk_b": "23 hours", "brk_c": "25 hours"}
    for name, age in ages.items():
        assert await shared.hold(name, name, b"{}", 2.0)
        sql = "UPDATE agentvault.brokers SET seen = seen - %s::interval WHERE id = %s"
        store.run(sql, age, name)
    _, found = await shared.holders()
    assert [name for name, _, _ in found] == ["brk_a", "brk_b"]
    await shared.prune()
    assert store.run("SELECT count(*) FROM agentvault.brokers") == [(2,)]
    await shared.close()


async def test_a_lost_idle_connection_costs_no_heartbeat(store: Database) -> None:
    """A statement on a connection that the server ended runs on a new one."""
    shared = SharedLog(Connector(store.url, TEAM), "brk_a", 1, manual_clock())
    assert await shared.hold("brk_a", "run", b"{}", 2.0)
    store.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert await shared.hold("brk_a", "run", b"{}", 2.0)
    await shared.close()
