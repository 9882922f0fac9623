"""Agents on Auth0's SDKs whose people and tokens are oidc-provider's, until cut off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.oidc_peer import FACTORS, URSULA, Provider, with_provider
from support.oidc_vault import AtProvider, vault_at
from support.sdk_agents import SDKS, sdk_agent, until_refused
from support.tls_front import trusted

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.home import Home

LEASE = 1

pytestmark = with_provider


@pytest.fixture
async def bench(provider: Provider, tmp_path: Path) -> AsyncIterator[Bench]:
    """A broker whose tenant it is."""
    clock = ManualClock(datetime.now(UTC))
    bench = await Bench.open(Home.locate(tmp_path / "home"), clock, provider.issuer)
    yield bench
    await bench.close()


@asynccontextmanager
async def served(
    sdk: str, provider: Provider, bench: Bench, **tokens: Any
) -> AsyncIterator[AtProvider]:
    """Serve as the SDK insists."""
    tls, trust = None, None
    if sdk == "node":
        tls, trust, _ = trusted(bench.home)
    async with vault_at(provider, bench, tls, trust, **tokens) as vault:
        yield vault


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_token_a_persons_yes_and_a_cut_that_is_felt(
    provider: Provider, bench: Bench, sdk: str
) -> None:
    """The provider's token by policy, another by Ursula's yes; cut, within the lease.

    The SDK keeps what it got for as long as it was told to: a lease, however long the
    token itself lives, so that it asks again and is refused.
    """
    async with served(sdk, provider, bench, lease=LEASE) as vault:
        caller = await vault.connected("agent")
        async with sdk_agent(sdk, vault, caller) as agent:
            given = (await agent.told("calendar"))["result"]
            (exchanged,) = await bench.events("token.exchanged")
            assert exchanged.detail["expires_in"] == LEASE
            held = await agent.told("bank")
            assert held["code"] == "TOKEN_VAULT_ERROR"
            (stepup,) = vault.broker.stepups.open(caller.agent.id)
            await vault.approve(stepup.id)
            decided_by = vault.broker.stepups.get(stepup.id).decided_by
            assert decided_by is not None
            assert (decided_by.sub, decided_by.amr) == (URSULA, FACTORS)
            assert (await agent.told("bank"))["result"] != given
            await revoke_agent(vault.broker, caller.agent.id, "", OPERATOR)
            refused = await until_refused(agent, "calendar")
            assert refused["code"] == "TOKEN_VAULT_ERROR"
        assert len(await bench.events("token.exchanged")) == 2
