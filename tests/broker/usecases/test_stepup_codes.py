"""Codes of one step-up: each person who approves has one of their own."""

from __future__ import annotations

from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.stepups import hold

from agentvault_tui.approval_rules import StepUpRule
from agentvault_tui.broker.operators_api.stepups import own_device
from agentvault_tui.broker.shapes import stepup_info
from agentvault_tui.broker.usecases.stepup import begin_approval, confirm_here
from agentvault_tui.errors import FactorRefusedError
from agentvault_tui.model import Actor, ActorKind, StepUp, StepUpStatus
from agentvault_tui.operator_api.requests import Factor
from agentvault_tui.vault import FlowDenied

from .test_approvals import person, under

ALICE, BOB = (Actor(ActorKind.OPERATOR, f"uid:{n}", n) for n in ("alice", "bob"))


async def begin(bench: Bench, stepup: StepUp, who: Actor) -> str:
    """Begin to approve at a seat; return the user code that it is shown."""
    begun = await begin_approval(bench.broker, stepup.id, stepup.digest, who)
    device = own_device(bench.broker, who)(begun)
    assert device is not None
    return device.user_code


def status(bench: Bench, stepup: StepUp) -> StepUpStatus:
    return bench.broker.stepups.get(stepup.id).status


async def test_each_seat_has_a_code_of_its_own_and_keeps_it(bench: Bench) -> None:
    """Asked again the same; nobody is shown another's, in the stream neither."""
    _, stepup = await hold(bench)
    alices, bobs = await begin(bench, stepup, ALICE), await begin(bench, stepup, BOB)
    assert len(bench.tenant.flows) == 2
    assert await begin(bench, stepup, ALICE) == alices
    assert await begin(bench, stepup, BOB) == bobs
    now = bench.broker.stepups.get(stepup.id)
    assert own_device(bench.broker, OPERATOR)(now) is None
    assert stepup_info(now).device is None


@pytest.mark.parametrize("first", [0, 1])
async def test_a_code_that_is_cancelled_leaves_the_other_good(
    bench: Bench, first: int
) -> None:
    """Whose was asked for first does not matter."""
    _, stepup = await hold(bench)
    await begin(bench, stepup, ALICE)
    await begin(bench, stepup, BOB)
    flows = bench.broker.stepups.flows[stepup.id]
    bench.tenant.end(FlowDenied("cancelled"), first)
    await bench.until(lambda: len(flows) == 1)
    await bench.until(lambda: bench.broker.stepups.get(stepup.id).problem is not None)
    assert status(bench, stepup) is StepUpStatus.AUTHORIZING
    bench.tenant.approve(1 - first)
    await bench.until(lambda: status(bench, stepup) is StepUpStatus.APPROVED)
    assert len(await bench.events("stepup.approved")) == 1


async def test_the_first_of_two_who_approve_decides_and_ends_the_other_code(
    bench: Bench,
) -> None:
    """Exactly one token is minted."""
    _, stepup = await hold(bench)
    await begin(bench, stepup, ALICE)
    await begin(bench, stepup, BOB)
    bench.tenant.approve(1)
    await bench.until(lambda: status(bench, stepup) is StepUpStatus.APPROVED)
    await bench.until(lambda: stepup.id not in bench.broker.stepups.flows)
    bench.tenant.approve(0)
    assert len(await bench.events("stepup.approved")) == 1


async def test_two_people_who_have_to_approve_do_so_at_the_same_time(
    bench: Bench,
) -> None:
    """The first approval does not end the second person's code."""
    under(bench, StepUpRule(approvals=2, scopes=("payments",)))
    _, stepup = await hold(bench)
    await begin(bench, stepup, ALICE)
    await begin(bench, stepup, BOB)
    who: list[dict[str, Any]] = [person("alice"), person("bob")]
    for number, one in enumerate(who):
        bench.tenant.approve(number, who=one)
        await bench.until(
            lambda n=number: len(bench.broker.stepups.get(stepup.id).confirmed) > n  # type: ignore[misc]
        )
    await bench.until(lambda: status(bench, stepup) is StepUpStatus.APPROVED)
    confirmed = bench.broker.stepups.get(stepup.id).confirmed
    assert [one.sub for one in confirmed] == [one["sub"] for one in who]


async def test_a_factor_counts_only_where_somebody_signed_in(bench: Bench) -> None:
    """Without a sign-in at the seat the tenant is asked nothing."""
    _, stepup = await hold(bench)
    await begin(bench, stepup, ALICE)
    with pytest.raises(FactorRefusedError) as refused:
        await confirm_here(bench.broker, stepup.id, None, Factor(otp="123456"))
    assert refused.value.factor == "sign_in_needed"
    assert "123456" not in repr(Factor(otp="123456", password="secret"))
    assert "secret" not in repr(Factor(otp="123456", password="secret"))
