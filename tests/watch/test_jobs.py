"""Plans and advice are computed in processes of their own, in turns and shares."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from support.bench import Bench

from agentvault_tui.encoder import to_json
from agentvault_tui.errors import ConflictError, PolicyError
from agentvault_tui.operator_api.advice import AdviceList, HitRateInfo
from agentvault_tui.operator_api.planning import PlanInfo, PromptsInfo
from agentvault_tui.policy import PolicyTexts, shipped_policy
from agentvault_tui.watch.jobs import AdviceJob, Jobs, PlanJob

PLANNED = PlanInfo(
    digest="sha256:1",
    decisions=0,
    mismatches=0,
    changes=[],
    prompts_per_day=PromptsInfo(now=0.0, then=0.0),
    days=1.0,
    made=0,
    apart={},
)
ADVISED = AdviceList(advice=[], hit_rate=HitRateInfo())


def plan_of(bench: Bench, text: str) -> PlanJob:
    return PlanJob(PolicyTexts(text), bench.broker.deciding.policy.version, 300.0)


async def test_a_policy_that_is_refused_is_refused_by_the_process(bench: Bench) -> None:
    """The broker itself compiles no candidate, however much it costs."""
    job = plan_of(bench, "permit (principal, action, resource);")
    with pytest.raises(PolicyError, match="has no @id"):
        await Jobs(bench.broker).run(job, PlanInfo, "uid:1")


@pytest.fixture
def answer_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have jobs done by a program that starts fast, and plans when this is called."""
    gate, program = tmp_path / "gate", tmp_path / "program"
    program.write_text(
        "#!/bin/sh\nread -r job\n"
        f"""case "$job" in *'"type":"plan"'*)\n"""
        f"until [ -e {gate} ]; do sleep 0.01; done\n"
        f"echo '{to_json(PLANNED)}';;\n"
        f"*) echo '{to_json(ADVISED)}';; esac\n"
    )
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    return gate.touch


async def test_an_operator_has_at_most_two_jobs(
    bench: Bench, answer_plans: Callable[[], None]
) -> None:
    """A third is refused, and those of another operator are not."""
    jobs, job = Jobs(bench.broker), plan_of(bench, shipped_policy())
    running = [
        asyncio.create_task(jobs.run(job, PlanInfo, by))
        for by in ("uid:1", "uid:1", "uid:2")
    ]
    await asyncio.sleep(0)
    with pytest.raises(ConflictError, match="still computed"):
        await jobs.run(job, PlanInfo, "uid:1")
    answer_plans()
    assert [one.decisions for one in await asyncio.gather(*running)] == [0] * 3
    assert (await jobs.run(job, PlanInfo, "uid:1")).decisions == 0


async def test_advice_does_not_wait_for_plans(
    bench: Bench, answer_plans: Callable[[], None]
) -> None:
    """Plans are a viewer's, and advice is what an approver decides by."""
    jobs, job = Jobs(bench.broker), plan_of(bench, shipped_policy())
    plans = [asyncio.create_task(jobs.run(job, PlanInfo, "uid:1")) for _ in range(2)]
    await asyncio.sleep(0)
    until = bench.clock.now()
    advice = AdviceJob(
        bench.broker.deciding.policy.texts, until - timedelta(days=30), until
    )
    assert (await jobs.run(advice, AdviceList, "uid:2")).advice == []
    assert not any(one.done() for one in plans)
    answer_plans()
    await asyncio.gather(*plans)
