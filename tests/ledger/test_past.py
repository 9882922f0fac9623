"""Looking back in a ledger: bounds, clocks set back, old events, and many tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.ledger_kit import START, SYSTEM, decision, manual_clock
from support.manual_clock import ManualClock

from agentvault_tui.clock import iso
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, Past, past_tokens
from agentvault_tui.model import (
    DECISION_TYPES,
    Actor,
    ActorKind,
    AgentId,
    AgentStatus,
    Draft,
    EventType,
    Outcome,
    StepUpStatus,
)

OLGA = Actor(ActorKind.OPERATOR, "uid:1000", "olga")
AGENT = AgentId("agt_1")


class Book:
    """A ledger, and short words for what the broker would write into it."""

    def __init__(self, ledger: Ledger, clock: ManualClock) -> None:
        self.ledger, self.clock = ledger, clock

    async def write(self, kind: EventType, **more: Any) -> int:
        more = {"actor": OLGA, "agent_id": AGENT, **more}
        (event,) = await self.ledger.commit(Draft(kind, **more))
        return event.seq

    async def register(self, agent: str = AGENT) -> int:
        detail = {"agent": "bot", "owner": "alice", "scopes": ["write:calendar"]}
        return await self.write(
            EventType.AGENT_REGISTERED, agent_id=AgentId(agent), detail=detail
        )

    async def issue(self, name: str, seconds: float | None = 3600, **more: Any) -> int:
        if seconds is not None:
            more["expires_at"] = iso(self.clock.now() + timedelta(seconds=seconds))
        made = decision(AGENT, token_id=name, scope="write:calendar", **more)
        (event,) = await self.ledger.commit(made)
        return event.seq

    async def live(self, **at: Any) -> int:
        past = await self.ledger.past.at(**at)
        return past.holdings[AGENT].live if AGENT in past.holdings else 0

    async def now(self) -> Past:
        return await self.ledger.past.at(moment=self.clock.now())


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    clock = manual_clock()
    home = Home(tmp_path / "home", tmp_path / "home")
    ledger = await Ledger.open(home, clock=clock)
    yield Book(ledger, clock)
    await ledger.close()


async def test_a_moment_before_the_first_event_or_to_come_is_refused(
    book: Book,
) -> None:
    """Before the first event there is nothing; after the last, time goes on."""
    with pytest.raises(NotFoundError, match="nothing is recorded yet"):
        await book.ledger.past.at(moment=START)
    await book.register()
    await book.issue("tok_1", 60)
    for seq in (0, 3):
        with pytest.raises(NotFoundError, match=f"no event {seq}"):
            await book.ledger.past.at(seq=seq)
    with pytest.raises(NotFoundError, match="nothing was recorded by"):
        await book.ledger.past.at(moment=START - timedelta(seconds=1))
    with pytest.raises(UsageError, match="still to come"):
        await book.ledger.past.at(moment=START + timedelta(seconds=1))
    book.clock.advance(59)
    assert await book.live(moment=book.clock.now()) == 1
    book.clock.advance(1)
    assert await book.live(moment=book.clock.now()) == 0
    assert await book.live(seq=2) == 1


async def test_the_past_names_the_events_before_and_after_it(book: Book) -> None:
    """Neighbours, both ends, and the nearest turns of the story are named."""
    await book.register()
    for number in range(4):
        book.clock.advance(1)
        await book.issue(f"tok_{number}")
    await book.write(EventType.AGENT_REVOKED)
    await book.issue("tok_9")
    around = (await book.ledger.past.at(seq=3)).around
    assert (around.first.seq, around.last.seq) == (1, 7)
    assert around.before is not None
    assert around.before == (2, START + timedelta(seconds=1))
    assert around.after is not None
    assert around.after.seq == 4
    assert around.turn_before is not None
    assert around.turn_before.seq == 1
    assert around.turn_after is not None
    assert around.turn_after.seq == 6
    assert (await book.ledger.past.at(seq=1)).around.before is None
    assert (await book.ledger.past.at(seq=7)).around.turn_after is None


@pytest.mark.slow
async def test_thousands_of_tokens_are_counted_and_the_soonest_listed(
    book: Book,
) -> None:
    """The count is exact, though only the soonest to end are read."""
    await book.register()
    for number in range(1200):
        book.clock.advance(1)
        await book.issue(f"tok_{number}", 1000)
    ends = iso(book.clock.now() + timedelta(seconds=5))
    for name in ("tok_300", "tok_700"):
        detail = {"token_id": name, "expires_at": ends}
        await book.write(EventType.TOKEN_REVOKED, detail=detail)
    past = await book.now()
    held = past.holdings[AGENT]
    assert held.live == 1000 - 2
    assert len(held.soonest) == 100
    assert [token.id for token in held.soonest[:2]] == ["tok_200", "tok_201"]
    assert "tok_300" not in {token.id for token in held.soonest}
    assert past.counts[AGENT].allowed == 1200
    assert past.minute[AGENT].allowed == 60


async def test_a_clock_set_back_revives_nothing(book: Book) -> None:
    """What was over stays over, and each side of the step can still be looked at."""
    await book.register()
    await book.issue("tok_1", 600)
    book.clock.advance(500)
    await book.issue("tok_2", 600)
    book.clock.advance(200)
    book.clock.jump_wall(-3600)
    detail = {"seconds": "-3600.0"}
    jump = await book.write(EventType.CLOCK_JUMP, agent_id=None, detail=detail)
    assert await book.live(seq=jump) == 1
    book.clock.advance(401)
    assert await book.live(moment=book.clock.now()) == 0
    assert await book.live(seq=jump - 1) == 2


async def test_started_behind_the_last_event_nothing_lives(book: Book) -> None:
    """A broker that started with its clock set back took nothing over."""
    await book.register()
    await book.issue("tok_1")
    asked = {"stepup_id": "sup_1", "digest": "sha256:7f", "scope": "send:payment"}
    await book.write(EventType.STEPUP_REQUESTED, detail=asked)
    before = await book.now()
    detail = {"tokens_revoked": 1}
    await book.write(EventType.CLOCK_JUMP, agent_id=None, detail=detail)
    past = await book.now()
    assert before.holdings[AGENT].live == 1
    assert AGENT not in past.holdings
    assert [s.status for s in before.stepups] == [StepUpStatus.PENDING]
    assert [s.status for s in past.stepups] == [StepUpStatus.CANCELLED]


async def test_old_events_are_told_to_be_unsure(book: Book) -> None:
    """Where a version did not record an end, nothing is made up and that is said."""
    await book.register()
    await book.issue("tok_1", None)
    asked = {"stepup_id": "sup_1", "digest": "sha256:7f", "scope": "send:payment"}
    await book.write(EventType.STEPUP_REQUESTED, detail=asked)
    past = await book.now()
    assert AGENT not in past.holdings
    (stepup,) = past.stepups
    assert stepup.risk == "high"
    tokens, stepups = past.unsure
    assert "do not say when their tokens ended" in tokens
    assert "five minutes are assumed" in stepups
    await book.write(EventType.BROKER_STARTED, agent_id=None, actor=SYSTEM)
    await book.issue("tok_2")
    assert await book.live(moment=book.clock.now()) == 1


async def test_tokens_of_a_batch_found_after_a_failed_commit_are_void(
    book: Book,
) -> None:
    """What was found after a failed write was never held: nobody got its secrets."""
    await book.register()
    first = await book.issue("tok_1")
    await book.register("agt_2")
    last = await book.write(
        EventType.STEPUP_REQUESTED, detail={"stepup_id": "sup_1", "ttl": 300}
    )
    detail = {"first_seq": first, "last_seq": last, "tokens": 1, "voided": ["tok_1"]}
    await book.write(
        EventType.AUDIT_AMBIGUOUS,
        actor=SYSTEM,
        agent_id=None,
        reason="batch_found",
        detail=detail,
    )
    await book.issue("tok_2")
    past = await book.now()
    assert past.holdings[AGENT].live == 1
    assert [token.id for token in past.holdings[AGENT].soonest] == ["tok_2"]
    assert past.agents[1].status is AgentStatus.REVOKED
    assert [s.status for s in past.stepups] == [StepUpStatus.CANCELLED]


async def test_what_was_recorded_behind_a_cut_never_lived(book: Book) -> None:
    """A decision that reached the disk after a revocation counts for nothing later."""
    await book.register()
    await book.write(EventType.AGENT_REVOKED)
    await book.issue("tok_1")
    await book.write(EventType.AGENT_RESTORED)
    await book.issue("tok_2")
    past = await book.now()
    assert [token.id for token in past.holdings[AGENT].soonest] == ["tok_2"]


async def test_counts_by_outcome_are_exact_anywhere(book: Book) -> None:
    """In whatever order moments are looked at, counts equal a count of the events.

    Of all types of decisions together.
    """
    await book.register()
    for number in range(300):
        outcome = (Outcome.ALLOWED, Outcome.DENIED, Outcome.ESCALATED)[number % 3]
        kind = DECISION_TYPES[number % len(DECISION_TYPES)]
        await book.ledger.commit(replace(decision(AGENT, outcome), type=kind))
    for seq in (301, 4, 150, 151, 20, 299, 2, 1):
        past = await book.ledger.past.at(seq=seq)
        counts = past.counts.get(AGENT)
        told = (counts.allowed, counts.denied, counts.escalated) if counts else (0,) * 3
        asked = seq - 1
        assert told == ((asked + 2) // 3, (asked + 1) // 3, asked // 3)


async def test_answers_are_of_the_moment(book: Book) -> None:
    """A later look does not change what an earlier one told."""
    await book.register()
    moments: list[datetime] = []
    for number in range(5):
        book.clock.advance(10)
        await book.issue(f"tok_{number}")
        moments.append(book.clock.now())
    first = [await book.live(moment=moment) for moment in moments]
    await book.write(EventType.PANIC_ON, agent_id=None, reason="drill")
    assert await book.live(moment=book.clock.now()) == 0
    assert [await book.live(seq=seq) for seq in range(2, 7)] == first == [1, 2, 3, 4, 5]


async def test_tokens_handed_back_are_counted_exactly_up_to_a_bound(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where most are handed back the count is exact; beyond a bound that is said."""
    await book.register()
    for number in range(150):
        book.clock.advance(1)
        await book.issue(f"tok_{number}", 1000)
        if number % 10:
            ends = iso(book.clock.now() + timedelta(seconds=1000))
            detail = {"token_id": f"tok_{number}", "expires_at": ends}
            await book.write(EventType.TOKEN_REVOKED, detail=detail)
    past = await book.now()
    held = past.holdings[AGENT]
    assert held.live == 15
    assert [t.id for t in held.soonest] == [f"tok_{n}" for n in range(0, 150, 10)]
    monkeypatch.setattr(past_tokens, "_MANY", 100)
    past = await book.now()
    assert past.holdings[AGENT].live == 15
    assert "are not exact" in past.unsure[0]


async def test_calls_count_as_decisions_and_not_as_tokens(book: Book) -> None:
    """A call counts among an agent's answers, now and in the past, and as no token."""
    await book.register()
    await book.issue("tok_1")
    calls = (
        (EventType.GATEWAY_ATTEMPT, Outcome.ALLOWED),
        (EventType.GATEWAY_REFUSED, Outcome.DENIED),
        (EventType.GATEWAY_HELD, Outcome.ESCALATED),
    )
    for kind, outcome in calls:
        await book.write(kind, outcome=outcome, action="write:calendar", reason="said")
    last = await book.write(EventType.GATEWAY_RESULT)

    past = await book.ledger.past.at(seq=last)
    counts = past.counts[AGENT]
    assert (counts.allowed, counts.denied, counts.escalated) == (2, 1, 1)
    assert await book.live(seq=last) == 1
    assert (await book.ledger.load()).counts[AGENT] == counts
