"""Plans and advice are computed in processes of their own, in turns and shares."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from support.bench import Bench

from agentvault_tui.errors import ConflictError, PolicyError
from agentvault_tui.operator_api.advice import AdviceList
from agentvault_tui.operator_api.planning import PlanInfo
from agentvault_tui.policy import PolicyTexts, shipped_policy
from agentvault_tui.watch.jobs import AdviceJob, Jobs, PlanJob


def plan_of(bench: Bench, text: str) -> PlanJob:
    return PlanJob(PolicyTexts(text), bench.broker.policy.version, 300.0)


async def test_a_policy_that_is_refused_is_refused_by_the_process(bench: Bench) -> None:
    """The broker itself compiles no candidate, however much it costs."""
    job = plan_of(bench, "permit (principal, action, resource);")
    with pytest.raises(PolicyError, match="has no @id"):
        await Jobs(bench.broker).run(job, PlanInfo, "uid:1")


async def test_an_operator_has_at_most_two_jobs(bench: Bench) -> None:
    """A third is refused, and those of another operator are not."""
    jobs, job = Jobs(bench.broker), plan_of(bench, shipped_policy())
    running = [asyncio.create_task(jobs.run(job, PlanInfo, "uid:1")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ConflictError, match="still computed"):
        await jobs.run(job, PlanInfo, "uid:1")
    assert (await jobs.run(job, PlanInfo, "uid:2")).decisions == 0
    await asyncio.gather(*running)
    assert (await jobs.run(job, PlanInfo, "uid:1")).decisions == 0


async def test_advice_does_not_wait_for_plans(bench: Bench) -> None:
    """Plans are a viewer's, and advice is what an approver decides by."""
    jobs, job = Jobs(bench.broker), plan_of(bench, shipped_policy())
    plans = [asyncio.create_task(jobs.run(job, PlanInfo, "uid:1")) for _ in range(2)]
    until = bench.clock.now()
    advice = AdviceJob(bench.broker.policy.texts, until - timedelta(days=30), until)
    assert (await jobs.run(advice, AdviceList, "uid:2")).advice == []
    assert not plans[1].done()
    await asyncio.gather(*plans)
