"""Two-person rules: different people, none of the agent's own, and what ends it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from support.bench import OPERATOR, Bench
from support.stepups import Gate, approve, hold, start

from agentvault_tui.approval_rules import StepUpRule
from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.shapes import stepup_info
from agentvault_tui.broker.stepups import digest_of
from agentvault_tui.broker.usecases.approvals import (
    CUTTING,
    approved_by,
    asked_of,
    check_rules,
    end_gathered,
    end_gathered_before,
    needed,
)
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.errors import ConflictError, SettingsError
from agentvault_tui.model import Agent, AgentId, EventType, Risk, StepUp, StepUpStatus
from agentvault_tui.model.event import user_changed

TWO = StepUpRule(approvals=2, scopes=("payments",))


def person(name: str, **more: Any) -> dict[str, Any]:
    return {
        "sub": f"agentvault|{name}",
        "roles": ("approver",),
        "amr": ("mfa", "otp"),
        **more,
    }


def under(bench: Bench, *rules: StepUpRule) -> None:
    settings = bench.broker.settings
    stepup = replace(settings.stepup, rules=rules)
    bench.broker.settings = replace(settings, stepup=stepup)


async def confirm(bench: Bench, stepup: StepUp, who: dict[str, Any]) -> StepUp:
    """Let *who* approve at the tenant; return the step-up once that was judged."""
    await start(bench, bench.broker.stepups.get(stepup.id))
    bench.tenant.approve(who=who)
    stepups = bench.broker.stepups
    await bench.until(lambda: stepup.id not in stepups.flows)
    return stepups.get(stepup.id)


async def test_two_different_people_approve_in_their_order(bench: Bench) -> None:
    """The first is `stepup.confirmed`, the last `stepup.approved` with both."""
    under(bench, TWO)
    _, stepup = await hold(bench)
    waiting = await confirm(bench, stepup, person("alice"))
    assert waiting.status is StepUpStatus.PENDING
    (first,) = await bench.events("stepup.confirmed")
    assert (first.detail["have"], first.detail["need"]) == (1, 2)
    assert [one["name"] for one in first.detail["by"]] == ["alice"]
    told = stepup_info(waiting)
    assert told.approvals is not None
    assert (told.approvals.have, told.approvals.need) == (1, 2)
    assert told.approvals.may == "any approver but alice"
    assert bench.broker.registry.elevated(stepup.id) is None
    approved = await confirm(bench, stepup, person("bob"))
    assert approved.status is StepUpStatus.APPROVED
    (last,) = await bench.events("stepup.approved")
    assert [one["name"] for one in last.detail["decided_by"]] == ["alice", "bob"]
    past = (await bench.read(f"/api/past?seq={first.seq}")).json()["stepups"][0]
    assert (past["status"], past["approvals"]["have"]) == ("pending", 1)
    past = (await bench.read(f"/api/past?seq={last.seq}")).json()["stepups"][0]
    assert [one["name"] for one in past["decided_by"]] == ["alice", "bob"]
    by = stepup_info(approved).decided_by
    assert isinstance(by, tuple)
    assert [one.name for one in by] == ["alice", "bob"]


async def test_the_same_person_counts_once(bench: Bench) -> None:
    """A second approval of theirs is no other person's."""
    under(bench, TWO)
    _, stepup = await hold(bench)
    await confirm(bench, stepup, person("alice"))
    again = await confirm(bench, stepup, person("alice"))
    assert again.status is StepUpStatus.PENDING
    assert "approved this already" in str(again.problem)
    assert len(again.confirmed) == 1


@pytest.mark.parametrize(
    "who",
    [
        person("OLGA"),
        person("x", sub="agentvault|x", email="Olga"),
        person("x", sub="olga"),
    ],
    ids=["name", "e-mail", "sub"],
)
async def test_the_agents_owner_may_not_where_a_rule_says_so(
    bench: Bench, who: dict[str, Any]
) -> None:
    """By subject, name or e-mail, whatever the case; another person may."""
    under(bench, StepUpRule(no_self=True))
    _, stepup = await hold(bench)
    refused = await confirm(bench, stepup, who)
    assert refused.status is StepUpStatus.PENDING
    assert "owns the agent" in str(refused.problem)
    approved = await confirm(bench, stepup, person("alice"))
    assert approved.status is StepUpStatus.APPROVED


async def test_the_owner_of_an_agent_that_passed_the_token_on_may_not(
    bench: Bench,
) -> None:
    """The whole delegation chain counts."""
    under(bench, StepUpRule(no_self=True))
    _, stepup = await hold(bench)
    bench.broker.stepups.put(replace(stepup, owners=("olga", "alice")))
    refused = await confirm(bench, stepup, person("alice"))
    assert refused.status is StepUpStatus.PENDING


async def test_rules_that_came_since_it_was_asked_count_too(bench: Bench) -> None:
    """One more person, and none of the agent's own, as a request of now would need."""
    _, stepup = await hold(bench)
    under(bench, TWO, StepUpRule(no_self=True))
    refused = await confirm(bench, stepup, person("olga"))
    assert "owns the agent" in str(refused.problem)
    one = await confirm(bench, stepup, person("alice"))
    assert (one.status, one.need) == (StepUpStatus.PENDING, 2)
    two = await confirm(bench, stepup, person("bob"))
    assert two.status is StepUpStatus.APPROVED


async def gathered(bench: Bench) -> StepUp:
    under(bench, TWO)
    _, stepup = await hold(bench)
    return await confirm(bench, stepup, person("alice"))


async def test_a_removed_person_ends_what_was_gathered(bench: Bench) -> None:
    """Also in the middle of the next approval; all have to approve anew."""
    stepup = await gathered(bench)
    await start(bench, stepup)
    await end_gathered(bench.broker, "agentvault|alice")
    anew = bench.broker.stepups.get(stepup.id)
    assert (anew.status, anew.confirmed) == (StepUpStatus.PENDING, ())
    assert anew.id not in bench.broker.stepups.flows
    (event,) = await bench.events("stepup.not_approved")
    assert event.detail["have"] == 0
    one = await confirm(bench, stepup, person("bob"))
    assert [who.name for who in one.confirmed] == ["bob"]


async def test_what_is_decided_while_others_end_stays_decided(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that a removed person had approved one is denied, and waits no more."""
    under(bench, TWO)
    made = [(await hold(bench, name))[1] for name in ("one", "two")]
    first, second = [await confirm(bench, one, person("alice")) for one in made]
    gate = Gate(bench, monkeypatch, EventType.STEPUP_NOT_APPROVED)
    ending = asyncio.ensure_future(end_gathered(bench.broker, "agentvault|alice"))
    await gate.reached.wait()
    await deny(bench.broker, second.id, "no", OPERATOR)
    gate.open.set()
    await ending
    stepups = bench.broker.stepups
    assert stepups.get(first.id).confirmed == ()
    assert stepups.get(second.id).status is StepUpStatus.DENIED


async def test_a_person_removed_while_nothing_ran_ends_it_at_the_start(
    bench: Bench,
) -> None:
    """What was gathered outlives a restart, unless one of them was removed."""
    stepup = await gathered(bench)
    async with bench.restarted() as again:
        kept = again.broker.stepups.get(stepup.id)
        assert [one.name for one in kept.confirmed] == ["alice"]
        await end_gathered_before(again.broker)
        assert again.broker.stepups.get(stepup.id).confirmed
        removed = user_changed(OPERATOR, "removed", "alice", "agentvault|alice", [])
        await again.broker.record(removed)
        await end_gathered_before(again.broker)
        assert again.broker.stepups.get(stepup.id).confirmed == ()


async def test_a_changed_policy_ends_what_was_gathered(bench: Bench) -> None:
    """The digest is another one: what was approved is not what is asked now."""
    stepup = await gathered(bench)
    old = replace(stepup, policy_version="before")
    old = replace(old, digest=digest_of(old))
    bench.broker.stepups.put(old)
    with pytest.raises(ConflictError, match="policy changed"):
        await begin_approval(bench.broker, old.id, old.digest, OPERATOR)
    assert bench.broker.stepups.get(stepup.id).confirmed == ()


async def test_a_no_or_the_end_of_its_time_ends_all(bench: Bench) -> None:
    """One approval of two grants nothing."""
    stepup = await gathered(bench)
    await deny(bench.broker, stepup.id, "no", OPERATOR)
    assert bench.broker.stepups.get(stepup.id).status is StepUpStatus.DENIED
    bench.clock.advance(1000)
    _, late = await hold(bench, "other")
    await confirm(bench, late, person("alice"))
    bench.clock.advance(bench.broker.settings.stepup.expires_in + 1)
    await expire_due(bench.broker)
    assert bench.broker.stepups.get(late.id).status is StepUpStatus.EXPIRED


async def confirming(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> tuple[Agent, StepUp, Gate]:
    """Return an agent, its step-up, and what holds the first approval's record."""
    under(bench, TWO)
    agent, stepup = await hold(bench)
    await start(bench, stepup)
    gate = Gate(bench, monkeypatch, EventType.STEPUP_CONFIRMED)
    bench.tenant.approve(who=person("alice"))
    await gate.reached.wait()
    return agent, stepup, gate


async def test_a_revocation_while_one_is_recorded_cancels(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row that is kept says cancelled, whatever was written in between."""
    agent, stepup, gate = await confirming(bench, monkeypatch)
    stepups = bench.broker.stepups
    assert stepup.id in stepups.deciding
    await revoke_agent(bench.broker, AgentId(agent.id), "gone", OPERATOR)
    gate.open.set()
    await bench.until(lambda: stepup.id not in stepups.deciding)
    assert stepups.get(stepup.id).status is StepUpStatus.CANCELLED
    async with bench.restarted() as again:
        kept = [one for one in again.broker.stepups.open() if one.id == stepup.id]
        assert kept == []


async def test_a_change_that_is_not_about_it_keeps_an_approval(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another scope of its agent is taken while one is recorded: it waits on."""
    agent, stepup, gate = await confirming(bench, monkeypatch)
    other = frozenset({"write:calendar"})
    await change_scopes(bench.broker, agent.id, frozenset(), other, OPERATOR)
    gate.open.set()
    stepups = bench.broker.stepups
    await bench.until(lambda: stepup.id not in stepups.flows)
    assert [one.name for one in stepups.get(stepup.id).confirmed] == ["alice"]
    assert await bench.events("stepup.cancelled") == []
    approved = await confirm(bench, stepup, person("bob"))
    assert approved.status is StepUpStatus.APPROVED


async def test_the_strictest_rule_that_fits_counts(bench: Bench) -> None:
    """By scope or group, by risk, or by both."""
    _, stepup = await hold(bench)
    under(
        bench,
        StepUpRule(approvals=2, scopes=("payments",), risk="high"),
        StepUpRule(approvals=3, scopes=("send:payment",), risk=("low",)),
        StepUpRule(no_self=True, risk=("high", "medium")),
    )

    def asks(scope: str, risk: str) -> tuple[object, ...]:
        asked = asked_of(bench.broker, scope, Risk(risk), ())
        now = replace(stepup, scope=scope, risk=Risk(risk))
        assert needed(bench.broker, now).approvals == asked["need"]
        return needed(bench.broker, now)[:2]

    assert asks("send:payment", "high") == (2, True)
    assert asks("send:payment", "low") == (3, False)
    assert asks("write:calendar", "medium") == (1, True)
    assert asks("write:calendar", "low") == (1, False)


def test_a_rule_that_would_ask_for_nobody_is_refused(bench: Bench) -> None:
    """A misspelt scope must not leave one person where two were meant."""
    under(bench, StepUpRule(approvals=2, scopes=("send:paymnet",)))
    with pytest.raises(SettingsError, match="send:paymnet"):
        check_rules(bench.broker)
    under(bench, TWO)
    check_rules(bench.broker)
    with pytest.raises(SettingsError, match="nothing more than usual"):
        StepUpRule(scopes=("payments",))
    for bad in ({"approvals": 0}, {"approvals": 2, "risk": "grave"}, {"aprovals": 2}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, StepUpRule)


async def test_only_whom_a_rule_names_counts_for_its_requests(bench: Bench) -> None:
    """By address or group, for an agent's requests; every interface says who may."""
    rule = StepUpRule(agents=("payer",), approvers=("group:finance", "alice@acme.test"))
    under(bench, rule)
    _, stepup = await hold(bench)
    info = stepup_info(stepup)
    assert info.approvals is not None
    assert "group:finance or alice@acme.test" in info.approvals.may
    mallory = {**person("mallory"), "claims": {"groups": ["sales"]}}
    refused = await confirm(bench, stepup, mallory)
    assert refused.status is StepUpStatus.PENDING
    assert "may not approve this" in str(refused.problem)
    unverified = {**person("eve"), "email": "alice@acme.test"}
    assert (await confirm(bench, stepup, unverified)).status is StepUpStatus.PENDING
    fiona = {**person("fiona"), "claims": {"groups": ["finance"]}}
    assert (await confirm(bench, stepup, fiona)).status is StepUpStatus.APPROVED
    _, other = await hold(bench, "another")
    assert stepup_info(other).approvals is None
    anybody = await confirm(bench, other, person("mallory"))
    assert anybody.status is StepUpStatus.APPROVED


@pytest.mark.parametrize("fetched", [False, True])
async def test_what_a_changed_person_approved_and_nobody_used_ends(
    bench: Bench, *, fetched: bool
) -> None:
    """Its token with it, whether the agent has fetched it or not; others' stay."""
    agent, stepup = await hold(bench)
    server = await bench.agent("api", resource_server=True)
    await approve(bench, stepup)
    (who,) = approved_by(bench.broker.stepups.get(stepup.id))
    token = ""
    if fetched:
        granted = await poll(bench.broker, agent, stepup.id)
        assert isinstance(granted, Granted)
        token = granted.access_token
    await end_gathered(bench.broker, "agentvault|somebody")
    assert bench.broker.stepups.get(stepup.id).status is StepUpStatus.APPROVED
    await end_gathered(bench.broker, who)
    ended = bench.broker.stepups.get(stepup.id)
    assert (ended.status, ended.problem) == (StepUpStatus.CANCELLED, "approver_changed")
    assert bench.broker.registry.elevated(stepup.id) is None
    if fetched:
        assert (await introspect(bench.broker, server, token)).token is None
    async with bench.restarted() as again:
        assert list(again.broker.registry.tokens_of(agent.id)) == []


@pytest.mark.parametrize("change", ["removed", "role", "password", "factor", "passkey"])
def test_each_change_that_may_hide_another_person_ends_approvals(change: str) -> None:
    """Whoever has the old factor, password or role may be somebody else."""
    assert change in CUTTING
