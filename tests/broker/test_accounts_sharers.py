"""Thousands of agents that use one account: telling of each does not name all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, Bench

from agentvault_tui.broker import accounts, feed
from agentvault_tui.broker.accounts import SHARERS_SHOWN
from agentvault_tui.broker.shapes import agent_info
from agentvault_tui.broker.usecases.disconnect import disconnect
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.model import Account, Agent, AgentId, AgentStatus


async def sharers(bench: Bench, count: int) -> list[Agent]:
    """Register agents that all use the same account."""
    agents = []
    for number in range(count):
        agent = await bench.agent(f"a{number}", "read:email", "write:calendar")
        account = Account(
            agent_id=agent.id,
            connection="google",
            id="cac_1",
            issuer=bench.broker.reaching.vault.issuer,
            user="auth0|u",
            user_name="Ursula",
            scopes=("calendar",),
            since=bench.clock.now(),
        )
        bench.broker.registry.accounts.put(account)
        agents.append(agent)
    return agents


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often two accounts are compared."""
    count, original = [0], accounts._is_same

    def counted(one: Account, other: Account) -> bool:
        count[0] += 1
        return original(one, other)

    monkeypatch.setattr(accounts, "_is_same", counted)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("revoked", [False, True])
async def test_telling_of_all_sharers_takes_time_in_proportion_to_them(
    bench: Bench, compared: list[int], revoked: bool
) -> None:
    """Twice as many are twice the work, whether they are served or revoked."""
    registry = bench.broker.registry
    agents = await sharers(bench, 3 * SHARERS_SHOWN)
    if revoked:
        for agent in agents:
            registry.put_agent(replace(agent, status=AgentStatus.REVOKED))
    compared[0] = 0
    for agent in agents:
        told = agent_info(agent, registry)
        named = 0 if revoked else SHARERS_SHOWN
        assert len(told.shared_with) == named
        assert len(told.connections[0].shared_with) == named
    assert compared[0] <= len(agents) * 4 * SHARERS_SHOWN


async def test_an_agent_is_told_once_for_a_change_however_much_it_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking scopes and accounts away sends one frame for each agent it touches."""
    agents = await sharers(bench, 5)
    told: list[AgentId] = []

    def counted(agent: Agent, *args: Any, **more: Any) -> Any:
        told.append(agent.id)
        return agent_info(agent, *args, **more)

    monkeypatch.setattr(feed, "agent_info", counted)
    stream = bench.feed.stream(None)
    await anext(stream)
    gone = frozenset({"read:email", "write:calendar"})
    await change_scopes(bench.broker, agents[0].id, frozenset(), gone, OPERATOR)
    assert told == [agents[0].id]
    told.clear()
    await disconnect(bench.broker, agents[0].id, "google", OPERATOR, shared=True)
    # Once when it is closed here, and once when it is forgotten.
    assert sorted(told) == sorted(2 * [agent.id for agent in agents])
    await stream.aclose()
