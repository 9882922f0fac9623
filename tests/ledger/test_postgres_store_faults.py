"""The store fails: nothing is granted, nothing answered is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.ledger_kit import agent, decision, note, token
from support.manual_clock import ManualClock
from support.patience import PATIENT, until
from support.postgres import Database
from support.postgres_relay import Relay
from support.small_disk import small_disk

from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerUnwritableError,
    OutcomeUnknownError,
    StoreAwayError,
)
from agentvault_tui.home import Home
from agentvault_tui.ledger import (
    DropAgentTokens,
    EventQuery,
    Ledger,
    Recovery,
    accept_store,
    postgres_store,
    sqlite_store,
    verify_ledger,
)
from agentvault_tui.ledger.shared_log import Appended, Followed, StoreHead
from agentvault_tui.ledger.urgent_line import Position
from agentvault_tui.model import Actor, ActorKind, AgentId, Event, EventType

__all__ = ["small_disk"]
pytestmark = pytest.mark.slow

ONE = AgentId("agt_1")
OLGA = Actor(ActorKind.OPERATOR, "uid:1000", "olga")


async def events_of(ledger: Ledger) -> list[Event]:
    return list((await ledger.events(EventQuery(after=0, limit=1000))).events)


@pytest.fixture
async def team(
    relay: Relay, short: Path, home: Home, store: Database, clock: ManualClock
) -> AsyncIterator[Ledger]:
    """A broker's ledger, behind the relay."""
    opened = await Ledger.open(
        home, clock=clock, settings=store.settings_at(short / "relay")
    )
    yield opened
    await opened.close()


async def test_a_commit_is_answered_where_what_is_before_it_could_not_be_read(
    team: Ledger,
    short: Path,
    store: Database,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is placed already: it is looked for, and the broker goes on writing."""
    other = Home(short / "other", short / "other")
    b = await Ledger.open(other, clock=clock, settings=store.settings)
    placing = team._store
    append, follow, lost = placing._append, placing.shared.follow, list[StoreHead]()

    async def behind(*args: Any, **more: Any) -> Appended:
        if not lost:
            await b.commit(note())
        found = await append(*args, **more)
        placing._missed = None  # it was taken over meanwhile, up to another head
        return found

    async def cut(known: StoreHead, seconds: float, end: Any = None) -> Followed:
        if end is not None and not lost:
            lost.append(known)
            raise StoreAwayError("the connection is lost", "try again")
        return await follow(known, seconds, end)

    monkeypatch.setattr(placing, "_append", behind)
    monkeypatch.setattr(placing.shared, "follow", cut)
    async with asyncio.timeout(PATIENT):
        (event,) = await team.commit(decision())
    assert lost
    await until(lambda: team.writable)
    assert (await events_of(team))[-1] == event
    await team.commit(note())
    await b.close()


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_commit_that_had_no_answer_is_placed_once(
    team: Ledger, relay: Relay, home: Home, clock: ManualClock, lost: Any
) -> None:
    """Whether it had arrived or not: its caller is told of it, and it is there once."""
    await team.commit(note(), changes=[agent()])
    relay.lose = lost
    (event,) = await team.commit(decision(n="lose this"), changes=[token(clock)])
    assert relay.lost.is_set()
    assert event.seq == 2
    assert [one.seq for one in await events_of(team)] == [1, 2]
    assert [one.id for one in (await team.load()).tokens] == ["tok_1"]
    await until(lambda: team.writable)
    await team.commit(decision())


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_an_outcome_that_nobody_learns_in_time_is_unknown_and_ended(
    team: Ledger, relay: Relay, home: Home, lost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller hears that; later it is found out, and what was issued is ended."""
    monkeypatch.setattr(postgres_store, "DOUBT_SECONDS", 0.3)
    await team.commit(note(), changes=[agent()])
    recoveries: list[Recovery] = []

    async def recovered(recovery: Recovery) -> None:
        recoveries.append(recovery)

    team.listeners.recovered.append(recovered)
    relay.lose = lost
    granted = team.commit(
        decision(n="lose this"), changes=[token(ManualClock(datetime.now(UTC)))]
    )
    await relay.lost.wait()
    relay.away = True
    relay.cut()
    with pytest.raises(OutcomeUnknownError) as unknown:
        await granted
    assert unknown.value.decision_id == "dec_agt_1"
    with pytest.raises(LedgerUnwritableError):
        await team.commit(decision())
    with pytest.raises(LedgerUnwritableError):
        await team.confirm()
    assert team.store_problem is not None
    placing, failed = team._store, False
    follow = placing._follow

    async def lost_again(*args: Any, **more: Any) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise LedgerUnwritableError("the store was lost again")
        await follow(*args, **more)

    monkeypatch.setattr(placing, "_follow", lost_again)
    relay.away = False
    await until(lambda: bool(recoveries))
    assert failed
    found = lost == "answer"
    assert recoveries[0].committed is found
    told = await events_of(team)
    assert told[-1 - found].reason == ("batch_found" if found else "batch_not_found")
    assert (told[-1].reason == "not_delivered") is found
    assert (await team.load()).tokens == ()
    await team.close()
    assert verify_ledger(home).ok


async def test_a_commit_in_doubt_that_was_overtaken_is_placed_once_or_refused(
    team: Ledger,
    relay: Relay,
    short: Path,
    store: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the store is lost again before the other's commit was followed."""
    home, other = (Home(short / name, short / name) for name in ("home", "other"))
    clock = ManualClock(datetime.now(UTC))
    second = await Ledger.open(other, clock=clock, settings=store.settings)
    await team.commit(note(), changes=[agent()])
    relay.lose = "request"
    granted = team.commit(decision(n="lose this"), changes=[token(clock)])
    await relay.lost.wait()
    relay.away = True
    relay.cut()
    await second.commit(note())
    placing = team._store
    follow, failed = placing._follow, 0

    async def lost_again(*args: Any, **more: Any) -> None:
        nonlocal failed
        if failed < 2:
            failed += 1
            raise LedgerUnwritableError("the store was lost again")
        await follow(*args, **more)

    monkeypatch.setattr(placing, "_follow", lost_again)
    relay.away = False
    (told,) = await asyncio.gather(granted, return_exceptions=True)
    await until(lambda: team.writable)
    await team.commit(decision(), changes=[token(clock, "tok_2")])
    placed = ["tok_1"] if isinstance(told, tuple) else []
    assert len(await events_of(team)) == 3 + len(placed)
    assert [one.id for one in (await team.load()).tokens] == [*placed, "tok_2"]
    await second.close()
    await team.close()
    assert all(verify_ledger(one).ok for one in (home, other))


@pytest.mark.parametrize("told", [False, True])
async def test_a_commit_without_an_answer_is_found_behind_what_others_wrote(
    relay: Relay,
    short: Path,
    store: Database,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    told: bool,
) -> None:
    """It was placed behind another broker's: both copies end with the same bytes."""
    monkeypatch.setattr(Position, "notify", lambda *_: None)
    if told:
        monkeypatch.setattr(postgres_store, "DOUBT_SECONDS", 0.3)
    home, elsewhere = (Home(short / name, short / name) for name in ("home", "other"))
    team = await Ledger.open(
        home, clock=clock, settings=store.settings_at(short / "relay")
    )
    other = await Ledger.open(elsewhere, clock=clock, settings=store.settings)
    await team.commit(note(), changes=[agent()])
    await other.commit(note(), changes=[replace(agent("agt_2"), name="second")])
    relay.lose = "answer"
    granted = team.commit(decision(n="lose this"), changes=[token(clock)])
    if told:
        await relay.lost.wait()
        relay.away = True
        relay.cut()
        with pytest.raises(OutcomeUnknownError):
            await granted
        await other.commit(note(), changes=[replace(agent("agt_3"), name="third")])
        relay.away = False
        await until(lambda: team.writable)
        reasons = [one.reason for one in (await events_of(team))[-2:]]
        assert reasons == ["batch_found", "not_delivered"]
    else:
        assert [one.seq for one in await granted] == [3]
    await other.commit(note())
    await team.commit(note())
    events = await events_of(team)
    await team.close()
    await other.close()
    assert [one.seq for one in events] == list(range(1, 9 if told else 6))
    again = await Ledger.open(elsewhere, clock=clock, settings=store.settings)
    assert await events_of(again) == events
    assert (await again.load()).tokens == (() if told else (token(clock),))
    await again.close()
    assert verify_ledger(home).ok
    assert verify_ledger(elsewhere).ok


async def test_an_outage_refuses_all_and_ends(
    team: Ledger, relay: Relay, clock: ManualClock
) -> None:
    """While the store is away nothing is taken, reads work, and then it goes on."""
    await team.commit(note())
    relay.away = True
    relay.cut()
    await until(lambda: team.store_problem is not None)
    with pytest.raises(LedgerUnwritableError):
        await team.confirm()
    with pytest.raises(LedgerUnwritableError):
        await team.commit(note(EventType.AGENT_REVOKED), urgent=True)
    assert not team.takes_cuts
    assert len(await events_of(team)) == 1
    relay.away = False
    await until(lambda: team.writable)
    await team.confirm()
    await team.commit(decision())


async def test_a_copy_that_cannot_be_written_is_made_up(
    team: Ledger, home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store has is answered once the copy has it, too; nothing is lost."""
    await team.commit(note())
    failing = True

    def full(db: Any, statements: Any) -> None:
        if failing:
            raise OSError(28, "No space left on device")
        write(db, statements)

    write = sqlite_store.write
    monkeypatch.setattr(sqlite_store, "write", full)
    granted = team.commit(decision(), changes=[token(clock)])
    await until(lambda: team.store_problem is not None)
    with pytest.raises(LedgerUnwritableError):
        team.commit(decision())
    failing = False
    (event,) = await granted
    assert event.seq == 2
    await until(lambda: team.store_problem is None)
    await team.commit(decision())
    await team.close()
    assert verify_ledger(home).ok


def _lose_tail(store: Database) -> None:
    """Bring the store back to an earlier state, as a failover to a lagging replica."""
    store.run("ALTER TABLE agentvault.events DISABLE TRIGGER events_are_kept")
    store.run("DELETE FROM agentvault.events WHERE seq > 1")
    store.run(
        "UPDATE agentvault.head SET seq = 1, batch = gen_random_uuid(),"
        " hash = (SELECT hash FROM agentvault.events WHERE seq = 1)"
    )


async def test_a_store_that_lost_what_was_acknowledged_grants_nothing(
    short: Path, home: Home, store: Database, clock: ManualClock
) -> None:
    """Not by the broker that knows, nor by any other, until a person accepts it."""
    ledger = await Ledger.open(home, clock=clock, settings=store.settings)
    for _ in range(3):
        await ledger.commit(note())
    await ledger.close()
    _lose_tail(store)
    other = Home(short / "other", short / "other")
    second = await Ledger.open(other, clock=clock, settings=store.settings)
    await second.commit(decision())
    ledger = await Ledger.open(home, clock=clock, settings=store.settings)
    assert not ledger.writable
    assert "does not contain event 3" in (ledger.problem or "")
    assert len(await events_of(ledger)) == 3
    await ledger.close()
    await until(lambda: not second.writable)
    with pytest.raises(LedgerUnwritableError):
        await second.commit(decision())
    await second.commit(
        note(EventType.AGENT_REVOKED), changes=[DropAgentTokens(ONE)], urgent=True
    )
    event = await accept_store(
        home, store.settings, clock=clock, actor=OLGA, reason="the replica lagged"
    )
    assert (event.reason, event.detail["expected"]["seq"]) == ("rollback_accepted", 3)
    await until(lambda: second.writable)
    await second.confirm()
    await second.commit(decision())
    await second.close()
    ledger = await Ledger.open(home, clock=clock, settings=store.settings)
    await ledger.commit(decision())
    await ledger.close()
    assert verify_ledger(home).ok
    assert any(home.data.glob("agentvault.db.*"))


# A server of its own


async def test_a_store_that_restarts_loses_nothing(
    home: Home, own_store: Database, clock: ManualClock
) -> None:
    """Commits at that moment are there or were refused; afterwards it goes on."""
    ledger = await Ledger.open(home, clock=clock, settings=own_store.settings)
    answered: list[int] = []
    stop = asyncio.Event()

    async def commits() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                (event,) = await ledger.commit(decision(number=number))
                answered.append(event.seq)
            except LedgerUnwritableError:
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(commits()) for _ in range(4)]
    for number, how in enumerate((signal.SIGINT, signal.SIGQUIT), 1):
        await until(lambda most=number * 20: len(answered) > most)
        await asyncio.to_thread(own_store.cluster.stop, how)
        await asyncio.to_thread(own_store.cluster.start)
        await until(lambda: ledger.writable)
    stop.set()
    await asyncio.gather(*tasks)
    stored = [event.seq for event in await events_of(ledger)]
    assert stored[: len(stored)] == list(range(1, len(stored) + 1))
    assert len(answered) == len(set(answered))
    await ledger.close()
    assert verify_ledger(home).ok


async def test_a_backend_killed_in_a_commit_is_found_out(
    home: Home, own_store: Database, clock: ManualClock
) -> None:
    """SIGKILL of the writing backend restarts the server; each answer is true."""
    ledger = await Ledger.open(home, clock=clock, settings=own_store.settings)
    await ledger.commit(note())
    ((pid, *_), *_) = own_store.run(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%%agentvault.append%%'"
        " AND pid <> pg_backend_pid() ORDER BY state_change DESC"
    )
    granted = asyncio.gather(
        *(
            ledger.commit(decision(number=n), changes=[token(clock, f"tok_{n}")])
            for n in range(40)
        ),
        return_exceptions=True,
    )
    os.kill(int(str(pid)), signal.SIGKILL)
    answers = await granted
    await until(lambda: ledger.writable)
    told = [one[0].seq for one in answers if isinstance(one, tuple)]
    stored = [event.seq for event in await events_of(ledger) if event.outcome]
    assert set(told) <= set(stored)
    await ledger.close()
    assert verify_ledger(home).ok


async def test_a_read_only_store_takes_nothing(
    home: Home, own_store: Database, clock: ManualClock
) -> None:
    """Refused while it is so; afterwards it goes on."""
    ledger = await Ledger.open(home, clock=clock, settings=own_store.settings)
    await ledger.commit(note())
    own_store.run("ALTER SYSTEM SET default_transaction_read_only = on")
    own_store.run("SELECT pg_reload_conf()")
    await until(lambda: _shows(own_store, "on"))
    assert isinstance(await _first_refusal(ledger), LedgerUnwritableError)
    _superuser(own_store, "ALTER SYSTEM RESET default_transaction_read_only")
    await until(lambda: ledger.writable)
    await ledger.commit(decision())
    await ledger.close()


async def _first_refusal(ledger: Ledger, size: int = 0) -> BaseException | None:
    """Commit until something is refused; PostgreSQL does not compress noise."""
    for _ in range(500):
        fills = [os.urandom(size).hex() for _ in range(32)]
        many = (ledger.commit(decision(fill=fill)) for fill in fills)
        for done in await asyncio.gather(*many, return_exceptions=True):
            if isinstance(done, BaseException):
                return done
    return None


def _shows(own_store: Database, value: str) -> bool:
    return own_store.run("SHOW default_transaction_read_only") == [(value,)]


def _superuser(own_store: Database, sql: str) -> None:
    with psycopg.connect(
        host=str(own_store.cluster.folder),
        dbname=own_store.name,
        user="postgres",
        autocommit=True,
        options="-c default_transaction_read_only=off",
    ) as db:
        db.execute(sql)
        db.execute("SELECT pg_reload_conf()")


async def test_a_broker_that_waits_its_turn_waits_for_no_replica(
    home: Home, own_store: Database, clock: ManualClock
) -> None:
    """It wrote nothing, so it never holds the head until a replica has confirmed."""
    ledger = await Ledger.open(home, clock=clock, settings=own_store.settings)
    await ledger.commit(note())
    own_store.run(
        "UPDATE agentvault.head SET turn = 'brk_x', turn_ends = 'infinity'::timestamptz"
    )
    own_store.run("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    own_store.run("SELECT pg_reload_conf()")
    await until(
        lambda: own_store.run("SHOW synchronous_standby_names") == [("absent",)]
    )
    with pytest.raises(LedgerBusyError):
        await ledger.commit(decision(), changes=[token(clock)])
    assert ledger.store_problem is None
    await ledger.close()


async def test_a_stopped_store_is_given_up(
    home: Home, own_store: Database, clock: ManualClock
) -> None:
    """A server that answers nothing (SIGSTOP) holds nobody for long, and comes back."""
    ledger = await Ledger.open(home, clock=clock, settings=own_store.settings)
    await ledger.commit(note(), changes=[agent()])
    with own_store.cluster.stopped():
        with pytest.raises(LedgerUnwritableError):
            await ledger.confirm()
        granted = ledger.commit(decision(), changes=[token(clock)])
        await until(lambda: ledger.store_problem is not None)
        with pytest.raises(LedgerUnwritableError):
            await ledger.commit(note(EventType.AGENT_REVOKED), urgent=True)
    (told,) = await asyncio.gather(granted, return_exceptions=True)
    await until(lambda: ledger.writable)
    stored = [event.seq for event in await events_of(ledger) if event.outcome]
    assert stored == ([told[0].seq] if isinstance(told, tuple) else [])
    await ledger.commit(decision())
    await ledger.close()


async def test_a_full_store_takes_nothing_and_goes_on_with_room(
    small_disk: Path, home: Home, own_store: Database, clock: ManualClock
) -> None:
    """What did not fit was refused as a whole; with room again it goes on."""
    store, cluster = own_store, own_store.cluster
    place = small_disk / "space"
    place.mkdir()
    there = pwd.getpwnam("postgres")
    os.chown(place, there.pw_uid, there.pw_gid)
    cluster.run("postgres", f"CREATE TABLESPACE small LOCATION '{place}'")
    cluster.run("postgres", f"ALTER DATABASE {store.name} SET TABLESPACE small")
    ledger = await Ledger.open(home, clock=clock, settings=store.settings)
    assert isinstance(await _first_refusal(ledger, 1700), LedgerUnwritableError)
    count = ledger.head.seq
    assert "No space left" in (ledger.problem or "")
    await asyncio.to_thread(
        subprocess.run,
        ["/bin/mount", "-o", "remount,size=200m", str(small_disk)],
        check=True,
    )
    await until(lambda: ledger.writable)
    await ledger.commit(decision())
    assert ledger.head.seq > count
    await ledger.close()
    assert verify_ledger(home).ok
    cluster.stop(signal.SIGQUIT)


async def test_a_promoted_replica_goes_on_and_the_old_primary_never_does(
    short: Path, home: Home, own_store: Database, clock: ManualClock
) -> None:
    """After a failover all that was answered is there; the earlier timeline is refused.

    The replica is a synchronous one.
    """
    cluster = own_store.cluster
    replica = cluster.replica()
    folders = f"{cluster.folder},{replica.folder}"
    both = own_store.settings_at(folders)
    ledger = await Ledger.open(home, clock=clock, settings=both)
    for _ in range(5):
        await ledger.commit(note())
    await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
    await until(lambda: not ledger.writable)
    replica.run("postgres", "SELECT pg_promote()")
    replica.run("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
    replica.run("postgres", "SELECT pg_reload_conf()")
    await until(lambda: ledger.writable)
    (event,) = await ledger.commit(decision())
    assert event.seq == 6
    await asyncio.to_thread(replica.stop, signal.SIGINT)
    await asyncio.to_thread(cluster.start, "synchronous_standby_names=")
    await until(lambda: "later one was seen" in (ledger.store_problem or ""))
    with pytest.raises(LedgerUnwritableError):
        await ledger.commit(decision())
    await ledger.close()
    again = await Ledger.open(home, clock=clock, settings=both)
    assert "later one was seen" in (again.store_problem or "")
    await again.close()
