"""What another policy would have answered, told from the recorded history."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.bench import PAYMENT, Bench
from support.call_kit import BEARER, ROUTES, again, bearer, held
from support.gateway_stand import Stand, standing
from support.manual_clock import ManualClock
from support.policies import CALENDAR, THREE_AN_HOUR
from support.stepups import approve, ask

from agentvault_tui.amounts import render_spans
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.redeem import poll
from agentvault_tui.model import Action, Money
from agentvault_tui.operator_api.planning import PlanInfo
from agentvault_tui.policy import Policy, PolicyTexts, shipped_policy
from agentvault_tui.watch.plan import plan, replay, stricter
from agentvault_tui.watch.shadow import Shadow

LASTS = timedelta(seconds=300)
ANY = "permit (principal, action, resource);"
ASKS = f'@id("asks") @why("w") @obligation("step_up")\n{ANY}'
NOTHING = '@id("nothing") @why("w")\nforbid (principal, action, resource);'
ALL = f'@id("all") @why("w") @obligation("allow")\n{ANY}'


@pytest.fixture
async def db(bench: Bench) -> AsyncIterator[sqlite3.Connection]:
    """A connection that reads beside a broker whose start is recorded."""
    await bench.record_start()
    with bench.reading() as opened:
        yield opened


def planned(db: sqlite3.Connection, bench: Bench, text: str, **more: Any) -> PlanInfo:
    candidate = Policy.of(PolicyTexts(text), ("candidate", "scopes", "limits"))
    version = bench.broker.deciding.policy.version
    return plan(db, candidate, version, lasts=LASTS, **more)


def changes(found: PlanInfo) -> list[tuple[str, str, str, int]]:
    return [(one.scope, one.was, one.to, one.count) for one in found.changes]


async def test_the_policy_in_force_changes_nothing(
    bench: Bench, db: sqlite3.Connection
) -> None:
    """The same rules give the same answers and as many prompts."""
    agent = await bench.agent()
    await ask(bench, agent, CALENDAR)
    for _ in range(3):  # the last two collapse into the first
        held = await ask(bench, agent, PAYMENT)
    await approve(bench, held.stepup)
    await ask(bench, agent, PAYMENT)  # within the first one's time, and asked anew
    found = planned(db, bench, shipped_policy())
    assert (found.changes, found.mismatches, found.decisions) == ([], 0, 5)
    assert found.prompts_per_day.now == found.prompts_per_day.then == 2
    assert not stricter(found.changes)


async def test_what_would_be_otherwise_is_told_with_examples(
    bench: Bench, db: sqlite3.Connection
) -> None:
    """Changes name agent, scope, both outcomes, how many, and events that show it."""
    agent = await bench.agent()
    for _ in range(7):
        await ask(bench, agent, CALENDAR)
    await ask(bench, agent, PAYMENT)
    found = planned(db, bench, ALL)
    assert changes(found) == [("send:payment", "escalated", "allowed", 1)]
    assert not stricter(found.changes)
    found = planned(db, bench, NOTHING)
    assert changes(found) == [
        ("write:calendar", "allowed", "denied", 7),
        ("send:payment", "escalated", "denied", 1),
    ]
    assert stricter(found.changes)
    first = found.changes[0]
    assert first.agent == agent.id
    events = await bench.events("token.decision")
    assert first.examples == [e.seq for e in events[:5]]


async def test_changes_say_the_amounts_of_what_would_be_otherwise(
    bench: Bench, db: sqlite3.Connection
) -> None:
    """By currency, in major units or with the remark that the unit is unknown."""
    agent = await bench.agent()

    def pay(amount: int, money: Money | None) -> Action:
        parameters = {"amount": amount, "currency": "USD"}
        return Action(("send:payment",), "send:payment", "r", parameters, money=money)

    for amount in (4000, 1200):
        await ask(bench, agent, pay(amount, Money("minor", 2)))
    await ask(bench, agent, pay(7, None))
    found = planned(db, bench, NOTHING)
    assert found.mismatches == 0
    (one,) = found.changes
    text = "12.00 to 40.00 USD; 7 USD, unit unknown"
    assert render_spans(one.amounts) == text


async def test_repeats_of_what_would_wait_are_one_prompt(
    bench: Bench, db: sqlite3.Connection, clock: ManualClock
) -> None:
    """Equal requests within a step-up's time count once, others and later ones anew."""
    agent = await bench.agent()
    for _ in range(3):
        await ask(bench, agent, CALENDAR)
    await ask(bench, agent, Action(("write:calendar",), "write:calendar", "calendar:b"))
    clock.advance(301)
    await ask(bench, agent, CALENDAR)
    found = planned(db, bench, ASKS)
    assert found.prompts_per_day.now == 0
    assert found.prompts_per_day.then == 3
    clock.advance(86_400 * 3)
    await ask(bench, agent, CALENDAR)
    found = planned(db, bench, ASKS)
    assert found.days == pytest.approx(3, abs=0.01)
    assert found.prompts_per_day.then == pytest.approx(4 / 3, abs=0.01)


async def test_what_a_person_allowed_or_the_broker_refused_stays(
    bench: Bench, db: sqlite3.Connection
) -> None:
    """Only a forbid undoes an approval; too many that wait end with the waiting."""
    agent = await bench.agent()
    for amount in range(4):
        parameters = {"amount": amount, "currency": "USD"}
        await ask(
            bench, agent, Action(("send:payment",), "send:payment", "r", parameters)
        )
    assert changes(planned(db, bench, ASKS)) == []
    assert sorted(changes(planned(db, bench, ALL))) == [
        ("send:payment", "denied", "allowed", 1),
        ("send:payment", "escalated", "allowed", 3),
    ]


async def test_since_leaves_out_what_was_before(
    bench: Bench, db: sqlite3.Connection, clock: ManualClock
) -> None:
    """A plan over the last days is about these alone."""
    agent = await bench.agent()
    await ask(bench, agent, CALENDAR)
    clock.advance(86_400)
    since = clock.now()
    await ask(bench, agent, CALENDAR)
    assert planned(db, bench, NOTHING, since=since).decisions == 1
    assert planned(db, bench, NOTHING).decisions == 2


async def test_a_digest_is_of_texts_and_the_version_in_force(
    bench: Bench, db: sqlite3.Connection
) -> None:
    """It is what `policy apply` compares, whatever history was planned."""
    digest = planned(db, bench, ALL).digest
    texts = PolicyTexts(ALL)
    assert digest == texts.plan_digest(bench.broker.deciding.policy.version)
    assert digest != texts.plan_digest("0123456789ab")
    assert digest != planned(db, bench, ASKS).digest


async def test_limits_are_counted_over_the_history_again(
    bench: Bench, db: sqlite3.Connection, clock: ManualClock
) -> None:
    """Windows of a candidate hold what it allows itself, by the ledger's time."""
    agent, other = await bench.agent("a"), await bench.agent("b")
    for _ in range(5):
        clock.advance(600)
        await ask(bench, agent, CALENDAR)
    await ask(bench, other, CALENDAR)
    clock.advance(3600)
    await ask(bench, agent, CALENDAR)
    texts = PolicyTexts(limits=THREE_AN_HOUR)
    candidate = Policy.of(texts, ("policy", "scopes", "limits"))
    found = plan(db, candidate, "", lasts=LASTS)
    # Of the first five two are beyond it; an hour later the window is empty again.
    assert changes(found) == [("write:calendar", "allowed", "denied", 2)]
    assert found.changes[0].agent == agent.id
    assert stricter(found.changes)


async def test_an_approved_step_up_counts_when_its_token_was_fetched(
    bench: Bench, db: sqlite3.Connection
) -> None:
    """Asking counts nothing; the token that was given out does."""
    agent = await bench.agent()
    held = await ask(bench, agent, PAYMENT)
    await ask(bench, agent, PAYMENT)
    text = THREE_AN_HOUR.replace("write:calendar", "send:payment").replace("3", "1")
    candidate = Policy.of(PolicyTexts(limits=text), ("policy", "scopes", "limits"))
    assert plan(db, candidate, "", lasts=LASTS).changes == []
    await approve(bench, held.stepup)
    await poll(bench.broker, agent, held.stepup.id)
    await ask(bench, agent, PAYMENT)
    found = plan(db, candidate, "", lasts=LASTS)
    assert changes(found) == [("send:payment", "escalated", "denied", 1)]


# Calls through the gateway


@pytest.fixture
async def stand(short: Path) -> AsyncIterator[Stand]:
    """A gateway with a service, by whose routes agents pay and read."""
    async with standing(short) as opened:
        await opened.secret()
        await opened.service(BEARER + ROUTES)
        yield opened


async def test_a_call_whose_token_would_need_the_scope_is_foreseen(
    stand: Stand,
) -> None:
    """What the gateway answers under a milder rule is what plan and shadow said."""
    bench, shadow = stand.bench, Shadow(stand.bench.broker)
    agent = await stand.agent("send:payment", "read:calendar")
    token = await stand.token(agent, "read:calendar")
    await shadow.set(ALL)
    assert (await held(stand, token))["error"] == "insufficient_user_authentication"
    with bench.reading() as db:
        found = planned(db, bench, ALL)
    (change,) = found.changes
    asked = [e.seq for e in await bench.events("gateway.held")]
    assert (change.was, change.to, change.reason, change.examples) == (
        *("escalated", "denied", "insufficient_scope"),
        asked,
    )
    assert (found.prompts_per_day.now, found.prompts_per_day.then) == (1, 0)
    await shadow.look()
    info = bench.broker.deciding.state.shadow
    assert info is not None
    assert info.by == [change]
    bench.home.policy_file.write_text(ALL)
    await reload_policy(bench.broker)
    assert (await held(stand, token))["error"] == "insufficient_scope"
    with bench.reading() as db:
        # The rule before would hold it again, and ask a person.
        found = planned(db, bench, shipped_policy())
        assert replay(db).mismatches == 0
    assert changes(found) == [("send:payment", "denied", "escalated", 1)]
    assert found.prompts_per_day.then == 2


async def test_a_narrowed_token_is_foreseen_to_need_a_person(stand: Stand) -> None:
    """Its bearer gets nothing by a rule alone that the token was not asked for."""
    agent = await stand.agent("send:payment", "read:calendar", "write:calendar")
    small = ANY.replace(";", " when { context has amount && context.amount > 0 };")
    text = f'@id("small") @why("w") @obligation("allow")\n{small}'
    whole, narrowed = "read:calendar write:calendar", "read:calendar"
    for scope, to in ((whole, "allowed"), (narrowed, "denied")):
        token = await stand.token(agent, scope)
        await held(stand, token)
        with stand.bench.reading() as db:
            found = planned(db, stand.bench, text)
        assert ("send:payment", "escalated", to, 1) in changes(found)
    assert "insufficient_scope" in {one.reason for one in found.changes}


async def test_what_a_token_has_or_a_person_approved_is_not_refused_for_its_scope(
    stand: Stand,
) -> None:
    """Only a call that stood on its own without the scope would need it."""
    agent = await stand.agent("send:payment", "read:calendar")
    token = await stand.token(agent, "read:calendar")
    url = "/gw/api/events/e1"
    assert (await stand.client.get(url, headers=bearer(token))).status_code == 200
    one = (await held(stand, token))["auth_req_id"]
    await stand.approve(one)
    assert (await again(stand, token, one)).status_code == 200
    with stand.bench.reading() as db:
        found = planned(db, stand.bench, ALL)
    assert changes(found) == [("send:payment", "escalated", "denied", 1)]
    assert not stricter(found.changes)
