"""The difference between what should stand on a tenant and what does; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agentvault_tui.vault.provision.desired import Kind, Wanted
from agentvault_tui.vault.provision.found import Found
from agentvault_tui.vault.provision.rules import FieldChange, Ids, compare


class Step(StrEnum):
    """What becomes of one object."""

    CREATE = "create"
    CHANGE = "change"
    NOTHING = "nothing"
    """It is as it should be."""
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
        return tuple(item for item in self.items if item.wanted is not None)


def make_plan(wanted: tuple[Wanted, ...], found: Found) -> Plan:
    """Compare each object of *wanted* with what was *found*."""
    ids = found.ids
    items = [difference(one, found, ids) for one in wanted]
    return Plan((*items, *_strangers(wanted, found), *_by_hand(found)))


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
    stuck = compare(wanted.fixed, standing, ids)
    if stuck:
        paths = ", ".join(change.path for change in stuck)
        note = f"{paths} cannot be changed once made: delete it there, and apply anew"
        return Item(Step.BY_HAND, address, title, stuck, note)
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


def _strangers(wanted: tuple[Wanted, ...], found: Found) -> Iterator[Item]:
    """Yield objects with our mark that nobody wants: they are never deleted."""
    known = {one.address for one in wanted}
    for address, title in found.marked.items():
        if address not in known:
            note = "no agent that is served here uses it: revoked, or another vault's"
            yield Item(Step.LEAVE, address, title, note=note)


def _by_hand(found: Found) -> Iterator[Item]:
    for address, note in found.by_hand.items():
        yield Item(Step.BY_HAND, address, "", note=note)
