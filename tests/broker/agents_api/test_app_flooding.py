"""A flooding agent is answered 429 without a decision; nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from support.agents_http import Caller, Live
from support.bench import OPERATOR
from support.manual_clock import ManualClock

from agentvault_tui.broker.floods import RATE, SPAN
from agentvault_tui.broker.serve import upkeep
from agentvault_tui.broker.usecases.rate import change_rate


@pytest.mark.slow
async def test_past_its_budget_an_agent_is_told_to_slow_down(
    live: Live, clock: ManualClock
) -> None:
    """No event a request any more, one that counts them; served after keeping still."""
    rogue, other = await live.caller("rogue"), await live.caller("other")
    bench = live.bench
    for _ in range(RATE * SPAN + 1):
        assert (await rogue.token("read:contacts")).status_code == 403
    clock.advance(SPAN)
    assert (await rogue.token("read:contacts")).status_code == 403
    before = len(await bench.events())
    for _ in range(20):
        answer = await rogue.token()  # also what it may have
        assert answer.status_code == 429
        assert answer.json()["error"] == "slow_down"
        assert answer.headers["retry-after"] == str(SPAN)
    assert (await rogue.poll("sup_unknown")).status_code == 429
    assert len(await bench.events()) == before
    assert (await other.token()).status_code == 200
    head = bench.ledger.head.seq
    looking = asyncio.create_task(upkeep(bench.broker))
    await bench.until(lambda: bench.ledger.head.seq > head)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    (event,) = await bench.events("agent.flooding")
    assert (event.agent_id, event.detail["count"]) == (rogue.agent.id, RATE * SPAN + 23)
    clock.advance(SPAN)
    assert (await rogue.token()).status_code == 200


@pytest.mark.slow
async def test_asking_a_person_again_and_again_is_flooding_too(
    live: Live, clock: ManualClock
) -> None:
    """Each repetition of a step-up is an event as well."""
    rogue = await live.caller("rogue")
    answers = [(await rogue.payment()).status_code for _ in range(RATE * SPAN + 1)]
    clock.advance(SPAN)
    answers += [(await rogue.payment()).status_code for _ in range(2)]
    assert answers == [*[403] * (RATE * SPAN + 2), 429]


async def bounded(live: Live, name: str) -> Caller:
    """Return an agent that may be permitted one decision a second, ten at once."""
    caller = await live.caller(name)
    agent = await change_rate(live.bench.broker, caller.agent.id, 1, OPERATOR)
    assert agent.decisions_a_second == 1
    return caller


async def test_beyond_its_rate_an_agent_waits_a_second(
    live: Live, clock: ManualClock
) -> None:
    """Permitted requests are 429 without a record; one for a person is still held."""
    rogue, other = await bounded(live, "rogue"), await live.caller("other")
    bench = live.bench
    assert {(await rogue.token()).status_code for _ in range(10)} == {200}
    before = len(await bench.events())
    for _ in range(3):
        answer = await rogue.token()
        assert answer.status_code == 429
        assert answer.json()["error"] == "slow_down"
        assert answer.headers["retry-after"] == "1"
    assert len(await bench.events()) == before
    assert (await rogue.payment()).json()["error"] == (
        "insufficient_user_authentication"
    )
    assert (await rogue.token("read:contacts")).status_code == 403
    assert (await other.token()).status_code == 200
    clock.advance(1)  # no lock-out: the next second counts
    assert (await rogue.token()).status_code == 200
    assert (await rogue.token()).status_code == 429


async def test_evaluations_have_the_same_rate(live: Live) -> None:
    """Alone they are 429, and in a batch each says so for itself."""
    rogue = await bounded(live, "rogue")
    asked = {
        "action": {"name": "write:calendar"},
        "resource": {"type": "calendar", "id": "primary"},
    }
    auth = (rogue.agent.client_id, rogue.secret)
    many = {"evaluations": [asked] * 12}
    answer = await live.http.post("/access/v1/evaluations", json=many, auth=auth)
    decisions = [one["decision"] for one in answer.json()["evaluations"]]
    assert decisions == [True] * 10 + [False] * 2
    assert answer.json()["evaluations"][-1]["context"]["error"]["status"] == 429
    one = await live.http.post("/access/v1/evaluation", json=asked, auth=auth)
    assert (one.status_code, one.headers["retry-after"]) == (429, "1")
    assert one.json()["error"] == "slow_down"


async def test_a_token_without_a_scope_counts_too(live: Live) -> None:
    """It is permitted without a person, and recorded, as any other."""
    rogue, gateway = await bounded(live, "rogue"), f"{live.url}/gw/api"
    answers = [(await rogue.token("", resource=gateway)).status_code for _ in range(11)]
    assert answers == [200] * 10 + [429]


async def test_an_agent_holds_so_many_tokens_and_loses_none(live: Live) -> None:
    """Beyond them it is refused with a reason; the oldest stays good."""
    caller = await live.caller("hoarder")
    broker = live.bench.broker
    few = replace(broker.settings.tokens, max_live=3)
    broker.settings = replace(broker.settings, tokens=few)
    tokens = [(await caller.token()).json()["access_token"] for _ in range(3)]
    refused = await caller.token()
    assert refused.status_code == 403
    assert refused.json()["reason"] == "too_many_tokens"
    assert "at most 3" in refused.json()["error_description"]
    for token in tokens:
        assert (await caller.introspect(token))["active"]
    await caller.post("/oauth/revoke", token=tokens[0])
    assert (await caller.token()).status_code == 200


async def test_what_was_refused_for_the_rate_is_counted_in_an_event(live: Live) -> None:
    """An operator sees that an agent asks for more than it is permitted."""
    rogue = await bounded(live, "rogue")
    for _ in range(15):
        await rogue.token()
    looking = asyncio.create_task(upkeep(live.bench.broker))
    head = live.bench.ledger.head.seq
    await live.bench.until(lambda: live.bench.ledger.head.seq > head)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    (event,) = await live.bench.events("agent.flooding")
    assert (event.agent_id, event.detail["count"]) == (rogue.agent.id, 5)
