"""A provider that hangs keeps no other one from revoking."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.agents_http import Live
from support.connecting import WORKSPACE, Office, caller
from support.rogue_tenant import Answer, RogueTenant, rogue_tenant

from agentvault_tui.broker.accounts import HeldProviderToken
from agentvault_tui.model import Account, Agent
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.vault import ProviderToken, Secret

SCOPES = ("read:calendar", "write:calendar")


def at(provider: RogueTenant) -> ConnectionSettings:
    return ConnectionSettings(SCOPES, f"{provider.issuer}revoke", "none")


async def holding(office: Office, live: Live, connection: str) -> Agent:
    """Return an agent with a token of its own person's account at *connection*."""
    agent, broker = (await caller(live)).agent, office.broker
    account = Account(
        agent_id=agent.id,
        connection=connection,
        id=f"cac_{agent.id}",
        issuer=broker.reaching.vault.issuer,
        user=f"auth0|{agent.id}",
        user_name="Ursula",
        scopes=(),
        since=office.bench.clock.now(),
        provider_user=agent.id,
    )
    await broker.record(changes=[account])
    broker.registry.accounts.put(account)
    token = ProviderToken(Secret(f"token-of-{agent.id}"), (), 3600)
    held = HeldProviderToken.of(office.bench.clock, account, token, 300.0)
    broker.registry.leases.note(account, held.thumbprint, held.until)
    broker.registry.provider_tokens.put(held)
    return agent


@pytest.mark.slow
async def test_many_tokens_of_a_provider_that_hangs_delay_no_other_provider(
    office: Office, live: Live
) -> None:
    """Whoever runs a provider, or brings it down, must not hold up the others' cuts."""
    async with rogue_tenant() as slow, rogue_tenant() as well:
        slow.script("/revoke", Answer(hang=True))
        well.script("/revoke", Answer())
        office.broker.settings = replace(
            office.broker.settings, connections={"slow": at(slow), WORKSPACE: at(well)}
        )
        stuck = [await holding(office, live, "slow") for _ in range(20)]
        for agent in stuck:
            await office.revoke(agent)
        running = asyncio.create_task(office.broker.reaching.outbox.run())
        await office.bench.until(lambda: slow.asked("/revoke") >= 8)
        other = await holding(office, live, WORKSPACE)
        await office.revoke(other)
        await office.bench.until(lambda: office.step(other).status == "confirmed")
        assert {office.step(one).status for one in stuck} == {"pending"}
        assert slow.asked("/revoke") == 8
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
