"""Which agents have an application on the tenant: those that are served here, now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.dict_tenant import DictTenant
from support.ledger_kit import START, agent, manual_clock, note
from support.provisioning import Call

from agentvault_tui.cli.auth0 import served_agents
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger
from agentvault_tui.ledger.records import Panic
from agentvault_tui.model import AgentStatus


@pytest.fixture
def vault(home: Path) -> Home:
    """The home as what serves agents has it."""
    return Home(home, home)


@pytest.fixture
async def ledger(vault: Home) -> AsyncIterator[Ledger]:
    """A ledger that a broker has open."""
    assert served_agents(vault) == ([], False)
    vault.prepare()
    opened = await Ledger.open(vault, clock=manual_clock())
    yield opened
    await opened.close()


async def test_the_agents_are_those_the_ledger_serves(
    vault: Home, ledger: Ledger
) -> None:
    """Read without a broker: neither who is revoked, nor resource servers."""
    await ledger.commit(
        note(),
        changes=[
            agent("agt_1"),
            agent("agt_2", status=AgentStatus.REVOKED),
            agent("agt_3", resource_server=True),
        ],
    )
    served, stopped = served_agents(vault)
    assert [one.id for one in served] == ["agt_1"]
    assert not stopped
    await ledger.commit(note(), changes=[Panic(True, START, "uid:1", "why")])
    assert served_agents(vault)[1]


@pytest.mark.slow
async def test_a_panic_leaves_agents_applications_alone(
    ledger: Ledger, tenant: DictTenant, auth0: Call
) -> None:
    """What was stopped is not handed out anew by a command about something else."""
    await ledger.commit(note(), changes=[agent("agt_1")])
    served = await asyncio.to_thread(auth0, "plan", "--json")
    assert "client.agents/agt_1" in served.out
    await ledger.commit(note(), changes=[Panic(True, START, "uid:1", "why")])
    stopped = await asyncio.to_thread(auth0, "apply", "--yes", "--json")
    assert stopped.code == 0
    assert "everything is stopped" in stopped.err
    assert "agents/" not in stopped.out
    names = [one["name"] for one in tenant.tables["clients"].values()]
    assert len(names) == 2
