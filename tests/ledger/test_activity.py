"""What agents did, as counted beside the events: exact, bounded, and made up for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.ledger_kit import START, decision, note
from support.manual_clock import ManualClock

from agentvault_tui.errors import NotFoundError
from agentvault_tui.ledger import REDEEMED, Activity, Count, Ledger
from agentvault_tui.ledger.activity import (
    QUARTER,
    REASON,
    SCOPE,
    Fact,
    keys,
    read_activity,
)
from agentvault_tui.model import AgentId, Draft, EventType, Outcome

AGENT = AgentId("agt_1")


def used(agent: str = "agt_1", action: str = "send:payment") -> Draft:
    return replace(note(EventType.TOKEN_REDEEMED, agent), action=action)


def asked(outcome: Outcome, scope: str, reason: str = "granted") -> Draft:
    return replace(decision("agt_1", outcome, scope=scope), reason=reason)


async def test_every_way_an_agent_was_answered_is_counted(
    ledger: Ledger, clock: ManualClock
) -> None:
    """By each scope of a request, by reason when refused, by quarter, with the last."""
    await ledger.commit(asked(Outcome.ALLOWED, "read:mail write:calendar read:mail"))
    clock.advance(60)
    await ledger.commit(
        asked(Outcome.DENIED, "delete:records", "scope_not_granted"),
        asked(Outcome.DENIED, "delete:records", "policy_forbids"),
        decision("agt_2", Outcome.DENIED),
    )
    clock.advance(15 * 60)
    last = clock.now()
    await ledger.commit(
        asked(Outcome.DENIED, "delete:records", "scope_not_granted"), used(), note()
    )
    found = await ledger.read(read_activity, AGENT, START)
    scopes = {(c.value, c.outcome): (c.events, c.last) for c in found.scopes}
    assert scopes == {
        ("read:mail", "allowed"): (1, START),
        ("write:calendar", "allowed"): (1, START),
        ("delete:records", "denied"): (3, last),
        ("send:payment", REDEEMED): (1, last),
    }
    reasons = {c.value: (c.events, c.last) for c in found.reasons}
    assert reasons == {
        "scope_not_granted": (2, last),
        "policy_forbids": (1, START + timedelta(seconds=60)),
    }
    quarters = {(c.value, c.outcome): c.events for c in found.quarters}
    assert quarters == {
        ("2026-11-24T10:00", "allowed"): 1,
        ("2026-11-24T10:00", "denied"): 2,
        ("2026-11-24T10:15", "denied"): 1,
    }


async def test_quarters_before_the_moment_are_left_out(
    ledger: Ledger, clock: ManualClock
) -> None:
    """A day is read, however long the agent has been at work."""
    await ledger.commit(decision())
    clock.advance(2 * 86_400)
    await ledger.commit(decision())
    found = await ledger.read(read_activity, AGENT, clock.now() - timedelta(days=1))
    assert [count.events for count in found.quarters] == [1]
    assert found.scopes[0].events == 2


async def test_an_agent_nobody_knows_has_done_nothing(ledger: Ledger) -> None:
    """No rows are no error."""
    found = await ledger.read(read_activity, AgentId("agt_none"), START)
    assert (found.scopes, found.reasons, found.quarters) == ((), (), ())


_SCOPES = st.lists(st.sampled_from(["a:b", "c:d", "e:f"]), max_size=4)


@given(
    st.lists(
        st.tuples(_SCOPES, st.sampled_from(list(Outcome)), st.integers(0, 2000)),
        max_size=30,
    )
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_is_counted_twice_or_left_out(
    events: list[tuple[list[str], Outcome, int]],
) -> None:
    """A decision counts for each scope, for a quarter, and for a reason if denied."""
    counted: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for scopes, outcome, seconds in events:
        stamp = (START + timedelta(seconds=seconds)).isoformat()
        asked = " ".join(scopes)
        fact = Fact("token.decision", AGENT, outcome, "x:y", "r", asked)
        counted.update(facet for _, facet, _, _ in keys(fact, stamp))
        wanted[SCOPE] += len(set(scopes)) or 1
        wanted[QUARTER] += 1
        wanted[REASON] += outcome is Outcome.DENIED
    assert counted == wanted


async def test_any_moment_is_told_as_it_was(ledger: Ledger, clock: ManualClock) -> None:
    """What is counted from events for a moment is what was counted at that moment."""

    def key(count: Count) -> tuple[str, str, int]:
        return count.value, count.outcome, count.events

    def told(found: Activity) -> tuple[object, ...]:
        uses = {(*key(c), c.last) for c in (*found.scopes, *found.reasons)}
        return uses, {key(c) for c in found.quarters}

    named = {"agent": "bot", "owner": "alice", "scopes": ["read:mail"]}
    await ledger.commit(replace(note(), detail=named))
    then = [
        (
            ledger.head.seq,
            clock.now(),
            told(await ledger.read(read_activity, AGENT, START)),
        )
    ]
    for draft in (
        asked(Outcome.ALLOWED, "read:mail write:calendar"),
        asked(Outcome.DENIED, "delete:records", "scope_not_granted"),
        decision("agt_2", Outcome.ALLOWED, scope="read:mail"),
        asked(Outcome.ESCALATED, "send:payment"),
        used(),
        asked(Outcome.DENIED, "delete:records", "policy_forbids"),
        asked(Outcome.ALLOWED, "read:mail"),
    ):
        clock.advance(7 * 60)
        await ledger.commit(draft)
        found = told(await ledger.read(read_activity, AGENT, START))
        then.append((ledger.head.seq, clock.now(), found))
    for seq, moment, expected in then:
        for at in ({"seq": seq}, {"moment": moment}):
            past = await ledger.past.activity(AGENT, lambda _: START, **at)
            assert told(past.activity) == expected
            assert (past.seq, past.moment, past.whole) == (seq, moment, True)
            assert past.agent.scopes == ("read:mail",)
    with pytest.raises(NotFoundError, match="no such agent then"):
        await ledger.past.activity(AgentId("agt_2"), lambda _: START, seq=3)


async def test_of_very_many_the_latest_are_counted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies are read up to a bound, and that is told; quarters count all of them."""
    await ledger.commit(replace(note(), detail={"agent": "bot"}))
    for _ in range(5):
        await ledger.commit(asked(Outcome.ALLOWED, "read:mail"))
    monkeypatch.setattr("agentvault_tui.ledger.past.MOST", 3)
    past = await ledger.past.activity(AGENT, lambda _: START, seq=4)
    assert [count.events for count in past.activity.scopes] == [3]
    assert past.whole
    past = await ledger.past.activity(AGENT, lambda _: START, seq=6)
    assert [count.events for count in past.activity.scopes] == [3]
    assert [count.events for count in past.activity.quarters] == [5]
    assert not past.whole
