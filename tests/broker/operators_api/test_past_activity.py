"""What an operator reads of one agent: uses, refusals, the day, and what a cut ends."""

from __future__ import annotations

from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.manual_clock import ManualClock
from support.wire_shapes import as_json

from agentvault_tui.broker.answers import Escalated, Granted
from agentvault_tui.broker.operators_api.limits import near_the_end
from agentvault_tui.broker.operators_api.past import (
    QUARTERS,
    activity_of,
    past_activity_of,
)
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import restore_agent, revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.clock import iso
from agentvault_tui.model import Action, Agent, StepUpStatus

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")
RECORDS = Action(scopes=("delete:records",), action="delete:records")


async def ask(bench: Bench, agent: Agent, action: Action = CALENDAR) -> Any:
    return await request_token(bench.broker, agent, action, resource=None, details=None)


def by_scope(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {use["scope"]: use for use in found["scopes"]}


async def read(bench: Bench, agent: Agent) -> dict[str, Any]:
    """Return what ``GET /api/agents/{id}/activity`` answers."""
    near = await near_the_end(bench.broker, agent)
    found: dict[str, Any] = as_json(await activity_of(bench.broker, agent, near))
    return found


async def test_an_agent_that_did_nothing(bench: Bench) -> None:
    """Every granted scope is there, unused; the day is 96 empty quarters."""
    agent = await bench.agent()
    found = await read(bench, agent)
    assert found["agent_id"] == agent.id
    uses = by_scope(found)
    assert set(uses) == {"send:payment", "write:calendar"}
    assert all(
        use["uses"] == 0 and use["last_used_at"] is None for use in uses.values()
    )
    assert found["denials"] == []
    assert found["quarters"]["allowed"] == [0] * QUARTERS
    assert found["revoke"] == {"tokens": 0, "elevated": 0, "stepups": 0}


LIMITS = """
[[limits]]
id = "calendar"
scopes = ["write:calendar"]
within = "1h"
count = 5
over = "deny"
[[limits]]
id = "together"
scopes = ["write:calendar", "read:web"]
per = "all"
within = "1h"
count = 10
over = "deny"
[[limits]]
id = "others"
scopes = ["write:calendar"]
agents = ["other"]
within = "1h"
count = 5
over = "deny"
"""


async def test_limits_near_their_end_are_told_of_whom_they_limit(
    bench: Bench, clock: ManualClock
) -> None:
    """A fifth or less is left: of its own windows, and of those that all share."""
    bench.home.limits_file.write_text(LIMITS)
    await reload_policy(bench.broker)
    agent, other = await bench.agent(), await bench.agent("other")
    idle = await bench.agent("idle", "read:files")

    async def near(whose: Agent) -> list[tuple[str, int]]:
        found = (await read(bench, whose))["limits"]
        assert {one["id"] for one in found["limits"]} == {
            one["limit"] for one in found["uses"]
        }
        return [(one["limit"], one["left"]) for one in found["uses"]]

    for _ in range(3):
        await ask(bench, agent)
    assert await near(agent) == []
    await ask(bench, agent)
    assert await near(agent) == [("calendar", 1)]
    for _ in range(4):
        await ask(bench, other)
    assert await near(agent) == [("calendar", 1), ("together", 2)]
    assert await near(other) == [("calendar", 1), ("others", 1), ("together", 2)]
    assert await near(idle) == []
    clock.advance(3601)
    assert await near(agent) == []


async def test_a_revocation_is_told_by_what_it_cut(
    bench: Bench, clock: ManualClock
) -> None:
    """By whom, why and how much; of one revoked again all of it, by the first."""
    agent = await bench.agent()
    await ask(bench, agent)
    await ask(bench, agent, PAYMENT)
    assert (await read(bench, agent))["revoked"] is None
    at = iso(clock.now())
    await revoke_agent(bench.broker, agent.id, "runaway", OPERATOR)
    clock.advance(60)
    await revoke_agent(bench.broker, agent.id, "again", OPERATOR)
    revoked = bench.broker.registry.agent(agent.id)
    was = (await read(bench, revoked))["revoked"]
    counted = {"tokens": 1, "stepups": 1}
    assert was == {"at": at, "by": OPERATOR.name, "reason": "runaway", **counted}
    served = await restore_agent(bench.broker, agent.id, OPERATOR)
    assert (await read(bench, served))["revoked"] is None
    clock.advance(60)
    await revoke_agent(bench.broker, agent.id, "later", OPERATOR)
    revoked = bench.broker.registry.agent(agent.id)
    was = (await read(bench, revoked))["revoked"]
    assert (was["reason"], was["tokens"]) == ("later", 0)


async def test_scopes_say_how_often_and_when_last(
    bench: Bench, clock: ManualClock
) -> None:
    """Uses, refusals and held requests are told apart, for scopes not granted too."""
    agent = await bench.agent()
    await ask(bench, agent)
    clock.advance(60)
    used = iso(clock.now())
    await ask(bench, agent)
    clock.advance(60)
    asked = iso(clock.now())
    await ask(bench, agent, RECORDS)
    await ask(bench, agent, PAYMENT)
    uses = by_scope(await read(bench, agent))
    assert uses["write:calendar"]["uses"] == 2
    assert uses["write:calendar"]["last_used_at"] == used
    refused = uses["delete:records"]
    assert (refused["granted"], refused["denied"], refused["uses"]) == (False, 1, 0)
    assert (refused["last_used_at"], refused["last_asked_at"]) == (None, asked)
    assert uses["send:payment"]["escalated"] == 1
    assert uses["send:payment"]["uses"] == 0


async def test_refusals_are_grouped_by_reason(bench: Bench, clock: ManualClock) -> None:
    """The most frequent first, with the time of the last."""
    agent = await bench.agent()
    for _ in range(3):
        clock.advance(5)
        await ask(bench, agent, RECORDS)
    (denial,) = (await read(bench, agent))["denials"]
    assert denial == {
        "reason": "scope_not_granted",
        "count": 3,
        "last_at": iso(clock.now()),
    }


@pytest.mark.slow
async def test_the_day_ends_with_the_quarter_that_goes_on(
    bench: Bench, clock: ManualClock
) -> None:
    """Quarters move out of sight after a day, and none is lost on the way."""
    agent = await bench.agent()
    await ask(bench, agent)
    clock.advance(16 * 60)
    await ask(bench, agent)
    await ask(bench, agent, RECORDS)
    day = (await read(bench, agent))["quarters"]
    assert day["allowed"][-2:] == [1, 1]
    assert day["denied"][-2:] == [0, 1]
    assert day["seconds"] == 900
    clock.advance(86_400 - 15 * 60)
    day = (await read(bench, agent))["quarters"]
    assert (sum(day["allowed"]), day["allowed"][0]) == (1, 1)


async def test_a_revoke_is_foretold_exactly(bench: Bench) -> None:
    """Live tokens and waiting step-ups, as the revocation then reports them."""
    agent = await bench.agent()
    await ask(bench, agent)
    await ask(bench, agent)
    await ask(bench, agent, PAYMENT)
    found = await read(bench, agent)
    assert found["revoke"] == {"tokens": 2, "elevated": 0, "stepups": 1}


async def test_an_elevated_token_is_a_use_once_it_is_redeemed(bench: Bench) -> None:
    """Approved is not used: a resource server's active answer is."""
    agent = await bench.agent()
    server = await bench.agent("api", "read:calendar", resource_server=True)
    held = await ask(bench, agent, PAYMENT)
    assert isinstance(held, Escalated)
    await begin_approval(bench.broker, held.stepup.id, held.stepup.digest, OPERATOR)
    bench.tenant.approve()
    registry, approved = bench.broker.registry, StepUpStatus.APPROVED
    await bench.until(lambda: registry.stepups.get(held.stepup.id).status is approved)
    granted = await poll(bench.broker, agent, held.stepup.id)
    assert isinstance(granted, Granted)
    found = await read(bench, agent)
    assert found["revoke"] == {"tokens": 1, "elevated": 1, "stepups": 0}
    assert by_scope(found)["send:payment"]["uses"] == 0
    await introspect(bench.broker, server, granted.access_token)
    found = await read(bench, agent)
    assert found["revoke"]["tokens"] == 0
    use = by_scope(found)["send:payment"]
    assert (use["uses"], use["redeemed"], use["escalated"]) == (1, 1, 1)


@pytest.mark.parametrize("jump", [-3600, -10])
async def test_a_clock_set_back_breaks_nothing(
    bench: Bench, clock: ManualClock, jump: float
) -> None:
    """Quarters that have yet to come are left out; the rest still counts."""
    agent = await bench.agent()
    await ask(bench, agent)
    clock.jump_wall(jump)
    await ask(bench, agent)
    found = await read(bench, agent)
    assert sum(found["quarters"]["allowed"]) >= 1
    assert by_scope(found)["write:calendar"]["uses"] == 2


async def test_the_past_is_told_in_the_same_words(
    bench: Bench, clock: ManualClock
) -> None:
    """At each event the shape of then, by the scopes that were granted then."""
    agent = await bench.agent()
    then = []
    for action in (CALENDAR, RECORDS, CALENDAR):
        clock.advance(400)
        await ask(bench, agent, action)
        found = await read(bench, agent)
        for now in ("revoke", "revoked", "limits", "trials"):
            del found[now]
        then.append(found)
    clock.advance(100_000)
    for found in then:
        told = as_json(
            await past_activity_of(bench.broker, agent.id, found["head"], None)
        )
        assert told == found
