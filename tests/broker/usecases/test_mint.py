"""A yes mints a token for what was begun, while it may still be had: or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.scripted_tenant import ALICE
from support.stepups import approve, hold, start

from agentvault_tui.broker.usecases.mint import mint_elevated
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.revoke import restore_agent, revoke_agent
from agentvault_tui.errors import LedgerBusyError
from agentvault_tui.ledger import Panic
from agentvault_tui.model import (
    AgentStatus,
    Draft,
    Event,
    EventType,
    Evidence,
    StepUp,
    StepUpStatus,
)
from agentvault_tui.model.claims import STEPUP
from agentvault_tui.policy.texts import shipped_policy
from agentvault_tui.settings import StepUpRule


def changed(**members: object) -> Callable[[Bench, StepUp], None]:
    """Let the step-up be another one than the one whose device flow began."""

    def change(bench: Bench, stepup: StepUp) -> None:
        bench.broker.stepups.put(replace(stepup, **members))  # type: ignore[arg-type]

    return change


def denying(bench: Bench, stepup: StepUp) -> None:
    bench.broker.stepups.deciding.add(stepup.id)


def too_late(bench: Bench, stepup: StepUp) -> None:
    bench.clock.advance(bench.broker.settings.stepup.expires_in + 1)


def cut_off(bench: Bench, stepup: StepUp) -> None:
    agent = bench.broker.registry.agent(stepup.agent_id)
    bench.broker.registry.put_agent(replace(agent, status=AgentStatus.REVOKED))


def stopped(bench: Bench, stepup: StepUp) -> None:
    bench.broker.registry.revocations.panic = Panic(
        True, bench.clock.now(), "olga", "drill"
    )


@pytest.mark.parametrize(
    "meanwhile",
    [
        changed(digest="sha256:00"),
        changed(nonce="another"),
        changed(policy_version="another"),
        changed(status=StepUpStatus.CANCELLED),
        denying,
        too_late,
        cut_off,
        stopped,
    ],
    ids=[
        "digest",
        "what it covers",
        "policy",
        "status",
        "denying",
        "late",
        "cut",
        "panic",
    ],
)
async def test_each_thing_that_changed_meanwhile_is_enough_to_mint_nothing(
    bench: Bench, meanwhile: Callable[[Bench, StepUp], None]
) -> None:
    """No other guard stands in for it: the person said yes to something else."""
    _, stepup = await hold(bench)
    started = await start(bench, stepup)
    meanwhile(bench, started)
    evidence = Evidence("auth0|alice", "alice", ("mfa",), bench.clock.now())
    assert not await mint_elevated(bench.broker, started, evidence, "id-token")
    assert bench.broker.registry.elevated(stepup.id) is None
    assert await bench.events("stepup.approved") == []


@pytest.mark.parametrize("change", ["a revocation", "a stricter policy"])
async def test_what_changes_while_an_approval_is_recorded_ends_its_token(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """It is on the record, and nobody can fetch it, after a restore either."""
    agent, stepup = await hold(bench)
    started = await start(bench, stepup)
    record = bench.broker.record

    async def during(*drafts: Draft, **more: Any) -> Any:
        written = await record(*drafts, **more)
        monkeypatch.setattr(bench.broker, "record", record)
        if change == "a revocation":
            await revoke_agent(bench.broker, agent.id, "", OPERATOR)
            await restore_agent(bench.broker, agent.id, OPERATOR)
        else:
            forbid = '@id("no")\n@why("No.")\nforbid (principal, action, resource);\n'
            bench.home.policy_file.write_text(shipped_policy() + forbid)
            await reload_policy(bench.broker)
        return written

    monkeypatch.setattr(bench.broker, "record", during)
    evidence = Evidence("auth0|alice", "alice", ("mfa",), bench.clock.now())
    assert not await mint_elevated(bench.broker, started, evidence, "id-token")
    assert bench.broker.registry.elevated(stepup.id) is None
    assert bench.broker.registry.tokens_of(agent.id) == []


async def test_one_person_who_approves_twice_is_one(bench: Bench) -> None:
    """Where two have to, the second is another one, whoever asks for the mint."""
    settings = bench.broker.settings
    two = replace(settings.stepup, rules=(StepUpRule(approvals=2),))
    bench.broker.settings = replace(settings, stepup=two)
    _, stepup = await hold(bench)
    alice = Evidence("auth0|alice", "alice", ("mfa",), bench.clock.now())
    for _ in range(2):
        started = await start(bench, bench.broker.stepups.get(stepup.id))
        assert await mint_elevated(bench.broker, started, alice, "id-token")
        assert bench.broker.registry.elevated(stepup.id) is None
    started = await start(bench, bench.broker.stepups.get(stepup.id))
    bob = alice._replace(sub="auth0|bob", name="bob")
    assert await mint_elevated(bench.broker, started, bob, "id-token")
    assert bench.broker.registry.elevated(stepup.id) is not None


async def test_the_factor_is_of_this_approval(bench: Bench, clock: ManualClock) -> None:
    """Proved after the request and before its device flow, it was for another one."""
    _, stepup = await hold(bench)
    clock.advance(60)
    await approve(bench, stepup)
    (flow,) = bench.tenant.flows
    assert bench.tenant.not_before == [flow.started_at]
    assert flow.started_at > stepup.requested_at


def under(bench: Bench, *, passkey_only: bool = False, url: str = "") -> None:
    settings = bench.broker.settings
    bench.broker.settings = replace(
        settings,
        stepup=replace(settings.stepup, passkey_only=passkey_only),
        tenant=replace(settings.tenant, url=url),
    )


async def tried(bench: Bench, **who: Any) -> StepUp:
    """Have a person approve; return the step-up once that was judged."""
    _, stepup = await hold(bench, f"payer-{len(bench.tenant.flows)}")
    await start(bench, stepup)
    if who.get("claims"):
        who["claims"] = {STEPUP: {"digest": stepup.digest, **who["claims"]}}
    bench.tenant.approve(who={**ALICE, **who})
    stepups = bench.broker.stepups
    await bench.until(lambda: stepup.id not in stepups.flows)
    return stepups.get(stepup.id)


@pytest.mark.parametrize("word", ["hwk", "swk"])
async def test_high_risk_takes_a_passkey_where_nothing_weaker_counts(
    bench: Bench, word: str
) -> None:
    """The broker judges it by the ID token, whatever page asked."""
    under(bench, passkey_only=True)
    refused = await tried(bench)
    assert "passkey" in str(refused.problem)
    assert refused.status is StepUpStatus.PENDING
    approved = await tried(bench, amr=(word, "user", "mfa"))
    assert approved.status is StepUpStatus.APPROVED


@pytest.mark.parametrize(
    "claims", [{"digest": "sha256:00", "decision": "approve"}, {"decision": "deny"}]
)
async def test_an_id_token_about_something_else_approves_nothing(
    bench: Bench, claims: dict[str, str]
) -> None:
    """What the approval page signed is another digest, or a no."""
    refused = await tried(bench, claims=claims)
    assert refused.status is StepUpStatus.PENDING
    assert "something else" in str(refused.problem)


@pytest.mark.parametrize(
    ("kind", "url"), [("auth0", "https://ops.example/"), ("embedded", "")]
)
async def test_where_there_are_pages_the_id_token_must_name_the_digest(
    bench: Bench, kind: str, url: str
) -> None:
    """An ID token without the digest approves nothing, with or without an address."""
    bench.broker.reaching.kind = kind
    under(bench, url=url)
    refused = await tried(bench, claims={})
    assert refused.status is StepUpStatus.PENDING
    assert "something else" in str(refused.problem)
    approved = await tried(bench, claims={"decision": "approve"})
    assert approved.status is StepUpStatus.APPROVED


@pytest.mark.parametrize("busy", [4, 5])
async def test_a_yes_is_recorded_although_other_brokers_write_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    """Who showed a factor shows it again only where that goes on for seconds."""
    commit, tries = bench.ledger.commit, 0

    async def refusing(*drafts: Draft, **more: Any) -> tuple[Event, ...]:
        nonlocal tries
        if drafts and drafts[0].type is EventType.STEPUP_APPROVED:
            tries += 1
            if tries <= busy:
                raise LedgerBusyError("other brokers write", "try again shortly")
        return await commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", refusing)
    _, stepup = await hold(bench)
    await start(bench, stepup)
    bench.tenant.approve()
    get = bench.broker.stepups.get
    await bench.until(lambda: get(stepup.id).status is not StepUpStatus.AUTHORIZING)
    now, approved = get(stepup.id), busy < 5
    assert (now.status is StepUpStatus.APPROVED) is approved
    assert now.problem == (None if approved else "other brokers write")
    assert (bench.broker.registry.elevated(stepup.id) is not None) is approved
