"""The store places a transaction unless one of its keys was written meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Coroutine
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.ledger_kit import agent, decision, manual_clock, note, token
from support.patience import PATIENT, until
from support.postgres import TEAM, Database

from agentvault_tui.errors import LedgerDamagedError, LedgerUnwritableError
from agentvault_tui.ledger import DropAgentTokens, DropToken, Meta, Panic
from agentvault_tui.ledger.batch import Job, Tip
from agentvault_tui.ledger.shared_log import Appended, SharedLog, StoreHead, followed
from agentvault_tui.model import AgentId, EventType, Outcome, TokenId
from agentvault_tui.store_connection import Connector

CLOCK = manual_clock()
KINDS = ("grant", "deny", "change", "revoke", "drop", "meta", "panic", "limited")
NAMES = tuple(f"agt_{uuid.uuid4().hex[:8]}" for _ in range(3))
_T = TypeVar("_T")


def log_of(store: Database, name: str) -> SharedLog:
    return SharedLog(Connector(store.url, TEAM), name, 1, CLOCK)


def job_of(kind: str, name: str, known: StoreHead) -> Job:
    """Return a commit about an agent, made from what is known."""
    who, numbers = AgentId(name), count(known.n + 1)
    made = f"tok_{uuid.uuid4().hex}"
    used = {"at": "", "limits": {"daily": {"count": 1}}}
    match kind:
        case "grant":
            return Job.of([decision(name)], [token(CLOCK, made, name)], numbers)
        case "limited":
            drafts = [decision(name, counted=used)]
            return Job.of(drafts, [token(CLOCK, made, name)], numbers)
        case "deny":
            return Job.of([decision(name, Outcome.DENIED)], [], numbers)
        case "change":
            return Job.of(
                [note(agent=name)], [replace(agent(name), name=name)], numbers
            )
        case "revoke":
            drafts = [note(EventType.AGENT_REVOKED, name)]
            return Job.of(drafts, [DropAgentTokens(who)], numbers)
        case "drop":
            dropped = DropToken(TokenId(f"tok_{name}"))
            return Job.of([note(EventType.TOKEN_REVOKED, name)], [dropped], numbers)
        case "meta":
            return Job.of([], [Meta(name, made)], numbers)
    stopped = Panic(True, CLOCK.now(), "olga", made)
    return Job.of([note(EventType.PANIC_ON, name)], [stopped], numbers)


class Writers(RuleBasedStateMachine):
    """Three brokers that know different heads, against a list of what was placed."""

    store: Database
    outcomes: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.logs = [log_of(self.store, f"brk_{n}") for n in range(3)]
        self.placed: list[tuple[int, set[str]]] = []

    def teardown(self) -> None:
        for log in self.logs:
            self.run(log.close())
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self.store.run("UPDATE agentvault.head SET turn = NULL")
        head = self.run(self.logs[0].end())
        self.known = [head] * 3
        self.n = head.n

    @rule(
        who=st.integers(0, 2),
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
        name=st.sampled_from(NAMES),
    )
    def append(self, who: int, kinds: list[str], name: str) -> None:
        """It is placed exactly if nothing placed since what is known wrote its keys."""
        known, jobs = self.known[who], list[Job]()
        for kind in kinds:
            jobs.append(job_of(kind, name, known))
            if len(jobs) > 1 and (last := jobs[-2].rows):
                jobs[-1].shift(max(row[0 if t == "tokens" else -1] for t, row in last))
                jobs[-1].shift(-known.n)
        depends = set().union(*(job.depends for job in jobs))
        since = [keys for revision, keys in self.placed if revision > known.revision]
        stands = all(keys.isdisjoint(depends) for keys in since)
        batch = str(uuid.uuid4())
        found = self.run(self.logs[who].append(known, jobs, batch, urgent=False))
        self.outcomes[found.outcome] += 1
        self.store.run("UPDATE agentvault.head SET turn = NULL")
        first_of_all = known.revision == 0 and bool(since)
        if not stands or first_of_all:
            assert found.outcome == "behind"
            self.known[who] = self.follow(known, found)
            return
        assert found.outcome == "placed"
        assert found.n == self.n
        if since:
            before = self.follow(known, found)
            assert (before.revision, before.n) == (found.revision - 1, found.n)
        written = set().union(*(job.writes for job in jobs))
        self.placed.append((found.revision, written))
        self.known[who] = self.run(self.logs[who].end())
        assert self.known[who].batch == batch
        offsets = [row[0 if t == "tokens" else -1] for j in jobs for t, row in j.rows]
        used = [one - known.n for one in offsets]
        assert self.known[who].n == self.n + max(used, default=0)
        self.n = self.known[who].n

    @rule(who=st.integers(0, 2))
    def catches_up(self, who: int) -> None:
        found = self.run(self.logs[who].follow(self.known[who], 5.0))
        assert found.complete
        self.known[who] = found.head

    @invariant()
    def what_is_stored_is_numbered_once_and_bound(self) -> None:
        """Each token's row has a number of its own, which its event binds."""
        rows = self.store.run(
            "SELECT key, n, convert_from(doc, 'UTF8')::json ->> 0,"
            " convert_from(doc, 'UTF8')::json ->> 1,"
            " (SELECT convert_from(body, 'UTF8')::json -> 'state'"
            "   FROM agentvault.events"
            "   WHERE seq = (convert_from(doc, 'UTF8')::json ->> 5)::bigint)"
            " FROM agentvault.state WHERE kind = 'tokens' ORDER BY n DESC LIMIT 3"
        )
        for key, n, inside, token_id, state in rows:
            assert key == str(n) == inside
            assert isinstance(state, dict)
            assert state[token_id].startswith(f"{n}:")

    def follow(self, known: StoreHead, found: Appended) -> StoreHead:
        """Take over what an answer has, which is a chain from what is known on."""
        missed = followed(found.missed, known)
        assert missed.complete
        return missed.head


@pytest.mark.slow
def test_a_transaction_is_placed_unless_one_of_its_keys_was_written(
    store: Database,
) -> None:
    """Whatever several brokers know and write, in any order; numbers stay unique."""
    outcomes = Counter[str]()
    machine = type("Machine", (Writers,), {"store": store, "outcomes": outcomes})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=20, stateful_step_count=15)
    )
    assert outcomes.keys() == {"placed", "behind"}


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        ((0, 3, 5, 9, "b", None, b"3" * 32), False),
        ((0, 2, 5, 9, "b", None, None), True),
        ((0, 3, 5, 9, "b", None, b"x" * 32), True),
        ((0, 3, 4, 9, "b", None, b"3" * 32), True),
        ((0, 3, 5, 9, "other", None, b"3" * 32), True),
    ],
    ids=["the same", "shorter", "another event", "fewer changes", "another change"],
)
def test_a_log_that_does_not_have_what_is_known_is_damaged(
    found: tuple[Any, ...], lost: bool
) -> None:
    """Rows alone may be lost too: their last transaction is looked for by its name."""
    known = StoreHead(Tip(3, b"3" * 32, CLOCK.now()), revision=5, batch="b", n=9)
    with pytest.raises(LedgerDamagedError) if lost else nullcontext():
        assert followed([found], known).head == known
    # What this broker read in part has no name yet.
    partly = replace(known, batch="")
    if found[4] == "other":
        assert followed([found], partly).complete


async def test_a_fault_that_is_known_is_told_once(store: Database) -> None:
    """Brokers follow each change of the head, so nothing is changed for nothing."""
    log = log_of(store, "brk_a")
    found = []
    for fault in (None, "event 3 is gone", "event 3 is gone", None, None):
        await log.set_fault(fault)
        found.append(await log.revision())
    await log.close()
    first = found[0]
    assert found == [first, first + 1, first + 1, first + 2, first + 2]


async def test_what_arrives_late_is_placed_once_or_never(store: Database) -> None:
    """A request is not placed again after others, nor after it was given up."""
    log = log_of(store, "brk_1")
    known = await log.end()
    await log.append(known, [job_of("deny", "agt_1", known)], _new(), urgent=False)
    known, twice, given_up = await log.end(), _new(), _new()
    jobs = [job_of("deny", "agt_1", known)]
    first = await log.append(known, jobs, twice, urgent=False)
    assert await log.append(known, jobs, twice, urgent=False) == first
    second = await log.append(known, jobs, _new(), urgent=False, instead=given_up)
    assert (first.outcome, second.outcome) == ("placed", "placed")
    for late in (twice, given_up):
        found = await log.append(known, jobs, late, urgent=True)
        assert found.outcome == "behind"
    assert (await log.end()).tip.seq == second.seq
    await log.close()


async def test_a_server_that_takes_no_notification_takes_every_transaction(
    store: Database,
) -> None:
    """Any role can fill the server's one queue: then brokers poll, and append."""
    store.run("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify FROM PUBLIC")
    writing, listening = log_of(store, "brk_1"), log_of(store, "brk_2")
    known, seen = await writing.end(), asyncio.Event()
    revision = known.revision + 1

    def on_revision(found: int) -> None:
        if found >= revision:
            seen.set()

    tasks = [
        asyncio.create_task(log.listen(told))
        for log, told in ((writing, lambda _: None), (listening, on_revision))
    ]
    found = await writing.append(
        known, [job_of("deny", "agt_1", known)], _new(), urgent=False
    )
    assert found.outcome == "placed"
    async with asyncio.timeout(PATIENT):
        await seen.wait()
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await writing.close()
    await listening.close()


async def test_without_a_list_of_what_was_written_a_broker_follows_first(
    store: Database,
) -> None:
    """A server that crashed, or was promoted, has lost it; nothing is assumed."""
    log = log_of(store, "brk_1")
    for lost in ("DELETE FROM agentvault.written", "UPDATE agentvault.written SET {}"):
        known = await log.end()
        for _ in range(2):
            at = await log.end()
            await log.append(at, [job_of("deny", "agt_1", at)], _new(), urgent=False)
        store.run(lost.format("batch = gen_random_uuid()"))
        job = job_of("deny", "agt_1", known)
        found = await log.append(known, [job], _new(), urgent=False)
        assert found.outcome == "behind"
        store.run("UPDATE agentvault.head SET turn = NULL")
    await log.close()


async def test_of_two_rows_under_one_key_the_later_one_is_stored(
    store: Database,
) -> None:
    """PostgreSQL refuses to write a row twice in one statement; either order is one."""
    log = log_of(store, "brk_1")
    for turn in (1, -1):
        known = await log.end()
        numbers = count(known.n + 1)
        jobs = [Job.of([], [Meta("k", value)], numbers) for value in ("old", "new")]
        found = await log.append(known, jobs[::turn], _new(), urgent=False)
        assert found.outcome == "placed"
        doc = "SELECT convert_from(doc, 'UTF8')::json ->> 1 FROM agentvault.state"
        assert store.run(doc) == [("new",)]
    await log.close()


async def test_a_commit_that_may_not_be_on_its_replica_has_no_answer(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL warns of it; its connection is not used for another one."""
    log = log_of(store, "brk_1")
    known = await log.end()
    await log.append(known, [job_of("deny", "agt_1", known)], _new(), urgent=False)
    store.run(
        "CREATE FUNCTION public.warn() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE WARNING 'as after a cancelled wait'; RETURN NEW; END $$"
    )
    store.run(
        "CREATE TRIGGER warns AFTER UPDATE ON agentvault.head"
        " EXECUTE FUNCTION public.warn()"
    )
    known, batch = await log.end(), _new()
    jobs = [job_of("deny", "agt_1", known)]
    used = await log._connected()
    with pytest.raises(LedgerUnwritableError, match="replicas"):
        await log.append(known, jobs, batch, urgent=False)
    assert used.closed
    store.run("DROP TRIGGER warns ON agentvault.head")
    found = await log.append(known, jobs, batch, urgent=False)
    assert (found.outcome, found.seq) == ("placed", 2)
    await log.close()


async def test_a_log_that_is_closed_has_no_connection(store: Database) -> None:
    """Neither one that wrote or looked, nor one that was lent at that moment."""
    log = log_of(store, "brk_1")
    await log.connect_urgent()
    await log.end()
    await asyncio.gather(*(log.on_idle("SELECT 1") for _ in range(2)))
    look = asyncio.ensure_future(log.on_idle("SELECT 1"))
    await asyncio.sleep(0)
    await log.close()
    await look
    there = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'agentvault'"
    )
    await until(lambda: store.run(there) == [(0,)])
    assert store.run(there) == [(0,)]


def _new() -> str:
    return str(uuid.uuid4())
