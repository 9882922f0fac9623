"""A tenant to provision, and a vault that wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.dict_tenant import ADMIN, DictTenant, dict_tenant

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.vault import (
    Budget,
    ClientSecret,
    Management,
    Patience,
    Secret,
    Tenant,
)
from agentvault_tui.vault.provision import KeptClients, Provisioner
from agentvault_tui.vault.provision.needs import AgentNeed, Needs

SCOPES = (("read:calendar", "See events."), ("send:payment", "Pay money."))


@dataclass
class Vault:
    """What a test provisions with."""

    tenant: DictTenant
    home: Home

    def needs(self, **changes: object) -> Needs:
        values = {
            "scopes": SCOPES,
            "agents": (AgentNeed("agt_1", "calendar-agent"),),
            "sign_in": ("Username-Password-Authentication",),
        }
        return Needs(**{**values, **changes})  # type: ignore[arg-type]

    def kept(self) -> KeptClients:
        return KeptClients(self.home, self.tenant.issuer)

    def provisioner(self) -> Provisioner:
        clock = SystemClock()

        async def at_once(_: float) -> None:
            await asyncio.sleep(0)

        tenant = Tenant(self.tenant.issuer, clock, sleep=at_once)
        management = Management(
            tenant,
            ClientSecret(ADMIN[0], Secret(ADMIN[1])),
            budget=Budget(clock, rate=1e6, burst=1000),
            patience=Patience(attempts=5, jitter=lambda: 0.0),
        )
        return Provisioner(management, self.kept())


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    with dict_tenant() as tenant:
        tenant.seed()
        yield Vault(tenant, Home(tmp_path, tmp_path))
