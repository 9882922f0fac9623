"""What is handed out or consumed is what was approved, as it counts now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.stepups import approve, ask, hold, redeemable

from agentvault_tui.broker.answers import (
    Denied,
    Escalated,
    Expired,
    Granted,
    Permitted,
    Spent,
)
from agentvault_tui.broker.stepups import digest_of
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.issue_for import issue_unscoped
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.model import Action, AgentId, Draft, EventType, StepUp, sha256_hex
from agentvault_tui.policy.texts import shipped_policy, shipped_scopes

Change = Callable[[StepUp], StepUp]


def other_nonce(stepup: StepUp) -> StepUp:
    return replace(stepup, nonce="another")


def other_details(stepup: StepUp) -> StepUp:
    changed = replace(stepup, authorization_details="[]")
    return replace(changed, digest=digest_of(changed))


def other_agent(stepup: StepUp) -> StepUp:
    changed = replace(stepup, agent_id=AgentId("agt_other"))
    return replace(changed, digest=digest_of(changed))


CHANGES = pytest.mark.parametrize("change", [other_nonce, other_details, other_agent])
READ = Action(("read:calendar",), "read:calendar", "calendar:primary")
NO = '@id("no")\n@why("It may not.")\nforbid (principal, action, resource);\n'
ANY = (
    '@id("any")\n@why("It may.")\n@obligation("allow")\n'
    "permit (principal, action, resource);\n"
)


@CHANGES
async def test_a_token_whose_approval_was_changed_is_inactive_and_over(
    bench: Bench, change: Change
) -> None:
    """Digest, agent and what is served have to be those that a person approved."""
    _, server, secret = await redeemable(bench)
    token = bench.broker.registry.token(sha256_hex(secret))
    assert token is not None
    stepup = bench.broker.stepups.get(str(token.stepup_id))
    bench.broker.stepups.put(change(stepup))
    for _ in range(2):
        assert (await introspect(bench.broker, server, secret)).token is None
    (ended,) = await bench.events("token.revoked")
    assert ended.reason == "it is not what was approved"
    assert await bench.events("token.redeemed") == []


@pytest.mark.parametrize("change", [other_nonce, other_details])
async def test_an_approval_that_was_changed_is_not_delivered(
    bench: Bench, change: Change
) -> None:
    """Its agent gets no secret, now or later."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)
    bench.broker.stepups.put(change(bench.broker.stepups.get(stepup.id)))
    assert isinstance(await poll(bench.broker, agent, stepup.id), Spent)
    assert isinstance(await poll(bench.broker, agent, stepup.id), Expired)
    assert await bench.events("token.delivered") == []


async def test_a_cut_agent_is_told_so_of_a_request_that_ran_out(bench: Bench) -> None:
    """What holds now comes before how the request ended."""
    agent, stepup = await hold(bench)
    bench.clock.advance(301)
    assert isinstance(await poll(bench.broker, agent, stepup.id), Expired)
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    told = await poll(bench.broker, agent, stepup.id)
    assert isinstance(told, Denied)
    assert told.reason == "agent_revoked"


async def test_a_token_without_a_scope_says_nothing_to_resource_servers(
    bench: Bench,
) -> None:
    """It says who asks at the gateway alone."""
    agent = await bench.agent("agent", "send:payment")
    server = await bench.agent("api", resource_server=True)
    granted = await issue_unscoped(bench.broker, agent, None, None)
    assert isinstance(granted, Granted)
    seen = await introspect(bench.broker, server, granted.access_token)
    assert seen.token is None


@pytest.mark.parametrize("effects", [("read", "send"), ("send", "read")])
async def test_a_token_is_single_use_by_the_catalogue_of_then_or_of_now(
    bench: Bench, effects: tuple[str, str]
) -> None:
    """A scope that is said to send makes tokens good for one action, and for good."""
    bench.home.policy_file.write_text(ANY)

    async def say(effect: str) -> None:
        first, mark, rest = shipped_scopes().partition('[scopes."write:calendar"]')
        first = first.replace('effect = "read"', f'effect = "{effect}"', 1)
        bench.home.scopes_file.write_text(first + mark + rest)
        await reload_policy(bench.broker)

    await say(effects[0])
    agent = await bench.agent("agent", "read:calendar")
    server = await bench.agent("api", resource_server=True)
    granted = await ask(bench, agent, READ)
    assert isinstance(granted, Granted)
    await say(effects[1])
    for active in (True, False):
        seen = await introspect(bench.broker, server, granted.access_token)
        assert (seen.token is not None) is active


async def approved_evaluation(bench: Bench) -> Any:
    agent = await bench.agent("payer", "send:payment")
    asked = await evaluate(bench.broker, agent, PAYMENT)
    assert isinstance(asked, Escalated)
    await approve(bench, asked.stepup)
    return agent


def on_record(
    bench: Bench, patch: pytest.MonkeyPatch, kind: EventType, act: Callable[[], Any]
) -> None:
    """Have *act* done while the ledger writes an event of that kind."""
    record = bench.broker.record

    async def during(*drafts: Draft, **more: Any) -> Any:
        written = await record(*drafts, **more)
        if any(draft.type is kind for draft in drafts):
            patch.setattr(bench.broker, "record", record)
            await act()
        return written

    patch.setattr(bench.broker, "record", during)


async def test_a_revocation_overtakes_an_approved_evaluation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The yes was recorded and does not leave."""
    agent = await approved_evaluation(bench)
    on_record(
        *(bench, monkeypatch, EventType.ACCESS_DECISION),
        lambda: revoke_agent(bench.broker, agent.id, "", OPERATOR),
    )
    answer = await evaluate(bench.broker, agent, PAYMENT)
    assert isinstance(answer, Denied)
    assert answer.reason == "agent_revoked"


async def test_an_evaluation_is_spent_by_one_of_two_that_came_at_once(
    bench: Bench,
) -> None:
    """The other waits for a person of its own."""
    agent = await approved_evaluation(bench)
    first = await evaluate(bench.broker, agent, PAYMENT)
    second = await evaluate(bench.broker, agent, PAYMENT)
    assert isinstance(first, Permitted)
    assert isinstance(second, Escalated)


async def test_a_policy_that_becomes_stricter_overtakes_an_evaluation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was allowed by the policy before, which is in force no more."""
    agent = await bench.agent("agent", "read:calendar")

    async def stricter() -> None:
        bench.home.policy_file.write_text(NO)
        await reload_policy(bench.broker)

    on_record(bench, monkeypatch, EventType.ACCESS_DECISION, stricter)
    answer = await evaluate(bench.broker, agent, READ)
    assert isinstance(answer, Denied)
    assert answer.reason == "policy_changed"


async def test_a_policy_that_becomes_stricter_overtakes_a_delivery(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person approved what may not be any more: its agent gets no token."""
    agent, stepup = await hold(bench)
    await approve(bench, stepup)

    async def stricter() -> None:
        bench.home.policy_file.write_text(shipped_policy() + NO)
        await reload_policy(bench.broker)

    on_record(bench, monkeypatch, EventType.TOKEN_DELIVERED, stricter)
    answer = await poll(bench.broker, agent, stepup.id)
    assert isinstance(answer, Denied)
    assert answer.reason == "policy_changed"
    assert bench.broker.registry.tokens_of(agent.id) == []
