"""The embedded tenant, provisioned like Auth0, and then used as it was made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from auth0_double.running import TenantThread
from support.provisioned import NEEDS

from agentvault_tui.home import Home
from agentvault_tui.model.claims import MFA_AT
from agentvault_tui.model.finding import Level
from agentvault_tui.vault import (
    Budget,
    ClientSecret,
    Management,
    Secret,
    Tenant,
    TenantClient,
)
from agentvault_tui.vault.device import FlowTokens
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.vault.provision import PlanStep, Provisioner, checks


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A vault's home, with the embedded tenant in it."""
    made = Home.locate(tmp_path_factory.mktemp("home"))
    made.prepare()
    return made


@pytest.fixture(scope="module")
def tenant(home: Home) -> Iterator[TenantThread]:
    """The embedded tenant, provisioned once."""
    running = TenantThread(home)
    try:
        assert asyncio.run(applied(running, home)) > 10
        yield running
    finally:
        running.close()


@asynccontextmanager
async def provisioner(tenant: TenantThread, home: Home) -> AsyncIterator[Provisioner]:
    async def later(seconds: float) -> None:
        tenant.clock.advance(seconds)
        await asyncio.sleep(0)

    reached = Tenant(tenant.issuer, tenant.clock, sleep=later)
    credential = ClientSecret(
        tenant.run.management_id, Secret(tenant.run.management_secret)
    )
    budget = Budget(tenant.clock, rate=1e6, burst=1000)
    management = Management(reached, credential, budget=budget)
    try:
        yield Provisioner(management, ClientSecretsFile(home, tenant.issuer))
    finally:
        await reached.aclose()


async def applied(tenant: TenantThread, home: Home) -> int:
    async with provisioner(tenant, home) as made:
        plan, found = await made.plan(NEEDS)
        return len([item async for item in made.apply(plan, found)])


@pytest.mark.slow
async def test_a_second_plan_has_nothing_to_do(
    tenant: TenantThread, home: Home
) -> None:
    """What was made reads back as it was wanted, kind by kind."""
    async with provisioner(tenant, home) as made:
        plan, found = await made.plan(NEEDS)
    assert {item.step for item in plan.items} == {PlanStep.NOTHING}
    levels = {one.level for _, one in checks.examine(plan, found, NEEDS)}
    assert Level.FAULT not in levels


@pytest.mark.slow
async def test_a_person_approves_at_the_client_that_was_made(
    tenant: TenantThread, home: Home
) -> None:
    """The device flow begins at it, and its ID token proves a fresh second factor."""
    alice = tenant.users.add("alice@acme.test", approver=True)
    client_id = ClientSecretsFile(home, tenant.issuer).client_id("console")
    client = TenantClient(tenant.issuer, client_id, tenant.clock)
    try:
        flow = await client.start_device_flow(ttl=120)
        started = {"user_code": flow.user_code}
        await asyncio.to_thread(tenant.approve, started, alice)
        tenant.clock.advance(flow.interval)
        ended = await client.poll_once(flow)
        assert isinstance(ended, FlowTokens)
        who = await client.verify_id_token(ended.id_token, not_before=flow.started_at)
    finally:
        await client.aclose()
    assert who.roles == ("approver",)
    assert who.claims[MFA_AT] >= flow.started_at.timestamp() - 1
