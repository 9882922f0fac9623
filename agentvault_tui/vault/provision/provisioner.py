"""Plan and apply, on one tenant with one credential."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Container
from typing import Final

from agentvault_tui.vault.management import Management
from agentvault_tui.vault.provision.applying import carry_out
from agentvault_tui.vault.provision.desired import DesiredKind, DesiredObject
from agentvault_tui.vault.provision.found import Found
from agentvault_tui.vault.provision.needs import Keeper, Needs
from agentvault_tui.vault.provision.plan import PlanItem, ProvisioningPlan, make_plan
from agentvault_tui.vault.provision.reading import TenantReader
from agentvault_tui.vault.provision.survey import survey
from agentvault_tui.vault.provision.writing import TenantWriter


class Provisioner:
    """Reads a tenant, says what is to do there, and does it."""

    def __init__(self, management: Management, keeper: Keeper) -> None:
        """Use *management*; secrets the tenant gives go to *keeper* alone."""
        self._reader: Final = TenantReader(management, keeper)
        self._writer: Final = TenantWriter(management, keeper)

    async def look(
        self, needs: Needs, kinds: Container[DesiredKind] = frozenset(DesiredKind)
    ) -> tuple[tuple[DesiredObject, ...], Found]:
        """Return what should stand on the tenant, and what does, of these *kinds*.

        Raises:
            TenantError: it cannot be read; a scope that is missing is named.
        """
        return await survey(self._reader, needs, kinds)

    async def plan(self, needs: Needs) -> tuple[ProvisioningPlan, Found]:
        """Return what is to do, and the reading it rests on; writes nothing.

        Raises:
            TenantError: as `look`.
        """
        wanted, found = await self.look(needs)
        plan = make_plan(wanted, found, remove_unused=needs.remove_unused)
        return plan, found

    def apply(self, plan: ProvisioningPlan, found: Found) -> AsyncGenerator[PlanItem]:
        """Carry out *plan*; yields each item once it has been read back.

        Raises:
            TenantError: the tenant would not; what was done stays, and a new plan
                goes on from there.
        """
        return carry_out(plan, found, self._reader, self._writer)
