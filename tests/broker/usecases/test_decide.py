"""Limits are counted with the decision: exact at once, over restarts and approvals."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.bench import PAYMENT, Bench
from support.stepups import approve, ask, hold, redeemable

from agentvault_tui.broker.answers import Denied, Escalated, Granted, Permitted
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.policy_change import reload_policy, switch_policy
from agentvault_tui.broker.usecases.redeem import introspect, poll
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.model import Action, Agent
from agentvault_tui.policy import Policy

CALENDAR = Action(scopes=("write:calendar",), action="write:calendar")
LIMIT = """
[[limits]]
id = "calendar"
scopes = ["write:calendar"]
within = "60s"
count = 20
over = "deny"
"""
PAYMENTS = """
[[limits]]
id = "payments"
scopes = ["payments"]
within = "24h"
{}
over = "deny"
"""


async def limited(bench: Bench, text: str = LIMIT) -> None:
    """Put *text* in force."""
    bench.home.limits_file.write_text(text)
    await reload_policy(bench.broker)
    assert bench.broker.deciding.state.problem is None


async def write(bench: Bench, agent: Agent, **more: Any) -> Any:
    action = replace(CALENDAR, **more)
    return await request_token(bench.broker, agent, action, resource=None, details=None)


async def used(bench: Bench) -> int:
    return sum(one.used for one in await bench.broker.deciding.limits.all())


async def test_sixty_four_at_once_never_pass_a_limit_by_one(bench: Bench) -> None:
    """Exactly its count is allowed; the others are told when they would be."""
    await limited(bench)
    agent = await bench.agent()
    answers = await asyncio.gather(*(write(bench, agent) for _ in range(64)))
    assert sum(isinstance(one, Granted) for one in answers) == 20
    refused = [one for one in answers if isinstance(one, Denied)]
    assert {(one.reason, one.retry_after) for one in refused} == {("limit_reached", 60)}
    event = (await bench.events("token.decision"))[-1]
    assert (event.rule, event.detail["retry_after"]) == ("limit:calendar", 60)
    assert event.detail["facts"]["limits"] == {"calendar": {"count": 20, "left": 0}}
    bench.clock.advance(59)
    assert (await write(bench, agent)).retry_after == 1
    bench.clock.advance(1)
    assert isinstance(await write(bench, agent), Granted)


async def test_a_restart_and_a_clock_set_back_forget_nothing(bench: Bench) -> None:
    """What was counted is read from the chain; the window ends at its latest time."""
    await limited(bench)
    agent = await bench.agent()
    for _ in range(20):
        await write(bench, agent)
        bench.clock.advance(1)
    bench.clock.jump_wall(-86_400)
    async with bench.restarted() as again:
        assert await used(again) == 20
        assert (await write(again, agent)).reason == "limit_reached"
        again.clock.jump_wall(86_400 + 40)
        assert isinstance(await write(again, agent), Granted)


async def test_what_could_not_be_recorded_is_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the commit is refused at once, or a later check denies it."""
    await limited(bench)
    agent = await bench.agent()
    monkeypatch.setattr(bench.ledger, "fault", "is full")
    with pytest.raises(LedgerUnwritableError):
        await write(bench, agent)
    monkeypatch.undo()
    assert await used(bench) == 0
    monkeypatch.setattr(bench.broker.registry, "may_hold_more", lambda *_: False)
    assert (await write(bench, agent)).reason == "too_many_tokens"
    assert await used(bench) == 0
    assert bench.broker.deciding.limits._held == {}


async def test_a_cancelled_caller_counts_once_its_record_is_under_way(
    bench: Bench,
) -> None:
    """A commit goes on without its caller, so nothing is given back."""
    await limited(bench)
    agent = await bench.agent()
    tasks = [asyncio.create_task(write(bench, agent)) for _ in range(64)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await write(bench, agent)
    counted = [e for e in await bench.events() if "counted" in e.detail]
    assert len(counted) == await used(bench) == 20


async def test_another_currency_and_an_unclear_amount_go_to_a_person(
    bench: Bench,
) -> None:
    """Whatever the limit says, and they count nothing while they wait."""
    await limited(bench, PAYMENTS.format('amount = 10000\ncurrency = "EUR"'))
    agent = await bench.agent()
    assert isinstance(await ask(bench, agent), Escalated)
    assert await used(bench) == 0


async def test_an_approval_counts_when_its_token_is_given_out(bench: Bench) -> None:
    """Not while it waits; and a limit that denies holds for approvals too."""
    await limited(bench, PAYMENTS.format('amount = 9000\ncurrency = "USD"'))
    agent, first = await hold(bench)
    second = await ask(bench, agent, replace(PAYMENT, resource="stripe:acct_2"))
    third = await ask(bench, agent, replace(PAYMENT, resource="stripe:acct_3"))
    for stepup in (first, second.stepup, third.stepup):
        await approve(bench, stepup)
    assert await used(bench) == 0
    answers = await asyncio.gather(
        *(
            poll(bench.broker, agent, one.id)
            for one in (first, second.stepup, third.stepup)
        )
    )
    assert [type(one).__name__ for one in answers].count("Granted") == 2
    (denied,) = [one for one in answers if isinstance(one, Denied)]
    assert (denied.reason, denied.retry_after) == ("limit_reached", 86_400)
    assert await used(bench) == 8400
    (event, _) = await bench.events("token.delivered")
    assert event.detail["counted"]["limits"] == {
        "payments": {"amount": 4200, "currency": "USD"}
    }
    bench.clock.advance(1)
    async with bench.restarted() as again:
        assert await used(again) == 8400
        verdict = await ask(again, agent, replace(PAYMENT, resource="stripe:acct_4"))
        assert (verdict.reason, verdict.retry_after) == ("limit_reached", 86_399)


async def test_an_evaluation_counts_once_it_is_spent(bench: Bench) -> None:
    """Escalated it counts nothing, approved and repeated it does."""
    await limited(bench, PAYMENTS.format("count = 1"))
    agent = await bench.agent()

    async def asked() -> Any:
        return await evaluate(bench.broker, agent, PAYMENT)

    held = await asked()
    assert isinstance(held, Escalated)
    await approve(bench, held.stepup)
    assert await used(bench) == 0
    assert isinstance(await asked(), Permitted)
    assert await used(bench) == 1
    assert (await asked()).reason == "limit_reached"


async def test_a_limit_that_asks_a_person_is_passed_by_an_approval(
    bench: Bench,
) -> None:
    """The step-up names the limit; what is approved counts beyond it."""
    await limited(bench, LIMIT.replace("20", "1").replace("deny", "step_up"))
    agent = await bench.agent()
    assert isinstance(await write(bench, agent), Granted)
    held = await write(bench, agent)
    assert isinstance(held, Escalated)
    assert held.stepup.rule == "limit:calendar"
    await approve(bench, held.stepup)
    assert isinstance(await poll(bench.broker, agent, held.stepup.id), Granted)
    assert await used(bench) == 2


async def test_a_broken_file_of_limits_keeps_the_one_before(bench: Bench) -> None:
    """As one does that lacks a limit which the policy names, or is gone."""
    await limited(bench)
    agent = await bench.agent()
    await write(bench, agent)
    for broken in ("[[limits]]", None):
        if broken is None:
            bench.home.limits_file.unlink()
        else:
            bench.home.limits_file.write_text(broken)
        await reload_policy(bench.broker)
        assert "limits.toml" in (bench.broker.deciding.state.problem or "")
        assert await used(bench) == 1
        async with bench.restarted() as again:
            assert "limits.toml" in (again.broker.deciding.state.problem or "")
            assert await used(again) == 1
            break


async def test_an_edit_counts_what_is_under_way_and_makes_nobody_wait(
    bench: Bench,
) -> None:
    """The next decision is by the new limits; each use counts once in both."""
    await limited(bench, LIMIT.replace("20", "30"))
    agent = await bench.agent()
    for _ in range(10):
        await write(bench, agent)
    limits = bench.broker.deciding.limits
    asked = [asyncio.create_task(write(bench, agent)) for _ in range(10)]
    while not any(one.submitted for one in limits._held.values()):  # noqa: ASYNC110
        await asyncio.sleep(0)
    texts = bench.broker.deciding.policy.texts
    fewer = LIMIT.replace("20", "18")
    switch_policy(bench.broker, Policy.of(texts._replace(limits=fewer), ("", "", "")))
    answers = await asyncio.gather(*asked, *(write(bench, agent) for _ in range(10)))
    granted = sum(isinstance(one, Granted) for one in answers)
    assert await used(bench) == 10 + granted
    assert granted in {8, 9, 10}  # those that were decided before the edit
    assert (await write(bench, agent)).reason == "limit_reached"
    assert limits._held == {}
    assert not limits._reserved
    async with bench.restarted() as again:
        assert await used(again) == 10 + granted


async def test_limits_that_are_changed_count_what_the_chain_has(bench: Bench) -> None:
    """A wider window finds what had left the old one; other units are kept apart."""
    await limited(bench)
    agent = await bench.agent()
    await write(bench, agent)
    bench.clock.advance(90)
    await write(bench, agent, resource="calendar:a")
    assert await used(bench) == 1
    await limited(bench, LIMIT.replace("60s", "10m"))
    assert await used(bench) == 2
    await limited(bench, LIMIT.replace("60s", "10m") + 'per = "resource"')
    keys = sorted(one.key for one in await bench.broker.deciding.limits.all())
    assert keys == ["", "calendar:a"]
    amounts = LIMIT.replace("count = 20", 'amount = 5\ncurrency = "USD"')
    await limited(bench, amounts)
    assert await used(bench) == 0


async def test_an_elevated_token_at_introspection_counts_no_second_time(
    bench: Bench,
) -> None:
    """It was counted when it was delivered."""
    await limited(bench, PAYMENTS.format("count = 1"))
    _, server, token = await redeemable(bench)
    assert await used(bench) == 1
    assert (await introspect(bench.broker, server, token)).token is not None
    assert await used(bench) == 1
