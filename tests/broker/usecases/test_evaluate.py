"""A request with several actions is held, shown and ended by the strictest of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.stepups import Gate, approve, start

from agentvault_tui.approval_rules import StepUpRule
from agentvault_tui.broker.answers import Denied, Escalated, Permitted
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases import decide
from agentvault_tui.broker.usecases.approvals import needed
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.model import Action, Agent, EventType, Repeat, Risk, StepUp
from agentvault_tui.policy import Policy
from agentvault_tui.watch.config import AlertRoute
from agentvault_tui.watch.signals import Signals

SCOPES = ("read:calendar", "write:files", "delete:files")
"""Of low, medium and high risk."""
BY_RISK = tuple(
    StepUpRule(approvals=number, risk=risk, approvers=(risk.value,))
    for number, risk in enumerate((Risk.LOW, Risk.MEDIUM, Risk.HIGH), 2)
)
BY_SCOPE = tuple(
    StepUpRule(approvals=number, scopes=(scope,), no_self=number == 4)
    for number, scope in enumerate(SCOPES, 2)
)
HIGH = {"sub": "agentvault|key", "roles": ("approver",), "amr": ("mfa", "hwk")}
PAIRS = list(permutations(SCOPES, 2))
BOTH = list(permutations(("write:files", "delete:files")))
PERMIT = '@id("all") @why("w") @obligation("{}") permit (principal, action, resource);'


def answering(bench: Bench, obligation: str) -> None:
    """Let policy answer every request the same."""
    catalogue = bench.broker.deciding.policy.catalogue
    bench.broker.deciding.policy = Policy(PERMIT.format(obligation), catalogue)


def under(bench: Bench, *rules: StepUpRule, passkey_only: bool = False) -> None:
    settings = bench.broker.settings
    stepup = replace(settings.stepup, rules=rules, passkey_only=passkey_only)
    bench.broker.settings = replace(settings, stepup=stepup)


async def ask(bench: Bench, agent: Agent, *scopes: str) -> Any:
    """Ask about one action for each of *scopes*, on a file of its own."""
    first, *others = (Action((one,), one, f"file:/{one[:4]}") for one in scopes)
    return await evaluate(bench.broker, agent, first, others=tuple(others))


async def held(bench: Bench, *scopes: str) -> tuple[Agent, StepUp]:
    answering(bench, "step_up")
    agent = await bench.agent("coder", *SCOPES)
    answer = await ask(bench, agent, *scopes)
    assert isinstance(answer, Escalated)
    return agent, answer.stepup


async def change(bench: Bench, agent: Agent, give: str = "", take: str = "") -> None:
    """Give and take scopes."""
    given, taken = frozenset(give.split()), frozenset(take.split())
    await change_scopes(bench.broker, agent.id, given, taken, OPERATOR)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
async def test_each_order_of_two_actions_has_the_need_and_risk_of_the_stricter(
    bench: Bench, pair: tuple[str, str]
) -> None:
    """By rules of risks and of scopes, when it is asked and when it is approved."""
    under(bench, *BY_RISK, *BY_SCOPE)
    _, stepup = await held(bench, *pair)
    places = sorted(map(SCOPES.index, pair))
    assert stepup.scope.split() == [*pair]
    assert stepup.risk is (Risk.LOW, Risk.MEDIUM, Risk.HIGH)[places[1]]
    now = needed(bench.broker, stepup)
    for need in stepup.need, now.approvals:
        assert need == places[1] + 2
    assert stepup.approvers == now.approvers
    assert stepup.approvers == tuple(BY_RISK[place].approvers for place in places)
    assert stepup.owners == (("olga",) if "delete:files" in pair else ())
    (event,) = await bench.events("stepup.requested")
    assert (event.detail["scope"], event.detail["risk"]) == (
        " ".join(pair),
        stepup.risk.value,
    )
    (event,) = await bench.events("access.decision")
    assert event.detail["asked_scope"] == " ".join(pair)


@pytest.mark.parametrize("pair", BOTH, ids=str)
async def test_a_passkey_is_needed_if_one_of_the_actions_is_of_high_risk(
    bench: Bench, pair: tuple[str, str]
) -> None:
    """A one-time code does not approve it, in either order; a passkey does."""
    under(bench, passkey_only=True)
    _, stepup = await held(bench, *pair)
    await start(bench, stepup)
    bench.tenant.approve(who={**HIGH, "amr": ("mfa", "otp")})
    stepups = bench.broker.stepups
    await bench.until(lambda: stepup.id not in stepups.flows)
    assert stepups.get(stepup.id).status.open
    assert "passkey" in str(stepups.get(stepup.id).problem)
    await start(bench, stepups.get(stepup.id))
    bench.tenant.approve(who=HIGH)
    await bench.until(lambda: not stepups.get(stepup.id).status.open)
    assert stepups.get(stepup.id).status == "approved"


@pytest.mark.parametrize("taken", BOTH[0])
@pytest.mark.parametrize("pair", BOTH, ids=str)
async def test_the_end_of_any_of_its_scopes_ends_an_approval(
    bench: Bench, pair: tuple[str, str], taken: str
) -> None:
    """With its token, and also while it waits; granted again, a person is asked."""
    agent, waiting = await held(bench, *pair)
    stepups = bench.broker.stepups
    await change(bench, agent, take=taken)
    assert stepups.get(waiting.id).status == "cancelled"
    await change(bench, agent, give=taken)
    second = await ask(bench, agent, *pair)
    await approve(bench, second.stepup)
    await change(bench, agent, take=taken)
    assert stepups.get(second.stepup.id).status == "cancelled"
    assert bench.broker.registry.elevated(second.stepup.id) is None
    await change(bench, agent, give=taken)
    assert isinstance(await ask(bench, agent, *pair), Escalated)


@pytest.mark.parametrize("taken", BOTH[0])
async def test_a_scope_taken_while_a_call_out_decides_is_not_used(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """Whichever of the request's scopes it is."""
    answering(bench, "allow")
    agent = await bench.agent("coder", *SCOPES)
    reached, opened = asyncio.Event(), asyncio.Event()

    async def slow(_: Broker, __: object, verdict: Any) -> Any:
        reached.set()
        await opened.wait()
        return verdict

    monkeypatch.setattr(decide, "call_webhooks", slow)
    asking = asyncio.ensure_future(ask(bench, agent, *BOTH[0]))
    await reached.wait()
    await change(bench, agent, take=taken)
    opened.set()
    assert isinstance(await asking, Denied)


@pytest.mark.parametrize("taken", BOTH[0])
@pytest.mark.parametrize("approved", [False, True])
async def test_a_scope_taken_while_the_answer_is_recorded_is_not_used(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, taken: str, approved: bool
) -> None:
    """Whichever of them it is, with an approval and without."""
    if approved:
        agent, stepup = await held(bench, *BOTH[0])
        await approve(bench, stepup)
    else:
        answering(bench, "allow")
        agent = await bench.agent("coder", *SCOPES)
    gate = Gate(bench, monkeypatch, EventType.ACCESS_DECISION)
    asking = asyncio.ensure_future(ask(bench, agent, *BOTH[0]))
    await gate.reached.wait()
    await change(bench, agent, take=taken)
    gate.open.set()
    assert isinstance(await asking, Denied)


@pytest.mark.parametrize("pair", BOTH, ids=str)
async def test_alert_routes_match_the_risk_of_any_action(
    bench: Bench, pair: tuple[str, str]
) -> None:
    """Of the step-up as of its decision; another risk is not matched."""
    await held(bench, *pair)
    signals = Signals(bench.broker, {})
    for event in [
        *await bench.events("stepup.requested"),
        *await bench.events("access.decision"),
    ]:
        for risk in Risk:
            takes = signals.takes(AlertRoute(("one",), risk=risk), event)
            assert takes is (risk is not Risk.LOW)


async def test_an_action_next_to_another_one_ends_its_series(bench: Bench) -> None:
    """A series is for the action alone; whichever is the first of the request."""
    agent, stepup = await held(bench, "write:files")
    await approve(bench, stepup, Repeat(3, 600))
    assert isinstance(await ask(bench, agent, "write:files"), Permitted)
    assert isinstance(await ask(bench, agent, "write:files"), Permitted)
    assert isinstance(await ask(bench, agent, *reversed(BOTH[0])), Escalated)
    (event,) = await bench.events("stepup.repeat_ended")
    assert event.reason == "deviated"
    assert isinstance(await ask(bench, agent, "write:files"), Escalated)


async def test_several_allowed_actions_are_permitted(bench: Bench) -> None:
    """The record names the first, and all scopes."""
    answering(bench, "allow")
    agent = await bench.agent("coder", *SCOPES)
    assert isinstance(await ask(bench, agent, *SCOPES), Permitted)
    (event,) = await bench.events("access.decision")
    assert event.detail["scope"] == "read:calendar"
    assert event.detail["asked_scope"] == " ".join(SCOPES)
