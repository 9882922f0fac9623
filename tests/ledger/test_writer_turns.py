"""Commits share transactions, in the order of their urgency; callers hear in turn."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from support.ledger_kit import agent, decision, note, token
from support.manual_clock import ManualClock
from support.patience import until

from agentvault_tui.errors import LedgerBusyError
from agentvault_tui.home import Home
from agentvault_tui.ledger import DropAgentTokens, Ledger
from agentvault_tui.ledger.batch import write
from agentvault_tui.ledger.state import Statement
from agentvault_tui.ledger.writer import MAX_BATCH, MAX_QUEUE
from agentvault_tui.model import AgentStatus, EventType, Outcome


async def test_many_commits_share_transactions_and_leave_no_gap(ledger: Ledger) -> None:
    """500 commits at once get 500 consecutive numbers in the order they were made."""
    events = await asyncio.gather(
        *(
            # Grants may wait for a second at most, where several brokers write.
            ledger.commit(decision(outcome=Outcome.DENIED, number=n))
            for n in range(500)
        )
    )
    assert [event.seq for (event,) in events] == list(range(1, 501))
    assert [event.detail["number"] for (event,) in events] == list(range(500))


async def test_calls_wait_for_what_is_no_record_of_theirs(ledger: Ledger) -> None:
    """For a decision or a revocation, until it is durable; not for another call."""
    result = ledger.commit(note(EventType.GATEWAY_RESULT))
    assert not ledger.decisions.wait()
    for others in (decision(), note(EventType.AGENT_REVOKED)):
        done = ledger.commit(others)
        assert ledger.decisions.wait()
        await done
    await result
    await until(lambda: not ledger.decisions.wait())
    ledger.decisions.expect()
    assert ledger.decisions.wait()


@pytest.mark.one_file
async def test_a_commit_that_nobody_waits_for_shares_a_transaction(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next one, if that comes soon; else it is written by itself."""
    written: list[list[Statement]] = []

    def counting(db: sqlite3.Connection, statements: list[Statement]) -> None:
        written.append(statements)
        write(db, statements)

    monkeypatch.setattr("agentvault_tui.ledger.sqlite_store.write", counting)
    lazy = ledger.commit(note(EventType.GATEWAY_RESULT), lazy=True)
    await ledger.commit(decision())
    assert (await lazy)[0].seq == ledger.head.seq
    assert len(written) == 1
    await asyncio.wait_for(ledger.commit(note(), lazy=True), 5)
    assert len(written) == 2


async def test_a_decision_goes_ahead_of_the_records_of_calls(ledger: Ledger) -> None:
    """It does not wait for a batch of theirs, nor for their callers; none is lost."""
    calls = [
        ledger.commit(note(EventType.GATEWAY_RESULT)) for _ in range(2 * MAX_BATCH)
    ]
    (decided,) = await ledger.commit(decision())
    assert not all(call.done() for call in calls)
    events = [event for call in calls for event in await call]
    assert decided.seq < events[0].seq
    assert [event.seq for event in events] == sorted(event.seq for event in events)


@pytest.mark.one_file  # in a team, what waits longer than a second is refused
async def test_a_full_queue_refuses_decisions_but_not_revocations(
    ledger: Ledger,
) -> None:
    """With the line full a decision must come back later; a revocation goes first."""
    waiting = [
        asyncio.ensure_future(ledger.commit(decision())) for _ in range(MAX_QUEUE)
    ]
    urgent = asyncio.ensure_future(
        ledger.commit(note(EventType.AGENT_REVOKED), urgent=True)
    )

    async def one_more() -> None:
        with pytest.raises(LedgerBusyError):
            await ledger.commit(decision())

    await asyncio.ensure_future(one_more())
    (event,) = await urgent
    assert event.seq == 1
    await asyncio.gather(*waiting)
    assert ledger.head.seq == MAX_QUEUE + 1


@pytest.mark.one_file
async def test_a_revocation_waits_for_one_batch_at_most(ledger: Ledger) -> None:
    """What is urgent is written alone, right after the batch under way."""
    under_way = asyncio.ensure_future(ledger.commit(decision()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    line = [asyncio.ensure_future(ledger.commit(decision())) for _ in range(200)]
    await asyncio.sleep(0)
    note_it = ledger.commit(note(EventType.AGENT_REVOKED), urgent=True)
    (event,) = await note_it
    assert event.seq == 2
    assert ledger.head.seq == 2
    await asyncio.gather(under_way, *line)


def _revoke_after(ledger: Ledger, order: list[str]) -> list[asyncio.Future[object]]:
    """Have a revocation come when the first batch is durable and nobody is told yet."""
    urgent: list[asyncio.Future[object]] = []

    def written(*_: object) -> None:
        if not urgent:
            urgent.append(ledger.commit(note(EventType.AGENT_REVOKED), urgent=True))
            urgent[0].add_done_callback(
                lambda done: order.append("failed" if done.exception() else "urgent")
            )

    ledger.listeners.written.append(written)
    many = [ledger.commit(decision()) for _ in range(MAX_BATCH)]
    for one in many:
        one.add_done_callback(lambda _: order.append("one"))
    return [*many, *urgent]


@pytest.mark.one_file
async def test_a_revocation_does_not_wait_until_all_others_are_told(
    ledger: Ledger,
) -> None:
    """It is durable, and its caller told, before those of the batch before it."""
    order: list[str] = []
    await asyncio.gather(*_revoke_after(ledger, order))
    assert order[0] == "urgent"
    assert order.count("one") == MAX_BATCH


@pytest.mark.one_file
async def test_callers_woken_late_get_their_own_events(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the write of the revocation fails, what was durable before it stays so."""
    writes = iter(["works"])

    def works_once(db: sqlite3.Connection, statements: list[Statement]) -> None:
        if next(writes, None) is None:
            raise sqlite3.OperationalError("the disk is gone")
        write(db, statements)

    monkeypatch.setattr("agentvault_tui.ledger.sqlite_store.write", works_once)
    order: list[str] = []
    told = await asyncio.gather(*_revoke_after(ledger, order), return_exceptions=True)
    monkeypatch.undo()
    assert [type(one) for one in told] == [tuple] * MAX_BATCH
    await asyncio.sleep(0)
    assert order == ["one"] * MAX_BATCH + ["failed"]


async def test_callers_are_woken_a_few_each_turn(ledger: Ledger) -> None:
    """A large batch does not hold the loop: others run while its waiters are woken."""
    turns = 0
    seen: list[int] = []

    async def wait() -> None:
        await ledger.commit(decision())
        seen.append(turns)

    waiting = asyncio.gather(*(wait() for _ in range(MAX_BATCH)))
    while not waiting.done():
        turns += 1
        await asyncio.sleep(0)
    await waiting
    assert max(seen.count(turn) for turn in seen) <= MAX_BATCH // 2


@pytest.mark.one_file
async def test_the_later_change_wins_even_when_overtaken(
    home: Home, clock: ManualClock
) -> None:
    """A revocation that overtakes a queued update of its agent is not undone by it."""
    ledger = await Ledger.open(home, clock=clock)
    first = agent(scopes=("read:mail",))
    revoked = agent(status=AgentStatus.REVOKED)
    await asyncio.gather(
        ledger.commit(note(), changes=[first, token(clock)]),
        ledger.commit(
            note(EventType.AGENT_REVOKED),
            changes=[revoked, DropAgentTokens(revoked.id)],
            urgent=True,
        ),
    )
    loaded = await ledger.load()
    await ledger.close()
    assert loaded.agents == (revoked,)
    assert loaded.tokens == ()
