"""A vault beside a tenant it provisions, with no waiting in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.command_line import Answer
from support.dict_tenant import ADMIN, DictTenant
from support.manual_clock import ManualClock

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.vault import Budget, ClientSecret, Management, Secret, Tenant
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.vault.provision import (
    AgentNeed,
    Needs,
    PlanItem,
    PlanStep,
    Provisioner,
    ProvisioningPlan,
    checks,
)
from agentvault_tui.vault.tenant import RetryLimits

SIGN_IN = "Username-Password-Authentication"
CREDENTIAL = {"client_id": ADMIN[0], "client_secret": ADMIN[1]}
Call = Callable[..., Answer]
"""Runs one command line of ``agentvault auth0``."""


@dataclass
class Vault:
    """What a test provisions with."""

    tenant: DictTenant
    home: Home
    waited: float = 0.0
    """Seconds, by the clock that is moved."""

    def needs(self, **changes: Any) -> Needs:
        """What it needs: one agent, people who sign in by password."""
        values: dict[str, Any] = {
            "agents": (AgentNeed("agt_1", "calendar-agent"),),
            "sign_in": (SIGN_IN,),
        }
        return Needs(**{**values, **changes})

    def kept(self) -> ClientSecretsFile:
        """The file with the secrets."""
        return ClientSecretsFile(self.home, self.tenant.issuer)

    def management(self) -> Management:
        """A client of the tenant for which waiting is moving a clock."""
        clock = ManualClock(SystemClock().now())

        async def at_once(seconds: float) -> None:
            self.waited += seconds
            clock.advance(seconds)
            await asyncio.sleep(0)

        return Management(
            Tenant(self.tenant.issuer, clock, sleep=at_once),
            ClientSecret(ADMIN[0], Secret(ADMIN[1])),
            budget=Budget(clock, rate=1e6, burst=1000, sleep=at_once),
            patience=RetryLimits(jitter=lambda: 0.0),
        )

    async def plan(self, **changes: Any) -> ProvisioningPlan:
        """What would be done."""
        management = self.management()
        try:
            provisioner = Provisioner(management, self.kept())
            return (await provisioner.plan(self.needs(**changes)))[0]
        finally:
            await management.tenant.aclose()

    async def apply(self, **changes: Any) -> list[str]:
        """Do it; return the addresses in the order they were done."""
        return [item.address for item in await self.applied(**changes)]

    async def applied(self, **changes: Any) -> list[PlanItem]:
        """Do it; return what became of each."""
        management = self.management()
        try:
            provisioner = Provisioner(management, self.kept())
            plan, found = await provisioner.plan(self.needs(**changes))
            return [item async for item in provisioner.apply(plan, found)]
        finally:
            await management.tenant.aclose()

    async def findings(self, **changes: Any) -> list[checks.Check]:
        """What the doctor says of the objects."""
        management = self.management()
        try:
            wanted = self.needs(**changes)
            provisioner = Provisioner(management, self.kept())
            return list(checks.examine(*await provisioner.plan(wanted), wanted))
        finally:
            await management.tenant.aclose()


def steps(plan: ProvisioningPlan, *kinds: PlanStep) -> list[str]:
    """The addresses of a plan that take one of these steps."""
    return [item.address for item in plan.items if item.step in kinds]


def configure(home: Path, **tenant: Any) -> None:
    """Write the settings of a vault whose tenant is somebody else's."""
    lines = (f"{name} = {json.dumps(value)}" for name, value in tenant.items())
    (home / "config.toml").write_text("\n".join(["[tenant]", *lines]))
