"""The difference between what should stand on a tenant and what does; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agentvault_tui.vault.provision.desired import DesiredKind, DesiredObject
from agentvault_tui.vault.provision.needs import TenantSurvey
from agentvault_tui.vault.provision.rules import FieldChange, compare

_CHANGE = "change the plan under Settings, Subscription, in the Dashboard"


class PlanStep(StrEnum):
    """What becomes of one object."""

    CREATE = "create"
    CHANGE = "change"
    NOTHING = "nothing"
    """It is as it should be."""
    REFUSED = "refused"
    """The tenant's plan does not have it; no plan has it, only a run."""
    LEAVE = "leave"
    """It is left alone, and why is said."""
    BY_HAND = "by hand"
    """A person has to do it, and what is said."""


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One object of the plan."""

    step: PlanStep
    address: str
    title: str
    """Untrusted text: names of agents, or of others' objects."""
    changes: tuple[FieldChange, ...] = ()
    note: str = ""
    wanted: DesiredObject | None = None


@dataclass(frozen=True, slots=True)
class ProvisioningPlan:
    """Every object, in the order in which it would be made."""

    items: tuple[PlanItem, ...]

    @property
    def counts(self) -> Mapping[PlanStep, int]:
        """How many objects take each step."""
        counted = Counter(item.step for item in self.items)
        return {step: counted[step] for step in PlanStep}

    @property
    def writes(self) -> tuple[PlanItem, ...]:
        """What applying would do."""
        return tuple(item for item in self.items if item.wanted)


def make_plan(
    wanted: tuple[DesiredObject, ...], found: TenantSurvey
) -> ProvisioningPlan:
    """Compare each object of *wanted* with what was *found*."""
    items = [_difference(one, found) for one in wanted]
    known = {one.address for one in wanted}
    note = "no agent that is served here uses it: revoked, or another vault's"
    # Objects with our mark that nobody wants: they are never deleted.
    items += [
        PlanItem(PlanStep.LEAVE, address, title, note=note)
        for address, title in found.marked.items()
        if address not in known
    ]
    items += [
        PlanItem(PlanStep.BY_HAND, address, "", note=by_hand)
        for address, by_hand in found.by_hand.items()
    ]
    return ProvisioningPlan(tuple(items))


def _difference(wanted: DesiredObject, found: TenantSurvey) -> PlanItem:
    """Return what becomes of one object."""
    address, title, ids = wanted.address, wanted.title, found.ids
    standing = found.objects.get(address)
    if standing is None:
        if wanted.kind is DesiredKind.CONNECTION:
            note = (
                "there is no such connection: make it in the Dashboard, under "
                "Authentication, with the provider's own client id and secret"
            )
            return PlanItem(PlanStep.BY_HAND, address, title, note=note)
        changes = compare({**wanted.fixed, **wanted.fields}, {}, ids)
        return PlanItem(PlanStep.CREATE, address, title, changes, wanted=wanted)
    if said := found.lacking.get(address):
        note = f"the tenant's plan has it no more ({said}): {_CHANGE}"
        step = PlanStep.LEAVE if wanted.optional else PlanStep.BY_HAND
        return PlanItem(step, address, title, note=note)
    changes = compare(wanted.fields, standing, ids)
    if not changes:
        return PlanItem(PlanStep.NOTHING, address, title)
    if wanted.held:
        return PlanItem(PlanStep.LEAVE, address, title, changes, wanted.held)
    note = ""
    if identity := found.adopted.get(address):
        note = (
            f"known by its mark alone, and unknown to this home: see in the Dashboard "
            f"that {identity} is ours before it is given what stands below"
        )
    return PlanItem(PlanStep.CHANGE, address, title, changes, note, wanted=wanted)
