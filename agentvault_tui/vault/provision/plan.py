"""The difference between what should stand on a tenant and what does; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agentvault_tui.vault.provision.desired import Kind, Wanted
from agentvault_tui.vault.provision.found import Found, Unused
from agentvault_tui.vault.provision.rules import FieldChange, Ids, compare

_CHANGE = "change the plan under Settings, Subscription, in the Dashboard"


class Step(StrEnum):
    """What becomes of one object."""

    CREATE = "create"
    CHANGE = "change"
    NOTHING = "nothing"
    """It is as it should be."""
    REMOVE = "remove"
    """An earlier version made it, and nothing uses it."""
    REFUSED = "refused"
    """The tenant's plan does not have it; no plan has it, only a run."""
    LEAVE = "leave"
    """It is left alone, and why is said."""
    BY_HAND = "by hand"
    """A person has to do it, and what is said."""


@dataclass(frozen=True, slots=True)
class Item:
    """One object of the plan."""

    step: Step
    address: str
    title: str
    """Untrusted text: names of agents, or of others' objects."""
    changes: tuple[FieldChange, ...] = ()
    note: str = ""
    wanted: Wanted | None = None
    identity: str = ""
    """The id of what is to be deleted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Every object, in the order in which it would be made."""

    items: tuple[Item, ...]

    @property
    def counts(self) -> Mapping[Step, int]:
        """How many objects take each step."""
        counted = Counter(item.step for item in self.items)
        return {step: counted[step] for step in Step}

    @property
    def writes(self) -> tuple[Item, ...]:
        """What applying would do."""
        return tuple(item for item in self.items if item.wanted or item.identity)


def make_plan(
    wanted: tuple[Wanted, ...], found: Found, *, remove_unused: bool = False
) -> Plan:
    """Compare each object of *wanted* with what was *found*."""
    ids = found.ids
    items = [difference(one, found, ids) for one in wanted]
    gone = [_unused(one, remove=remove_unused) for one in found.unused]
    return Plan((*items, *gone, *_strangers(wanted, found), *_by_hand(found)))


def difference(wanted: Wanted, found: Found, ids: Ids) -> Item:
    """Return what becomes of one object."""
    address, title = wanted.address, wanted.title
    standing = found.objects.get(address)
    if standing is None:
        if wanted.kind is Kind.CONNECTION:
            note = (
                "there is no such connection: make it in the Dashboard, under "
                "Authentication, with the provider's own client id and secret"
            )
            return Item(Step.BY_HAND, address, title, note=note)
        changes = compare({**wanted.fixed, **wanted.fields}, {}, ids)
        return Item(Step.CREATE, address, title, changes, wanted=wanted)
    if said := found.lacking.get(address):
        note = f"the tenant's plan has it no more ({said}): {_CHANGE}"
        step = Step.LEAVE if wanted.optional else Step.BY_HAND
        return Item(step, address, title, note=note)
    changes = compare(wanted.fields, standing, ids)
    if not changes:
        return Item(Step.NOTHING, address, title)
    if wanted.held:
        return Item(Step.LEAVE, address, title, changes, wanted.held)
    note = ""
    if identity := found.adopted.get(address):
        note = (
            f"known by its mark alone, and unknown to this home: see in the Dashboard "
            f"that {identity} is ours before it is given what stands below"
        )
    return Item(Step.CHANGE, address, title, changes, note, wanted=wanted)


def _unused(one: Unused, *, remove: bool) -> Item:
    if one.held:
        note = f"made by an earlier version, and used by nothing here: {one.held}"
        return Item(Step.LEAVE, one.address, one.title, note=note)
    if not remove:
        note = "made by an earlier version, and used by nothing: --remove-unused "
        return Item(Step.LEAVE, one.address, one.title, note=f"{note}deletes it")
    return Item(Step.REMOVE, one.address, one.title, identity=one.identity)


def _strangers(wanted: tuple[Wanted, ...], found: Found) -> Iterator[Item]:
    """Yield objects with our mark that nobody wants: they are never deleted."""
    known = {one.address for one in wanted} | {one.address for one in found.unused}
    for address, title in found.marked.items():
        if address not in known:
            note = "no agent that is served here uses it: revoked, or another vault's"
            yield Item(Step.LEAVE, address, title, note=note)


def _by_hand(found: Found) -> Iterator[Item]:
    for address, note in found.by_hand.items():
        yield Item(Step.BY_HAND, address, "", note=note)
