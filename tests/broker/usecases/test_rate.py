"""An operator sets how many permitted decisions an agent may have a second."""

from __future__ import annotations

from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.gateway_stand import operators_http

from agentvault_tui.broker.usecases.issue_for import issue_for
from agentvault_tui.broker.usecases.rate import change_rate, raises_rate
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.errors import TooFastError
from agentvault_tui.model import Action, Agent

CALENDAR = Action(("write:calendar",), "write:calendar", "calendar:primary")


async def ask(bench: Bench, agent: Agent) -> Any:
    agent = bench.broker.registry.agent(agent.id)
    return await request_token(
        bench.broker, agent, CALENDAR, resource=None, details=None
    )


async def test_a_rate_is_recorded_and_outlives_a_restart(bench: Bench) -> None:
    """The event says who and how many, and the state verifies."""
    agent = await bench.agent()
    await change_rate(bench.broker, agent.id, 7, OPERATOR)
    (event,) = await bench.events("agent.changed")
    assert event.actor == OPERATOR
    assert event.detail["changed"] == ["decisions_a_second"]
    assert event.detail["decisions_a_second"] == 7
    async with bench.restarted() as again:
        assert again.broker.health.state_problem is None
        assert again.broker.registry.agent(agent.id).decisions_a_second == 7


@pytest.mark.parametrize(
    ("before", "after", "more"),
    [
        (None, 200, False),
        (None, 201, True),
        (None, 0, True),
        (None, 5, False),
        (5, 6, True),
        (6, 5, False),
        (0, 500, False),
        (0, None, False),
        (5, None, True),
        (500, None, False),
    ],
)
async def test_more_a_second_is_a_loosening(
    bench: Bench, before: int | None, after: int | None, more: bool
) -> None:
    """Also where that is the number of the settings, or no bound."""
    agent = await bench.agent()
    agent = await change_rate(bench.broker, agent.id, before, OPERATOR)
    assert raises_rate(bench.broker, agent, after) is more


async def test_what_an_operator_asks_for_is_not_counted(bench: Bench) -> None:
    """An agent beyond its rate does not stop the person who starts a command for it."""
    agent = await bench.agent()
    await change_rate(bench.broker, agent.id, 1, OPERATOR)
    for _ in range(10):
        await ask(bench, agent)
    with pytest.raises(TooFastError):
        await ask(bench, agent)
    agent = bench.broker.registry.agent(agent.id)
    await issue_for(bench.broker, agent, CALENDAR.scopes, None, OPERATOR)


async def test_operators_set_a_rate_over_http(bench: Bench) -> None:
    """The answer is the agent; what is no number is refused."""
    agent = await bench.agent()
    async with operators_http(bench) as operator:
        wanted = {"agent_id": agent.id, "decisions_a_second": 9}
        answer = await operator.post("/api/agents/rate", json=wanted)
        assert answer.status_code == 200
        assert answer.json()["decisions_a_second"] == 9
        for odd in (-1, 1.5, "9", 10_000_000, True):
            bad = {"agent_id": agent.id, "decisions_a_second": odd}
            refused = await operator.post("/api/agents/rate", json=bad)
            assert refused.status_code == 400
        usual = {"agent_id": agent.id, "decisions_a_second": None}
        answer = await operator.post("/api/agents/rate", json=usual)
        assert answer.json().get("decisions_a_second") is None
