"""Committing: durable, in one transaction with its state, in order, never blocked."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from support.ledger_kit import agent, decided, decision, note, stepup, token
from support.manual_clock import ManualClock
from support.patience import until

from agentvault_tui.clock import Deadline, iso
from agentvault_tui.errors import HomeInUseError, LedgerUnwritableError
from agentvault_tui.home import Home
from agentvault_tui.ledger import (
    Cooldown,
    DropAgentTokens,
    DropToken,
    EventQuery,
    Ledger,
    Meta,
    OutboxStep,
    Panic,
    UsedAssertion,
)
from agentvault_tui.ledger.state import prune, read_stepup
from agentvault_tui.model import (
    AgentCounts,
    AgentId,
    EventType,
    Outcome,
    StepUpStatus,
    TokenId,
)

_REST = "time, type, agent_id, outcome, text, body, hash FROM events"


async def test_a_commit_is_on_disk_when_it_returns(
    home: Home, ledger: Ledger, clock: ManualClock
) -> None:
    """Another connection sees the event and its state as soon as commit returns."""
    (event,) = await ledger.commit(decision(), changes=[token(clock)])
    with closing(sqlite3.connect(home.database)) as other, other:
        rows = other.execute("SELECT seq, agent_id, hash FROM events").fetchall()
        tokens = other.execute("SELECT id FROM tokens").fetchall()
    other.close()
    assert rows == [(1, "agt_1", bytes.fromhex(event.hash.removeprefix("sha256:")))]
    assert tokens == [("tok_1",)]
    assert ledger.head.hash == event.hash


async def test_what_commit_returns_is_what_is_read_back(ledger: Ledger) -> None:
    """The event a caller gets equals the one any reader gets later."""
    (event,) = await ledger.commit(decision(parameters={"b": [1, "ü"], "a": 1.5}))
    assert await ledger.event(1) == event
    assert (await ledger.events(EventQuery())).events == (event,)
    assert await ledger.event(2) is None
    assert await ledger.event(10**30) is None


async def test_state_comes_back_exactly(home: Home, clock: ManualClock) -> None:
    """Agents, tokens, step-ups, panic, outbox and values survive a restart."""
    panic = Panic(True, clock.now(), "alice", "test\ud800")
    step = OutboxStep(
        "agt_1/vault grant",
        AgentId("agt_1"),
        "vault grant",
        clock.now(),
        attempts=2,
        next_at=clock.now(),
        problem="no answer",
    )
    cooldown = Cooldown(AgentId("agt_1"), 3, Deadline.after(clock, 120))
    used = UsedAssertion("agt_1", "cd", clock.now() + timedelta(seconds=1))
    first = await Ledger.open(home, clock=clock)
    changes = [
        agent(),
        token(clock),
        stepup(clock),
        decided(clock),
        panic,
        step,
        cooldown,
        Cooldown(AgentId("agt_2")),
        used,
        Meta("k", "v"),
        Meta("gone", None),
    ]
    await first.commit(decision(), note(), changes=changes)
    await first.close()
    second = await Ledger.open(home, clock=clock)
    loaded = await second.load()
    one = await second.read(read_stepup, stepup(clock).id)
    await second.close()
    assert loaded.agents == (agent(),)
    assert loaded.tokens == (token(clock),)
    assert set(map(repr, loaded.stepups)) == {repr(stepup(clock)), repr(decided(clock))}
    assert one == stepup(clock)
    assert (loaded.panic, loaded.outbox, loaded.meta) == (panic, (step,), {"k": "v"})
    assert loaded.cooldowns == (cooldown,)
    assert loaded.assertions == (used,)
    assert loaded.counts == {AgentId("agt_1"): AgentCounts(1, 0, 0)}
    assert loaded.last_seen == {AgentId("agt_1"): clock.now()}


async def test_used_assertions_are_kept_until_they_expire(
    home: Home, ledger: Ledger, clock: ManualClock
) -> None:
    """Chores delete those that have expired, and nothing else that has a name."""
    early = UsedAssertion("agt_1", "ab", clock.now() + timedelta(seconds=1))
    late = replace(early, expires=clock.now() + timedelta(seconds=3))
    cooldown = Cooldown(AgentId("agt_1"), 1, Deadline.after(clock, 30))
    await ledger.commit(changes=[early, late, cooldown, Meta("zz", "v")])
    with closing(sqlite3.connect(home.database)) as other, other:
        before = other.execute("SELECT count(*) FROM meta").fetchone()[0]
        later = iso(clock.now() + timedelta(seconds=2))
        for sql, values in prune(later, 100, later):
            other.execute(sql, values)
        assert other.execute("SELECT count(*) FROM meta").fetchone()[0] == before - 1
    other.close()
    loaded = await ledger.load()
    assert loaded.assertions == (late,)
    assert (loaded.cooldowns, loaded.meta) == ((cooldown,), {"zz": "v"})


async def test_only_live_tokens_load(ledger: Ledger, clock: ManualClock) -> None:
    """Expired, dropped and voided tokens do not come back."""
    await ledger.commit(
        changes=[token(clock, f"tok_{n}", f"agt_{n % 2}") for n in range(6)]
    )
    await ledger.commit(changes=[DropToken(TokenId("tok_0"))])
    await ledger.commit(changes=[DropAgentTokens(AgentId("agt_1"))])
    await ledger.commit(changes=[token(clock, "tok_new", "agt_1")])
    names = [found.id for found in (await ledger.load()).tokens]
    assert names == ["tok_2", "tok_4", "tok_new"]
    clock.advance(3600)
    assert (await ledger.load()).tokens == ()


async def test_counts_are_those_of_the_answers(ledger: Ledger) -> None:
    """Counts by outcome equal the decisions of every type; nothing else counts."""
    answers = [Outcome.ALLOWED] * 2 + [Outcome.DENIED] * 2 + [Outcome.ESCALATED]
    evaluated = replace(decision("agt_7"), type=EventType.ACCESS_DECISION)
    await ledger.commit(evaluated)
    await asyncio.gather(*(ledger.commit(decision("agt_7", o)) for o in answers))
    await ledger.commit(note(agent="agt_7"))
    loaded = await ledger.load()
    assert loaded.counts[AgentId("agt_7")] == AgentCounts(3, 2, 1)


async def test_an_outcome_belongs_to_decisions_alone(ledger: Ledger) -> None:
    """A draft whose outcome and type do not fit is refused and harms nobody."""
    with pytest.raises(ValueError, match="outcome"):
        await ledger.commit(
            decision(),
            decision(outcome=None),  # type: ignore[arg-type]
        )
    await ledger.commit(decision())
    assert ledger.head.seq == 1


async def test_the_record_of_an_evaluation_binds_no_row(ledger: Ledger) -> None:
    """Of the decisions, that of a token alone binds a row: a start reads no other.

    What an evaluation changed is bound by the event beside it.
    """
    evaluated = replace(decision(), type=EventType.ACCESS_DECISION)
    ended = note(EventType.TOKEN_REDEEMED)
    dropped = DropToken(TokenId("tok_1"))
    events = await ledger.commit(evaluated, ended, changes=[dropped])
    links = await ledger.links([event.seq for event in events])
    assert ["tok_1" in link.body for link in links] == [False, True]


async def test_a_caller_that_leaves_does_not_stop_the_writer(ledger: Ledger) -> None:
    """A cancelled caller's commit is written, and the next one works."""
    task = asyncio.ensure_future(ledger.commit(decision()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (event,) = await ledger.commit(decision())
    assert event.seq == 2


async def test_listeners_hear_every_commit_in_order(ledger: Ledger) -> None:
    """The observer sees each commit with its changes, in the order of the chain."""
    heard: list[tuple[int, int]] = []
    ledger.listeners.written.append(
        lambda events, changes: heard.append((events[0].seq, len(changes)))
    )
    await asyncio.gather(
        *(ledger.commit(decision(), changes=[Meta("n", str(n))] * n) for n in range(20))
    )
    assert heard == [(n + 1, n) for n in range(20)]


async def test_a_failing_listener_does_not_stop_the_writer(ledger: Ledger) -> None:
    """What is durable stays so, whatever a listener makes of it."""

    def fail(*_: object) -> None:
        raise RuntimeError("listener")

    ledger.listeners.written.append(fail)
    await ledger.commit(decision())
    await ledger.commit(decision())
    assert ledger.head.seq == 2
    assert ledger.writable


async def test_decided_stepups_load_up_to_fifty(
    ledger: Ledger, clock: ManualClock
) -> None:
    """All that wait load, and of the decided ones the latest fifty, newest first."""
    await ledger.commit(changes=[stepup(clock, f"sup_w{n}") for n in range(60)])
    for n in range(70):
        await ledger.commit(
            changes=[stepup(clock, f"sup_d{n}", status=StepUpStatus.DENIED)]
        )
    names = [found.id for found in (await ledger.load()).stepups]
    assert len([name for name in names if name.startswith("sup_w")]) == 60
    assert names[60:] == [f"sup_d{n}" for n in range(69, 19, -1)]


@pytest.mark.slow
async def test_expired_tokens_are_pruned_and_events_never(
    home: Home, ledger: Ledger, clock: ManualClock
) -> None:
    """The chores delete expired tokens' rows; every event stays, the drop's too."""
    await ledger.commit(decision(), changes=[token(clock)])
    await ledger.commit(changes=[DropToken(TokenId("tok_1"))])
    clock.advance(4000)
    for n in range(300):
        await ledger.commit(decision(), changes=[token(clock, f"tok_x{n}")])
    await ledger.close()
    db = sqlite3.connect(home.database)
    oldest = db.execute("SELECT id FROM tokens ORDER BY n LIMIT 1").fetchone()
    dropped = db.execute("SELECT count(*) FROM dropped").fetchone()
    events = db.execute("SELECT count(*) FROM events").fetchone()
    db.close()
    assert (oldest, dropped, events) == (("tok_x0",), (0,), (302,))


async def test_every_file_is_private_under_any_umask(
    home: Home, clock: ManualClock
) -> None:
    """Database, log, index, head and lock are 0600 and folders 0700 under umask 000."""
    before = os.umask(0)
    try:
        ledger = await Ledger.open(home, clock=clock)
        await ledger.commit(decision())
        modes = {
            path: path.stat().st_mode & 0o777
            for path in [home.data, *home.data.rglob("*")]
        }
        folders = {path for path in modes if path.is_dir()}
        await ledger.close()
    finally:
        os.umask(before)
    assert home.database.with_name("agentvault.db-wal") in modes
    for path, mode in modes.items():
        assert mode == (0o700 if path in folders else 0o600), path


async def test_a_second_broker_is_told_who_has_the_home(
    home: Home, ledger: Ledger
) -> None:
    """Another process that opens the same home is refused with the holder's pid."""
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from agentvault_tui.clock import SystemClock\n"
        "from agentvault_tui.errors import HomeInUseError\n"
        "from agentvault_tui.home import Home\n"
        "from agentvault_tui.ledger import Ledger\n"
        "path = Path(sys.argv[1])\n"
        "try:\n"
        "    asyncio.run(Ledger.open(Home(path, path), clock=SystemClock()))\n"
        "except HomeInUseError as error:\n"
        "    print(error.diagnosis())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, str(home.data)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"process {os.getpid()}" in done.stdout
    await ledger.commit(decision())


async def test_a_writer_that_fails_is_told_of(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes a broker that records nothing any more for one that does."""

    async def broken(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(ledger._store, "take", broken)
    ledger._store.writer.request_maintenance()
    await until(lambda: not ledger.writable)
    assert ledger.problem == "writing ended (RuntimeError): see the log"
    with pytest.raises(LedgerUnwritableError):
        await ledger.commit(note())


async def test_closing_lets_the_next_broker_in(home: Home, clock: ManualClock) -> None:
    """After close the home is free, commits are refused, and nothing waits for ever."""
    ledger = await Ledger.open(home, clock=clock)
    with pytest.raises(HomeInUseError):
        await Ledger.open(home, clock=clock)
    pending = asyncio.ensure_future(ledger.commit(decision()))
    await asyncio.sleep(0)
    await ledger.close()
    await ledger.close()
    (event,) = await pending
    with pytest.raises(LedgerUnwritableError):
        await ledger.commit(decision())
    assert not ledger.writable
    again = await Ledger.open(home, clock=clock)
    assert again.head.hash == event.hash
    await again.close()


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE events SET outcome = 'denied' WHERE seq = 2",
        "DELETE FROM events WHERE seq = 3",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE seq = 2",
        f"REPLACE INTO events SELECT 3, {_REST} WHERE seq = 2",
        "UPDATE OR REPLACE events SET seq = 2 WHERE seq = 3",
        f"INSERT INTO events SELECT 1, {_REST} WHERE 1 ON CONFLICT DO UPDATE SET seq=9",
        f"INSERT INTO events SELECT 99, {_REST} WHERE seq = 1",
    ],
)
async def test_events_cannot_be_changed_by_a_plain_connection(
    home: Home, ledger: Ledger, attack: str
) -> None:
    """UPDATE, DELETE, every form of REPLACE and a gap abort, with default settings."""
    await asyncio.gather(*(ledger.commit(decision(number=n)) for n in range(3)))
    other = sqlite3.connect(home.database)
    other.execute("PRAGMA recursive_triggers = OFF")
    before = other.execute("SELECT * FROM events").fetchall()
    with pytest.raises(sqlite3.IntegrityError, match="events are"):
        other.execute(attack)
    other.rollback()
    assert other.execute("SELECT * FROM events").fetchall() == before
    other.close()


async def test_urgent_commits_without_end_keep_nobody_waiting(ledger: Ledger) -> None:
    """An agent that ends its own tokens one after another delays no decision."""
    urgent, done = 0, False

    async def hand_back() -> None:
        nonlocal urgent
        while not done and urgent < 5_000:
            await ledger.commit(note(), urgent=True)
            urgent += 1

    flood = asyncio.gather(*(hand_back() for _ in range(64)))
    await ledger.commit(decision())
    decided_after, done = urgent, True
    await flood
    assert decided_after < 1_000


async def test_other_processes_never_find_the_log_unlocked(
    home: Home, ledger: Ledger
) -> None:
    """Else SQLite in one of them empties its index under the writer, which crashes."""
    for n in range(40):
        await ledger.commit(decision(n=n))
    dead_man_switch = 128  # sqlite.org/src: UNIX_SHM_DMS, which each user of it holds
    look = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        f"fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, {dead_man_switch})\n"
    )
    argv = [sys.executable, "-c", look, f"{home.database}-shm"]
    found = await asyncio.to_thread(
        subprocess.run, argv, capture_output=True, text=True, check=False
    )
    assert "BlockingIOError" in found.stderr
