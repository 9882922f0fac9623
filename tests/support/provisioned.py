"""An embedded tenant that `auth0 apply` set up, for others to look at and change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from auth0_double.running import TenantThread
from support.provisioning import SIGN_IN
from support.tls_front import tls_front, trusted

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.vault import Budget, ClientSecret, Management, Secret, Tenant
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.vault.provision import (
    AgentNeed,
    Needs,
    Provisioner,
    ProvisioningPlan,
)

NEEDS = Needs(
    agents=(AgentNeed("agt_1", "calendar-agent"),),
    sign_in=(SIGN_IN,),
    connections=("workspace",),
)


class Provisioned:
    """One, and what is needed to administer it."""

    def __init__(self, tenant: TenantThread, home: Home) -> None:
        self.tenant, self.home = tenant, home

    @property
    def management(self) -> Management:
        """Its Management API, for whoever closes its tenant."""
        run = self.tenant.run
        reached = Tenant(self.tenant.issuer, self.tenant.clock)
        credential = ClientSecret(run.management_id, Secret(run.management_secret))
        budget = Budget(self.tenant.clock, rate=1e6, burst=1000)
        return Management(reached, credential, budget=budget)

    def client_id(self, key: str) -> str:
        """Name one of the applications that were made."""
        return ClientSecretsFile(self.home, self.tenant.issuer).client_id(key)

    async def plan(self, *, applied: bool = False) -> ProvisioningPlan:
        """Return what would be done; do it, if it is to be *applied*."""
        api = self.management
        try:
            made = Provisioner(api, ClientSecretsFile(self.home, self.tenant.issuer))
            plan, found = await made.plan(NEEDS)
            if applied:
                async for _ in made.apply(plan, found):
                    pass
            return plan
        finally:
            await api.tenant.aclose()

    @asynccontextmanager
    async def reached(self) -> AsyncIterator[dict[str, str]]:
        """Yield what Auth0's tools need to reach it, by their own variables' names."""
        _, _, env = trusted(self.home)
        run = self.tenant.run
        async with tls_front(self.home, self.tenant.issuer) as domain:
            yield {
                **env,
                "AUTH0_DOMAIN": domain,
                "AUTH0_CLIENT_ID": run.management_id,
                "AUTH0_CLIENT_SECRET": run.management_secret,
                "AUTH0_AUDIENCE": f"{self.tenant.issuer}api/v2/",
            }


@contextmanager
def provisioned(folder: Path) -> Iterator[Provisioned]:
    """Run one that goes by the machine's clock, as programs of others do."""
    home = Home.locate(folder / "home")
    home.prepare()
    tenant = TenantThread(home, clock=SystemClock())
    try:
        made = Provisioned(tenant, home)
        assert len(asyncio.run(made.plan(applied=True)).items) > 10
        yield made
    finally:
        tenant.close()
