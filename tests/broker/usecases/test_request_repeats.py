"""An agent that asks for the same thing in a loop is counted, and floods nobody."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.stepups import approve, ask, hold

from agentvault_tui.broker.answers import Escalated
from agentvault_tui.broker.serve import show_repeated
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.stepup_end import deny
from agentvault_tui.model import Action

TWO = replace(PAYMENT, scopes=("send:payment", "write:calendar"))


async def stored_count(bench: Bench, stepup_id: str) -> int:
    (found,) = [s for s in (await bench.ledger.load()).stepups if s.id == stepup_id]
    return found.count


async def test_repeats_are_written_and_shown_once_with_the_right_count(
    bench: Bench,
) -> None:
    """A hundred repeats are a hundred events and one step-up, on wire and disk."""
    agent, stepup = await hold(bench)
    async with aclosing(bench.feed.stream(bench.ledger.head.seq)) as frames:
        assert "event: status" in await anext(frames)
        answers = await asyncio.gather(*(ask(bench, agent) for _ in range(100)))
        assert {answer.stepup.id for answer in answers} == {stepup.id}
        show_repeated(bench.broker)
        show_repeated(bench.broker)
        text = ""
        while '"count":101' not in text.partition("event: stepup")[2]:
            text += await asyncio.wait_for(anext(frames), 10)
    assert text.count("event: stepup") == 1
    assert text.count("event: audit") == 100
    assert await stored_count(bench, stepup.id) == 101
    async with bench.restarted() as again:
        assert again.broker.stepups.get(stepup.id).count == 101


@pytest.mark.parametrize(
    ("action", "indicator"),
    [
        (replace(TWO, action="write:calendar", parameters={"amount": ""}), None),
        (replace(TWO, parameters={"amount": 4200.5, "currency": "USD"}), None),
        (replace(TWO, resource="stripe:acct_43"), None),
        (TWO, "https://api.acme.test/"),
    ],
    ids=["action", "parameters", "resource", "indicator"],
)
async def test_what_differs_in_one_thing_is_another_request(
    bench: Bench, action: Action, indicator: str | None
) -> None:
    """A yes is for exactly what was shown: nothing else is counted as the same."""
    agent = await bench.agent("payer", *TWO.scopes)
    first = await ask(bench, agent, TWO)
    second = await request_token(
        bench.broker, agent, action, resource=indicator, details=None
    )
    assert isinstance(first, Escalated)
    assert isinstance(second, Escalated)
    assert first.stepup.id != second.stepup.id


@pytest.mark.parametrize("decide", ["approve", "deny"])
async def test_a_decision_carries_the_count(bench: Bench, decide: str) -> None:
    """Decided before the count was written, the record holds it all the same."""
    agent, stepup = await hold(bench)
    for _ in range(4):
        assert isinstance(await ask(bench, agent), Escalated)
    if decide == "approve":
        await approve(bench, stepup)
    else:
        await deny(bench.broker, stepup.id, "no", OPERATOR)
    show_repeated(bench.broker)
    assert bench.broker.stepups.get(stepup.id).count == 5
    assert await stored_count(bench, stepup.id) == 5
