"""What is taken away on trial is refused as such, and one decision gives it back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.stepups import ask

from agentvault_tui.broker.answers import Denied, Granted
from agentvault_tui.broker.riders import Rider, ride
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.timed_grants import grant
from agentvault_tui.errors import ConflictError, NotFoundError
from agentvault_tui.model import Action, Agent, AgentStatus, Draft
from agentvault_tui.operator_api.advice import AdviceEvidence, AdviceInfo, AdvisedChange
from agentvault_tui.policy import shipped_policy
from agentvault_tui.vault import Secret
from agentvault_tui.watch.trials import Trials
from agentvault_tui.watch.watch import LedgerWatch

SCOPE = "write:calendar"
CALENDAR = Action((SCOPE,), SCOPE, "calendar:me")
SINCE = "2026-10-25T10:00:00.000000Z"
WEEK = 7 * 86_400


def advice(agent: Agent, kind: str = "unused_scope") -> AdviceInfo:
    changes = {
        "unused_scope": AdvisedChange(ungrant=[SCOPE]),
        "idle_agent": AdvisedChange(revoke=True),
        "narrower_resource": AdvisedChange(rule=forbidding(agent)),
        "always_approved": AdvisedChange(rule="permit (principal, action, resource);"),
    }
    return AdviceInfo(
        id=f"adv_{kind}",
        kind=kind,
        agent_id=agent.id,
        scope=SCOPE,
        evidence=AdviceEvidence(since=SINCE, until=SINCE),
        change=changes[kind],
    )


def forbidding(agent: Agent) -> str:
    return (
        f'@id("advice:adv_narrower_resource") @why("w")\nforbid (principal =='
        f' Agent::"{agent.id}", action == Action::"{SCOPE}", resource);\n'
    )


@pytest.fixture
async def trials(bench: Bench) -> Trials:
    return await restored(bench)


async def restored(bench: Bench) -> Trials:
    """Return the trials of a broker's new watch."""
    watch = LedgerWatch(bench.broker, lambda *_: Secret("hidden"))
    bench.broker.extensions.watch = watch
    await watch.trials.restore()
    return watch.trials


async def reason(bench: Bench, agent: Agent) -> str:
    """Return the reason of a denial, or nothing where it is granted."""
    answer = await ask(bench, bench.broker.registry.agent(agent.id), CALENDAR)
    assert isinstance(answer, Denied | Granted)
    return answer.reason if isinstance(answer, Denied) else ""


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        ("unused_scope", "scope_not_granted"),
        ("idle_agent", "agent_revoked"),
        ("narrower_resource", "policy_forbids"),
    ],
)
async def test_what_was_taken_is_refused_as_on_trial_until_it_ends(
    bench: Bench, trials: Trials, clock: ManualClock, kind: str, after: str
) -> None:
    """Live tokens end; on trial the reason says so, afterwards it is the usual one."""
    agent = await bench.agent()
    token = (await ask(bench, agent, CALENDAR)).access_token
    found = await trials.apply(advice(agent, kind), OPERATOR, WEEK)
    assert found.status == "on_trial"
    assert await reason(bench, agent) == "on_trial"
    assert bench.broker.registry.token(token) is None
    assert [one.id for one in bench.broker.extensions.trials_of(agent.id)] == [found.id]
    assert bench.broker.extensions.trials_of("agt_another") == []
    if kind == "narrower_resource":
        assert bench.home.policy_file.read_text().startswith(shipped_policy().rstrip())
    clock.advance(WEEK)
    assert await reason(bench, agent) == after
    assert bench.broker.extensions.trials_of(agent.id) == []
    assert [one.status for one in trials.merge([], every=True)] == ["kept"]
    assert trials.merge([], every=False) == []


@pytest.mark.parametrize("kind", ["unused_scope", "idle_agent", "narrower_resource"])
async def test_giving_back_gives_all_of_it_back(
    bench: Bench, trials: Trials, kind: str
) -> None:
    """The agent is granted again, the policy is as before, and the rate says it."""
    agent = await bench.agent()
    info = advice(agent, kind)
    await trials.apply(info, OPERATOR, WEEK)
    with pytest.raises(ConflictError, match="on trial already"):
        await trials.apply(info, OPERATOR, WEEK)
    found = await trials.give_back(info.id, OPERATOR)
    assert (found.status, found.trial_ends_at) == ("given_back", None)
    assert await reason(bench, agent) == ""
    assert (trials.hits.applied, trials.hits.given_back) == (1, 1)
    await reload_policy(bench.broker)
    assert "advice:" not in bench.broker.deciding.policy.text
    with pytest.raises(NotFoundError):
        await trials.give_back(info.id, OPERATOR)
    kinds = [e.type.value for e in await bench.events() if "advice" in e.type]
    assert kinds == ["advice.applied", "advice.given_back"]


@pytest.mark.parametrize("kind", ["unused_scope", "idle_agent", "narrower_resource"])
async def test_giving_back_is_one_record_with_its_proof(
    bench: Bench, trials: Trials, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A broker that is killed has all of it, or none."""
    agent = await bench.agent()
    info = advice(agent, kind)
    await trials.apply(info, OPERATOR, WEEK)
    made, commit = list[set[str]](), bench.ledger.commit

    def noted(*drafts: Draft, **more: Any) -> Any:
        made.append({one.type.value for one in drafts if one.type is not None})
        return commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", noted)
    with ride(Rider(OPERATOR, {"kinds": ["agents"]})) as rider:
        assert (await trials.give_back(info.id, OPERATOR)).status == "given_back"
    assert rider.recorded
    (first, *later) = (kinds for kinds in made if kinds)
    assert len(first) == 2
    assert "advice.given_back" in first
    assert later == []


async def test_trials_outlive_a_restart(bench: Bench, trials: Trials) -> None:
    """The next process refuses alike, and can give it back."""
    agent = await bench.agent()
    info = advice(agent)
    await trials.apply(info, OPERATOR, WEEK)
    async with bench.restarted() as again:
        assert await reason(again, agent) == "scope_not_granted"
        trials = await restored(again)
        assert await reason(again, agent) == "on_trial"
        await trials.give_back(info.id, OPERATOR)
        assert await reason(again, agent) == ""


async def test_dismissed_advice_is_told_anew_once_it_was_used_and_unused_again(
    bench: Bench, trials: Trials
) -> None:
    """Until then it is shown with all that is over alone."""
    info = advice(await bench.agent())
    await trials.dismiss(info, OPERATOR)
    assert trials.merge([info], every=False) == []
    assert [one.status for one in trials.merge([info], every=True)] == ["dismissed"]
    info.evidence.last_used_at = "2027-01-01T00:00:00.000000Z"
    assert [one.status for one in trials.merge([info], every=False)] == ["open"]


async def test_what_gives_is_never_applied(bench: Bench, trials: Trials) -> None:
    """A rule that spares prompts is put into the policy by a person, not on trial."""
    info = advice(await bench.agent(), "always_approved")
    with pytest.raises(ConflictError, match="changing the file itself"):
        await trials.apply(info, OPERATOR, WEEK)
    assert trials.hits.applied == 0


async def test_a_scope_that_ends_by_itself_is_not_taken_on_trial(
    bench: Bench, trials: Trials
) -> None:
    """Given back after its end, it would last."""
    agent = await bench.agent("timed", "read:email")
    given, none = frozenset({SCOPE}), frozenset[str]()
    await grant(bench.broker, agent.id, given, none, OPERATOR, seconds=60)
    with pytest.raises(ConflictError, match="ends by itself"):
        await trials.apply(advice(agent), OPERATOR, WEEK)
    assert bench.broker.extensions.trials_of(agent.id) == []
    assert SCOPE in bench.broker.registry.agent(agent.id).scopes


async def test_a_removal_that_comes_before_the_record_of_a_return_wins(
    bench: Bench, trials: Trials
) -> None:
    """Another decision about the agent is being recorded when the trial ends."""
    agent = await bench.agent()
    await trials.apply(advice(agent), OPERATOR, WEEK)
    lock, other = (
        bench.broker.registry.changing[agent.id],
        replace(OPERATOR, id="uid:7"),
    )
    async with lock:
        waits = asyncio.create_task(trials.give_back("adv_unused_scope", OPERATOR))
        await bench.until(lambda: bool(lock._waiters))
        gone = frozenset({SCOPE})
        await change_scopes(bench.broker, agent.id, frozenset(), gone, other)
    with pytest.raises(ConflictError, match="removed the same"):
        await waits
    assert SCOPE not in bench.broker.registry.agent(agent.id).scopes


@pytest.mark.parametrize("kind", ["unused_scope", "idle_agent"])
async def test_a_trial_takes_nothing_that_another_decision_has_taken(
    bench: Bench, trials: Trials, kind: str
) -> None:
    """Given back, it would end that decision, which its approver was not shown."""
    agent, alice = await bench.agent(), replace(OPERATOR, id="uid:7", name="alice")

    async def take() -> None:
        if kind == "idle_agent":
            await revoke_agent(bench.broker, agent.id, "compromised", alice)
        else:
            gone = frozenset({SCOPE})
            await change_scopes(bench.broker, agent.id, frozenset(), gone, alice)

    await take()
    before = bench.broker.registry.agent(agent.id)
    with pytest.raises(ConflictError, match="another decision"):
        await trials.apply(advice(agent, kind), OPERATOR, WEEK)
    # This broker has not followed the other's decision: the trial begins.
    active = replace(before, status=AgentStatus.ACTIVE, scopes=(*before.scopes, SCOPE))
    bench.broker.registry.put_agent(active)
    await trials.apply(advice(agent, kind), OPERATOR, WEEK)
    with pytest.raises(ConflictError, match="alice removed the same besides"):
        await trials.give_back(f"adv_{kind}", OPERATOR)
