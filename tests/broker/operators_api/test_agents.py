"""What takes rights from an agent is judged when it is carried out, too."""

from __future__ import annotations

from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.loosenings import opened, signed_in

from agentvault_tui.broker.operators_api import agents
from agentvault_tui.broker.usecases.delegate import change_delegates

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
