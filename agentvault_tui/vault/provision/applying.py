"""Carries out a plan, object by object, and believes no write it has not read back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Container
from dataclasses import replace
from typing import Final

from agentvault_tui.errors import (
    TenantCredentialError,
    TenantError,
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
)
from agentvault_tui.vault.management import Management
from agentvault_tui.vault.management.rows import by_plan
from agentvault_tui.vault.provision.desired import DesiredKind, DesiredObject
from agentvault_tui.vault.provision.needs import Needs, SecretStore, TenantSurvey
from agentvault_tui.vault.provision.plan import (
    PlanItem,
    PlanStep,
    ProvisioningPlan,
    make_plan,
)
from agentvault_tui.vault.provision.reading import TenantReader
from agentvault_tui.vault.provision.rules import FieldChange, body, compare, unmet
from agentvault_tui.vault.provision.survey import survey
from agentvault_tui.vault.provision.writing import TenantWriter

_TRIES: Final = 3
_PAUSE: Final = 1.0
"""Seconds: what was written may be read a moment later only."""
_MAX_BOUND: Final = 20
"""Actions that Auth0 lets be bound to the login."""
_REREAD: Final = frozenset({DesiredKind.FLOW, DesiredKind.CONNECTION})
"""Kinds that hold lists which others change too: read again before each change."""


class Provisioner:
    """Reads a tenant, plans what is to change there, and changes it."""

    def __init__(self, management: Management, keeper: SecretStore) -> None:
        """Use *management*; secrets the tenant gives go to *keeper* alone."""
        self._tenant: Final = management.tenant
        self._reader: Final = TenantReader(management, keeper)
        self._writer: Final = TenantWriter(management, keeper)

    async def look(
        self, needs: Needs, kinds: Container[DesiredKind] = frozenset(DesiredKind)
    ) -> tuple[tuple[DesiredObject, ...], TenantSurvey]:
        """Return what should stand on the tenant, and what does, of these *kinds*.

        Raises:
            TenantError: it cannot be read; a scope that is missing is named.
        """
        return await survey(self._reader, needs, kinds)

    async def plan(self, needs: Needs) -> tuple[ProvisioningPlan, TenantSurvey]:
        """Return what is to do, and the reading it rests on; writes nothing.

        Raises:
            TenantError: as `look`.
        """
        wanted, found = await self.look(needs)
        return make_plan(wanted, found), found

    async def apply(
        self, plan: ProvisioningPlan, found: TenantSurvey
    ) -> AsyncGenerator[PlanItem]:
        """Carry out *plan* in its order; yield each item once it has been read back.

        What the tenant's plan does not have is yielded as refused, and what needs it
        too; the rest is done. It can be stopped anywhere and planned anew.

        Raises:
            TenantError: the tenant would not, or stored something else than it was
                sent; what was done stays.
        """
        ids = dict(found.ids)
        refused: set[str] = set()
        for item in plan.writes:
            wanted = item.wanted
            assert wanted is not None  # noqa: S101 - one that is written has one
            needed = next((one for one in wanted.after if one in refused), "")
            try:
                done = _refused(item, f"needs {needed}")
                if not needed:
                    done = await self._do(item, wanted, plan, found, ids)
            except TenantRefusedError as error:
                ours = isinstance(error, TenantScopeError | TenantCredentialError)
                if ours or not (by_plan(error) or wanted.optional):
                    raise
                note = f"{error.what}: {error.remedy}".removesuffix(": ")
                done = _refused(item, note)
            if done.step is PlanStep.REFUSED:
                refused.add(item.address)
            yield done

    async def _do(
        self,
        item: PlanItem,
        wanted: DesiredObject,
        plan: ProvisioningPlan,
        found: TenantSurvey,
        ids: dict[str, str],
    ) -> PlanItem:
        """Make or change one object, and read it back; its id goes into *ids*."""
        address = wanted.address
        standing = found.objects.get(address)
        if wanted.kind in _REREAD and standing is not None:
            standing = await self._reader.fetch(
                wanted.kind, wanted.key, ids.get(address, "")
            )
        rules = wanted.fields if standing else {**wanted.fixed, **wanted.fields}
        changes = compare(rules, standing or {}, ids)
        if missing := unmet(changes, ids):
            return _refused(item, f"needs {missing}")
        if wanted.kind is DesiredKind.FLOW:
            bound = changes[0].after if changes else []
            if len(bound) > _MAX_BOUND:
                raise TenantError(
                    f"the flow {wanted.key} would have {len(bound)} Actions, and "
                    f"{_MAX_BOUND} fit",
                    "unbind one in the Dashboard, under Actions, Triggers",
                )
            # The names of our own Actions beside those that others' are shown by.
            ours = {
                ids[one.address]: one.title
                for one in plan.items
                if one.address.startswith(f"{DesiredKind.ACTION}.")
                and one.address in ids
            }
            flow = standing or {}
            standing = {**flow, "shown": {**ours, **flow.get("shown", {})}}
        if changes:
            # The tenant adds what it is sent to its settings: the rest stays out.
            beside = {} if wanted.kind is DesiredKind.SETTINGS else standing or {}
            sent = body(changes, beside, ids)
            ids[address] = await self._writer.write(
                wanted, sent, standing, ids.get(address, "")
            )
        await self._confirm(wanted, ids)
        return replace(item, changes=changes)

    async def _confirm(self, wanted: DesiredObject, ids: dict[str, str]) -> None:
        """Read back what was written.

        Raises:
            TenantError: it is another thing than was asked for.
        """
        identity = ids.get(wanted.address, "")
        wrong: tuple[FieldChange, ...] = ()
        for attempt in range(_TRIES):
            if attempt:
                await self._tenant.sleep(_PAUSE)
            try:
                standing = await self._reader.fetch(wanted.kind, wanted.key, identity)
            except TenantNotFoundError:
                continue
            wrong = compare({**wanted.fixed, **wanted.fields}, standing, ids)
            if not wrong:
                return
        paths = ", ".join(change.path for change in wrong) or "nothing at all"
        raise TenantError(
            f"{wanted.address} was written, and what reads back differs: {paths}",
            "see it in the Dashboard; apply goes on from here when it is right",
        )


def _refused(item: PlanItem, note: str) -> PlanItem:
    return replace(item, step=PlanStep.REFUSED, changes=(), note=note)
