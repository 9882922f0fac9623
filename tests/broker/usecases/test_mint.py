"""A yes mints a token for what was begun, while it may still be had: or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.bench import Bench
from support.manual_clock import ManualClock
from support.stepups import approve, hold, start

from agentvault_tui.broker.usecases.mint import mint_elevated
from agentvault_tui.ledger import Panic
from agentvault_tui.model import AgentStatus, Evidence, StepUp, StepUpStatus


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
    bench.broker.registry.panic = Panic(True, bench.clock.now(), "olga", "drill")


@pytest.mark.parametrize(
    "meanwhile",
    [
        changed(digest="sha256:00"),
        changed(policy_version="another"),
        changed(status=StepUpStatus.PENDING),
        denying,
        too_late,
        cut_off,
        stopped,
    ],
    ids=["digest", "policy", "status", "denying", "late", "cut", "panic"],
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


async def test_the_factor_is_of_this_approval(bench: Bench, clock: ManualClock) -> None:
    """Proved after the request and before its device flow, it was for another one."""
    _, stepup = await hold(bench)
    clock.advance(60)
    await approve(bench, stepup)
    (flow,) = bench.tenant.flows
    assert bench.tenant.not_before == [flow.started_at]
    assert flow.started_at > stepup.requested_at
