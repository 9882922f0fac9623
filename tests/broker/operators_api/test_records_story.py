"""One decision is one story, told from the members the broker fills in."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.stepups import details_of

from agentvault_tui.broker.answers import Escalated, Granted
from agentvault_tui.broker.usecases.redeem import introspect, poll, revoke_token
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.ledger.query import read_story
from agentvault_tui.model import Action, Agent, Event, StepUpStatus

BOOKING = Action(("write:calendar",), "write:calendar", "calendar:primary", {}, None)


async def ask(bench: Bench, agent: Agent, action: Action) -> Granted | Escalated:
    answer = await request_token(
        bench.broker, agent, action, resource=None, details=details_of(action)
    )
    assert isinstance(answer, Granted | Escalated)
    return answer


async def spend(bench: Bench, agent: Agent) -> None:
    """Ask for a payment, have it approved, and use the token."""
    held = await ask(bench, agent, PAYMENT)
    assert isinstance(held, Escalated)
    stepup = held.stepup
    await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
    bench.tenant.approve()
    registry = bench.broker.registry
    await bench.until(
        lambda: registry.stepups.get(stepup.id).status is StepUpStatus.APPROVED
    )
    granted = await poll(bench.broker, agent, stepup.id)
    assert isinstance(granted, Granted)
    server = await bench.agent(f"server-{agent.name}", resource_server=True)
    assert (await introspect(bench.broker, server, granted.access_token)).token


async def told(bench: Bench, event: Event) -> list[str]:
    story = await bench.ledger.read(read_story, event)
    assert story.complete
    return [each.type.value for each in story.events]


async def test_a_stepup_is_one_story_from_wherever_it_is_read(bench: Bench) -> None:
    """Request, step-up, approval and redemption belong together, and nothing else."""
    agent = await bench.agent("payer")
    await ask(bench, agent, BOOKING)
    await spend(bench, agent)
    await ask(bench, agent, BOOKING)
    whole = [
        "token.decision",
        "stepup.requested",
        "stepup.authorizing",
        "stepup.approved",
        "token.delivered",
        "token.redeemed",
    ]
    for kind in whole[1:]:
        (event,) = await bench.events(kind)
        assert await told(bench, event) == whole
    escalated = [e for e in await bench.events() if e.outcome == "escalated"]
    assert await told(bench, escalated[0]) == whole


async def test_a_repeated_request_is_told_with_the_first(bench: Bench) -> None:
    """Requests that fell into one step-up are one story."""
    agent = await bench.agent("payer")
    for _ in range(3):
        await ask(bench, agent, PAYMENT)
    (asked,) = await bench.events("stepup.requested")
    story = await told(bench, asked)
    assert story.count("token.decision") == 3


async def test_a_revocation_ends_the_story_of_what_it_cut(bench: Bench) -> None:
    """A token's story ends with its revocation; another token's does not join in."""
    agent = await bench.agent("booker")
    first = await ask(bench, agent, BOOKING)
    assert isinstance(first, Granted)
    await revoke_token(bench.broker, agent, first.access_token)
    await ask(bench, agent, BOOKING)
    await revoke_agent(bench.broker, agent.id, "odd hours", OPERATOR)
    one, two = [e for e in await bench.events() if e.outcome == "allowed"]
    assert await told(bench, one) == ["token.decision", "token.revoked"]
    assert await told(bench, two) == ["token.decision", "agent.revoked"]
    (cut,) = await bench.events("agent.revoked")
    assert await told(bench, cut) == ["agent.revoked"]


@pytest.mark.slow
async def test_an_agent_cannot_write_itself_into_a_story(bench: Bench) -> None:
    """Ids that an agent puts into its own words join nothing."""
    agent, rogue = await bench.agent("payer"), await bench.agent("rogue")
    await ask(bench, agent, PAYMENT)
    (asked,) = await bench.events("stepup.requested")
    names = {"stepup_id": asked.detail["stepup_id"], "decision_id": asked.decision_id}
    forged = Action(
        ("write:calendar",),
        "write:calendar",
        str(asked.detail["stepup_id"]),
        {**names, "tokens": list(names.values())},
        str(asked.decision_id),
    )
    await ask(bench, rogue, forged)
    assert await told(bench, asked) == ["token.decision", "stepup.requested"]


@pytest.mark.slow
async def test_where_the_index_does_not_reach_the_text_is_read(bench: Bench) -> None:
    """A story is the same before and after its events are indexed."""
    agent = await bench.agent("payer")
    await ask(bench, agent, PAYMENT)
    (asked,) = await bench.events("stepup.requested")
    for lag in (bench.ledger.index_lag, 0):
        if not lag:
            await bench.until(lambda: not bench.ledger.index_lag)
        assert await told(bench, asked) == ["token.decision", "stepup.requested"]


@pytest.mark.slow
async def test_a_flood_of_mentions_hides_nothing_near(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an id scattered all about, the story is told, and that it may not be all."""
    agent = await bench.agent("payer")
    await ask(bench, agent, PAYMENT)
    (asked,) = await bench.events("stepup.requested")
    junk = replace(
        BOOKING, parameters={"x": asked.detail["stepup_id"], "y": asked.decision_id}
    )
    rogue = await bench.agent("rogue")
    for _ in range(4):
        await ask(bench, rogue, junk)
    await bench.until(lambda: not bench.ledger.index_lag)
    monkeypatch.setattr("agentvault_tui.ledger.query._NEAREST", 3)
    story = await bench.ledger.read(read_story, asked)
    kinds = [event.type.value for event in story.events]
    assert kinds == ["token.decision", "stepup.requested"]
    assert not story.complete
