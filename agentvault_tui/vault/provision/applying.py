"""Carries out a plan, object by object, and believes no write it has not read back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Container
from dataclasses import dataclass, replace
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
from agentvault_tui.vault.provision.rules import FieldChange, Ids, body, compare, unmet
from agentvault_tui.vault.provision.survey import survey
from agentvault_tui.vault.provision.writing import TenantWriter
from agentvault_tui.vault.reply import Json

_TRIES: Final = 3
_PAUSE: Final = 1.0
"""What was written may be read a moment later only."""
_MAX_BOUND: Final = 20
_REREAD: Final = frozenset({DesiredKind.FLOW, DesiredKind.CONNECTION})
"""Lists in these others change too: what they put there since must not be lost."""


async def carry_out(
    plan: ProvisioningPlan,
    found: TenantSurvey,
    reader: TenantReader,
    writer: TenantWriter,
) -> AsyncGenerator[PlanItem]:
    """Do what *plan* says, in its order, and yield each item once it is true.

    What the tenant's plan does not have is yielded as refused, and what needs it; the
    rest is done. It can be stopped anywhere and planned anew: what is done is found
    done.

    Raises:
        TenantError: the tenant would not, or stored something else than it was sent.
    """
    run = _Run(plan, found, reader, writer, dict(found.ids))
    refused: set[str] = set()
    for item in plan.writes:
        wanted = item.wanted
        assert wanted is not None  # noqa: S101 - one that is written has one
        before = next((one for one in wanted.after if one in refused), "")
        try:
            done = (
                _refused(item, f"needs {before}")
                if before
                else await run.do(item, wanted)
            )
        except TenantRefusedError as error:
            ours = isinstance(error, TenantScopeError | TenantCredentialError)
            if ours or not (by_plan(error) or wanted.optional):
                raise
            done = _refused(item, f"{error.what}: {error.remedy}".removesuffix(": "))
        if done.step is PlanStep.REFUSED:
            refused.add(item.address)
        yield done


def _refused(item: PlanItem, note: str) -> PlanItem:
    return replace(item, step=PlanStep.REFUSED, changes=(), note=note)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run, and the ids of what stands so far."""

    plan: ProvisioningPlan
    found: TenantSurvey
    reader: TenantReader
    writer: TenantWriter
    ids: dict[str, str]

    async def do(self, item: PlanItem, wanted: DesiredObject) -> PlanItem:
        """Make or change one object, and read it back; what it needs must stand.

        Raises:
            TenantError: as `carry_out`.
        """
        ids, address = self.ids, wanted.address
        standing = self.found.objects.get(address)
        if wanted.kind in _REREAD and standing is not None:
            standing = await self.reader.fetch(
                wanted.kind, wanted.key, ids.get(address, "")
            )
        rules = wanted.fields if standing else {**wanted.fixed, **wanted.fields}
        changes = compare(rules, standing or {}, ids)
        if missing := unmet(changes, ids):
            return _refused(item, f"needs {missing}")
        if wanted.kind is DesiredKind.FLOW:
            _room_in_flow(changes[0].after if changes else [])
            standing = _with_names(standing or {}, self.plan, ids)
        if changes:
            # The tenant adds what it is sent to its settings: the rest stays out.
            beside = {} if wanted.kind is DesiredKind.SETTINGS else standing or {}
            ids[address] = await self.writer.write(
                wanted, body(changes, beside, ids), standing, ids.get(address, "")
            )
        await _confirm(self.reader, wanted, ids)
        return replace(item, changes=changes)


async def _confirm(
    reader: TenantReader, wanted: DesiredObject, ids: dict[str, str]
) -> None:
    """Read back what was written.

    Raises:
        TenantError: it is another thing than was asked for.
    """
    identity = ids.get(wanted.address, "")
    rules = {**wanted.fixed, **wanted.fields}
    wrong: tuple[FieldChange, ...] = ()
    for attempt in range(_TRIES):
        if attempt:
            await reader.management.tenant.sleep(_PAUSE)
        try:
            standing = await reader.fetch(wanted.kind, wanted.key, identity)
        except TenantNotFoundError:
            continue
        wrong = compare(rules, standing, ids)
        if not wrong:
            return
    paths = ", ".join(change.path for change in wrong) or "nothing at all"
    raise TenantError(
        f"{wanted.address} was written, and what reads back differs: {paths}",
        "see it in the Dashboard; apply goes on from here when it is right",
    )


def _with_names(flow: Json, plan: ProvisioningPlan, ids: Ids) -> Json:
    """Add the names of our own Actions to those that others' are shown by."""
    ours = {
        ids[item.address]: item.title
        for item in plan.items
        if item.address.startswith(f"{DesiredKind.ACTION}.") and item.address in ids
    }
    return {**flow, "shown": {**ours, **flow.get("shown", {})}}


def _room_in_flow(bound: list[str]) -> None:
    if len(bound) > _MAX_BOUND:
        raise TenantError(
            f"the login flow would have {len(bound)} Actions, and {_MAX_BOUND} fit",
            "unbind one in the Dashboard, under Actions, Triggers",
        )


class Provisioner:
    """Reads a tenant, says what is to do there, and does it."""

    def __init__(self, management: Management, keeper: SecretStore) -> None:
        """Use *management*; secrets the tenant gives go to *keeper* alone."""
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

    def apply(
        self, plan: ProvisioningPlan, found: TenantSurvey
    ) -> AsyncGenerator[PlanItem]:
        """Carry out *plan*; yields each item once it has been read back.

        Raises:
            TenantError: the tenant would not; what was done stays, and a new plan
                goes on from there.
        """
        return carry_out(plan, found, self._reader, self._writer)
