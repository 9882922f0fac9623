"""What takes rights from an agent is judged when it is carried out, too."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.loosenings import opened, signed_in, waits

from agentvault_tui.broker.operators_api import agents
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.rate import change_rate
from agentvault_tui.broker.usecases.scopes import change_scopes

SCOPES = frozenset({"read:calendar", "write:calendar"})


async def test_taking_a_delegation_gives_nothing_that_others_took_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator elsewhere leaves one scope, which is gone by then: it stays gone."""
    first = await bench.agent("first", *SCOPES)
    second = await bench.agent("second", "read:email")
    broker = bench.broker
    await change_delegates(broker, first.id, second.id, SCOPES, OPERATOR)

    async def late(*change: Any, **more: Any) -> Any:
        await change_delegates(broker, first.id, second.id, frozenset(), OPERATOR)
        return await change_delegates(*change, **more)

    monkeypatch.setattr(agents, "change_delegates", late)
    async with opened(bench) as stand:
        operator = await signed_in(stand, "operator")
        asked = {"agent_id": first.id, "to": second.id, "scopes": ["read:calendar"]}
        refused = await operator.post("/api/agents/delegates", **asked)
        assert refused.status_code == 409, refused.text
        assert "meanwhile" in refused.json()["detail"]
        assert broker.registry.agent(first.id).may_pass_on(second.id) == frozenset()


async def test_a_delegation_is_shown_with_all_that_it_gives_by_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another person removes a scope while the request's own removal is recorded."""
    first = await bench.agent("first", *SCOPES, "read:email")
    second = await bench.agent("second", "read:email")
    broker = bench.broker
    await change_delegates(broker, first.id, second.id, SCOPES, OPERATOR)

    async def late(*change: Any, **more: Any) -> Any:
        less = await change_delegates(*change, **more)
        await change_delegates(broker, first.id, second.id, frozenset(), OPERATOR)
        return less

    monkeypatch.setattr(agents, "change_delegates", late)
    async with opened(bench) as stand:
        approver = await signed_in(stand, "approver")
        wanted = ["read:calendar", "read:email"]
        asked = {"agent_id": first.id, "to": second.id, "scopes": wanted}
        change = await waits(await approver.post("/api/agents/delegates", **asked))
        assert "act with read:calendar read:email of" in change["summary"]


async def test_an_agent_gets_nothing_that_its_template_was_given_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator elsewhere registers agents without scopes alone."""
    template = await bench.agent("plan", template=True)
    nothing, scopes = frozenset[str](), frozenset(template.scopes)
    await change_scopes(bench.broker, template.id, nothing, scopes, OPERATOR)
    bare = bench.broker.registry.agent(template.id)
    check = agents.check_unclaimed

    def late(*name: Any) -> None:
        check(*name)
        bench.broker.registry.put_agent(replace(bare, scopes=("read:calendar",)))

    monkeypatch.setattr(agents, "check_unclaimed", late)
    async with opened(bench) as stand:
        operator = await signed_in(stand, "operator")
        asked = {"name": "made", "from": template.id}
        refused = await operator.post("/api/agents", **asked)
        assert refused.status_code == 409, refused.text
        assert "meanwhile" in refused.json()["detail"]
    assert [one.name for one in bench.broker.registry.agents()] == ["plan"]


async def test_a_rate_is_not_raised_above_what_it_was_lowered_to_meanwhile(
    bench: Bench,
) -> None:
    """An operator elsewhere may lower it alone; another one is recording that now."""
    agent = await bench.agent("busy")
    await change_rate(bench.broker, agent.id, 100, OPERATOR)
    async with opened(bench) as stand:
        operator = await signed_in(stand, "operator")
        lock = bench.broker.registry.changing[agent.id]
        async with lock:
            asked = {"agent_id": agent.id, "decisions_a_second": 50}
            waits = asyncio.create_task(operator.post("/api/agents/rate", **asked))
            await bench.until(lambda: bool(lock._waiters))
            lower = replace(bench.broker.registry.agent(agent.id), decisions_a_second=9)
            bench.broker.registry.put_agent(lower)
        refused = await waits
        assert refused.status_code == 409, refused.text
    assert bench.broker.registry.agent(agent.id).decisions_a_second == 9
