"""What counts once, or so many times, counts so over all brokers of a team."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from joserfc.jwk import ECKey
from support.agents_http import BEARER, public, sign
from support.bench import OPERATOR, PAYMENT
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.stepups import details_of
from support.team_brokers import ISSUER, Broker, brokers_of, known

from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.revoke import AgentEnd
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.model import ParameterBound, Repeat, StepUpStatus

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
KEY = ECKey.generate_key("P-256")


@pytest.fixture
async def brokers(
    short: Path, store: Database, clock: ManualClock
) -> AsyncIterator[list[Broker]]:
    """Three brokers, each with a home of its own."""
    async with brokers_of(short, [clock] * 3, [store.settings] * 3) as made:
        yield made


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_assertion_counts_once_over_the_team(
    brokers: list[Broker], clock: ManualClock, at_once: bool
) -> None:
    """Shown to two brokers it authenticates at one of them (RFC 7523 section 3)."""
    agent = await brokers[0].agent("keyed", "read:calendar", public_key=public(KEY))
    await known(brokers)
    now = int(clock.now().timestamp())
    for number in range(5):
        claims = {
            "iss": agent.client_id,
            "sub": agent.client_id,
            "aud": f"{ISSUER}/oauth/token",
            "iat": now,
            "exp": now + 60,
            "jti": f"once {number}",
        }
        form = {
            "grant_type": "client_credentials",
            "scope": "read:calendar",
            "client_assertion_type": BEARER,
            "client_assertion": sign(claims, KEY, "ES256"),
        }
        asked = [one.http.post("/oauth/token", data=form) for one in brokers]
        if at_once:
            replies = await asyncio.gather(*asked)
        else:
            replies = [await one for one in asked]
        told = Counter(one.status_code for one in replies)
        assert told == {200: 1, 401: 2}


async def test_no_token_has_more_children_than_one_broker_would_give_it(
    brokers: list[Broker],
) -> None:
    """`max_children` is the parent's over the team."""
    first = await brokers[0].agent("first", "read:calendar")
    second = await brokers[0].agent("second", "read:calendar")
    core = brokers[0].bench.broker
    await change_delegates(
        core, first.id, second.id, frozenset({"read:calendar"}), OPERATOR
    )
    parent = (await brokers[1].token(first, "read:calendar")).json()["access_token"]
    await known(brokers)

    async def passed(broker: Broker) -> str | int:
        form = {"grant_type": EXCHANGE, "subject_token": parent, "audience": second.id}
        form["subject_token_type"] = ACCESS
        while True:
            reply = await broker.post(first, "/oauth/token", **form)
            if reply.status_code != 503:  # others were first, several times over
                return reply.json().get("reason") or reply.status_code

    most = core.settings.delegation.max_children
    asked = [passed(one) for _ in range(most // 2) for one in brokers]
    told = Counter(await asyncio.gather(*asked))
    assert told == {200: most, "too_many": most // 2}
    await known(brokers)
    found = {len(one.bench.broker.registry.delegations) for one in brokers}
    assert found == {most}


async def test_a_token_that_ended_at_another_broker_is_not_counted_again(
    brokers: list[Broker],
) -> None:
    """A revocation counts, and names, what ended with it in the store."""
    a, b, _ = brokers
    agent = await a.agent("one", "read:calendar")
    first = (await a.token(agent, "read:calendar")).json()["access_token"]
    await a.token(agent, "read:calendar")
    await known(brokers)
    end = AgentEnd(b.bench.broker, agent.id, "drill", OPERATOR)
    in_force = end.begin()
    await a.post(agent, "/oauth/revoke", token=first)
    place = await in_force.record(b.bench.broker, OPERATOR)
    assert end.result(place).tokens == 1
    (event,) = await b.bench.events("agent.revoked")
    assert event.detail["tokens_revoked"] == len(event.detail["tokens"]) == 1
    await known(brokers)
    held = {len(one.bench.broker.registry.tokens_of(agent.id)) for one in brokers}
    assert held == {0}


def paying(amount: int) -> str:
    """Return an action that differs from others in what a repeat bounds."""
    (action,) = details_of(PAYMENT)
    action["parameters"] = {**PAYMENT.parameters, "amount": amount}
    return json.dumps([action])


async def approve_next(broker: Broker, asked: str, repeat: Repeat) -> None:
    core = broker.bench.broker
    await begin_approval(core, asked, core.stepups.get(asked).digest, OPERATOR, repeat)
    broker.bench.tenant.approve()
    approved = StepUpStatus.APPROVED
    await broker.bench.until(lambda: core.stepups.get(asked).status is approved)


async def test_an_approval_of_the_next_ones_is_used_no_more_often_over_the_team(
    brokers: list[Broker],
) -> None:
    """Of 21 requests like it, at three brokers at once, just three need no person."""
    agent = await brokers[0].agent("payer", "send:payment")
    asked = await brokers[0].pay(agent)
    await known(brokers)
    bounds = (ParameterBound("amount", 5000),)
    await approve_next(brokers[1], asked, Repeat(3, 600, bounds))
    await known(brokers)
    wanted = [(one, n) for n in range(7) for one in brokers]
    replies = await asyncio.gather(
        *(
            one.token(agent, "send:payment", authorization_details=paying(100 + n))
            for one, n in wanted
        )
    )
    await known(brokers)
    statuses = [one.status_code for one in replies]
    assert statuses.count(200) == 3
    approved = await brokers[2].bench.events("stepup.approved")
    stood_in = [one for one in approved if one.detail.get("repeat_of") == asked]
    assert [one.detail["repeat_left"] for one in stood_in] == [2, 1, 0]


@pytest.mark.parametrize("change", ["none", "of the agent"])
async def test_a_volley_uses_up_all_that_was_approved(
    brokers: list[Broker], change: str
) -> None:
    """If a record is overtaken, the use that it held is not lost for the agent."""
    agent = await brokers[0].agent("payer", "send:payment", "read:email")
    asked = await brokers[0].pay(agent)
    await known(brokers)
    await approve_next(brokers[1], asked, Repeat(10, 600))
    await known(brokers)
    same = json.dumps(details_of(PAYMENT))
    volley = [
        one.token(agent, "send:payment", authorization_details=same)
        for one in brokers * 4
    ]
    if change == "of the agent":
        body = {"agent_id": agent.id, "ungrant": ["read:email"]}
        volley.insert(5, brokers[2].operator.post("/api/agents/scopes", json=body))
    replies = await asyncio.gather(*volley)
    await known(brokers)
    given = [one for one in replies if "access_token" in one.json()]
    assert len(given) == 10
    left = [one.bench.broker.stepups.get(asked).repeat for one in brokers]
    assert [one.left for one in left if one] == [0, 0, 0]


async def test_a_denial_at_one_broker_cools_down_at_all(brokers: list[Broker]) -> None:
    """From its reply on, also where it is not known yet; the pauses double as one."""
    a, b, c = brokers
    agent = await a.agent("payer", "send:payment")
    before = 0.0
    for asks, denies in ((a, b), (b, c), (c, a)):
        asked = await asks.pay(agent)
        await known([denies])
        await deny(denies.bench.broker, asked, "no", OPERATOR)
        told = [await one.pay(agent, "stripe:other") for one in brokers]
        assert told == ["cooling_down"] * 3
        await known(brokers)
        left = {
            one.bench.broker.stepups.cooldowns.remaining(agent.id) for one in brokers
        }
        (pause,) = left
        assert pause >= 2 * before > 0 or before == 0
        before = pause
        a.bench.clock.advance(pause)


async def test_two_denials_at_once_count_both(brokers: list[Broker]) -> None:
    """No broker's count of denials hides another's."""
    a, b, _ = brokers
    agent = await a.agent("payer", "send:payment")
    asked = [await a.pay(agent, f"stripe:{n}") for n in range(2)]
    await known(brokers)
    await asyncio.gather(
        *(
            deny(one.bench.broker, which, "no", OPERATOR)
            for one, which in zip((a, b), asked, strict=True)
        )
    )
    denials = set[int]()
    async with asyncio.timeout(PATIENT):
        while denials != {2}:
            await known(brokers)
            denials = set()
            for one in brokers:
                stored = (await one.bench.ledger.load()).cooldowns
                cools = (*stored, one.bench.broker.stepups.cooldowns.of(agent.id))
                denials |= {each.denials for each in cools}
    recorded = await a.bench.events("stepup.denied")
    assert {one.agent_id for one in recorded} == {agent.id}
    assert len(recorded) == 2
