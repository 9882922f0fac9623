"""The difference between the desired and the present tenant, and its words."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agentvault_tui.text import Shown, visible
from agentvault_tui.vault.provision.desired import DesiredKind, DesiredObject
from agentvault_tui.vault.provision.needs import TenantSurvey
from agentvault_tui.vault.provision.rules import MISSING, FieldChange, Unknown, compare

_CHANGE = "change the plan under Settings, Subscription, in the Dashboard"


class PlanStep(StrEnum):
    """The step for one object."""

    CREATE = "create"
    CHANGE = "change"
    NOTHING = "nothing"
    """It is as it should be."""
    REFUSED = "refused"
    """The tenant's plan does not have it; no plan has it, only a run."""
    LEAVE = "leave"
    """It is left alone, and why is said."""
    BY_HAND = "by hand"
    """A step for a person, in words."""


_MARKS: Final = {
    PlanStep.CREATE: "+",
    PlanStep.CHANGE: "~",
    PlanStep.REFUSED: "x",
    PlanStep.NOTHING: "=",
    PlanStep.LEAVE: ".",
    PlanStep.BY_HAND: "!",
}
_WORDS: Final = {
    PlanStep.CREATE: "to create",
    PlanStep.CHANGE: "to change",
    PlanStep.REFUSED: "refused by the plan",
    PlanStep.NOTHING: "as they should be",
    PlanStep.LEAVE: "left alone",
    PlanStep.BY_HAND: "to do by hand",
}
_LOCAL_NAMES: Final = {"kept": "secret", "worker_key": "worker's key"}
_CALLED: Final = {**_LOCAL_NAMES, "known": "application", "deployed_code": "deployed"}
"""Members that are ours and not the tenant's, as a person calls them."""
_WIDE: Final = 120
_LISTED: Final = 6


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
class Line:
    """One line: how far in, its mark, and the rest."""

    indent: int
    mark: str
    text: Shown


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
        """The requests of applying."""
        return tuple(item for item in self.items if item.wanted)

    def lines(self) -> Iterator[Line]:
        """Yield the plan like a diff; unchanged objects are only counted."""
        for item in self.items:
            if item.step is PlanStep.NOTHING:
                continue
            title = f"  {visible(item.title, 80)}" if item.title else ""
            address = visible(item.address, 120)
            yield Line(2, _MARKS[item.step], Shown(f"{address}{title}"))
            if item.note:
                yield Line(6, "", visible(item.note, 300))
            wide = max((len(_name(change)) for change in item.changes), default=0)
            for change in item.changes:
                label = _name(change).ljust(wide)
                yield Line(6, "", Shown(f"{label}  {_becomes(item, change)}"))

    def summary(self) -> str:
        """Return the last line: the count of each step."""
        parts = [
            f"{count} {_WORDS[step]}" for step, count in self.counts.items() if count
        ]
        return f"Plan: {', '.join(parts)}."

    def shape(self) -> dict[str, object]:
        """Return the plan for ``--json``."""
        return {
            "items": [
                {
                    "step": item.step.value,
                    "address": item.address,
                    "title": item.title,
                    "note": item.note,
                    "changes": [
                        {
                            "field": _name(change),
                            "before": _plain(change.before),
                            "after": _plain(change.after),
                        }
                        for change in item.changes
                    ],
                }
                for item in self.items
            ],
            "counts": {step.value: count for step, count in self.counts.items()},
        }


def make_plan(
    wanted: tuple[DesiredObject, ...], survey: TenantSurvey
) -> ProvisioningPlan:
    """Compare each object of *wanted* with the *survey*."""
    items = [_difference(one, survey) for one in wanted]
    addresses = {one.address for one in wanted}
    note = "no agent that is served here uses it: revoked, or another vault's"
    # Objects with our mark that nobody wants: they are never deleted.
    items += [
        PlanItem(PlanStep.LEAVE, address, title, note=note)
        for address, title in survey.marked.items()
        if address not in addresses
    ]
    items += [
        PlanItem(PlanStep.BY_HAND, address, "", note=by_hand)
        for address, by_hand in survey.by_hand.items()
    ]
    return ProvisioningPlan(tuple(items))


def _difference(wanted: DesiredObject, survey: TenantSurvey) -> PlanItem:
    """Return the step for one object."""
    address, title, ids = wanted.address, wanted.title, survey.ids
    standing = survey.objects.get(address)
    if standing is None:
        if wanted.kind is DesiredKind.CONNECTION:
            note = (
                "there is no such connection: make it in the Dashboard, under "
                "Authentication, with the provider's own client id and secret"
            )
            return PlanItem(PlanStep.BY_HAND, address, title, note=note)
        changes = compare({**wanted.fixed, **wanted.fields}, {}, ids)
        return PlanItem(PlanStep.CREATE, address, title, changes, wanted=wanted)
    if lacking := survey.lacking.get(address):
        note = f"the tenant's plan has it no more ({lacking}): {_CHANGE}"
        step = PlanStep.LEAVE if wanted.optional else PlanStep.BY_HAND
        return PlanItem(step, address, title, note=note)
    changes = compare(wanted.fields, standing, ids)
    if not changes:
        return PlanItem(PlanStep.NOTHING, address, title)
    if wanted.held:
        return PlanItem(PlanStep.LEAVE, address, title, changes, wanted.held)
    note = ""
    if identity := survey.adopted.get(address):
        note = (
            f"known by its mark alone, and unknown to this home: see in the Dashboard "
            f"that {identity} is ours before it is given what stands below"
        )
    return PlanItem(PlanStep.CHANGE, address, title, changes, note, wanted=wanted)


def _name(change: FieldChange) -> str:
    return _CALLED.get(change.path, change.path)


def _becomes(item: PlanItem, change: FieldChange) -> Shown:
    if change.path in _LOCAL_NAMES:
        fresh = item.step is PlanStep.CREATE
        return Shown("kept in this home" if fresh else "not in this home -> a new one")
    if change.path == "known":
        return Shown("kept in this home")
    before, after = change.before, change.after
    if isinstance(before, list) and isinstance(after, list):
        # What comes and goes: a long list is shown nowhere in full.
        gone = [one for one in before if one not in after]
        come = [one for one in after if one not in before]
        signs = (("-", gone), ("+", come))
        changes = [f"{sign} {_value(some)}" for sign, some in signs if some]
        # Neither: the same, in another order.
        return Shown(" ".join(changes) or f"-> {_value(after)}")
    if before is MISSING:
        return _value(after)
    return Shown(f"{_value(before)} -> {_value(after)}")


def _value(value: object) -> Shown:
    match value:
        case Unknown(address):
            return Shown(f"(id of {address})")
        case str() if "\n" in value:
            digest = hashlib.sha256(value.encode()).hexdigest()[:12]
            return Shown(f"{value.count(chr(10))} lines, sha256 {digest}")
        case list() if len(value) > _LISTED:
            some = ", ".join(_value(one) for one in value[: _LISTED - 1])
            return Shown(f"[{some}, and {len(value) - _LISTED + 1} more]")
        case list():
            return Shown(f"[{', '.join(_value(one) for one in value)}]")
        case {"value": named} | {"permission_name": named}:
            return visible(named, _WIDE)
        case dict():
            pairs = (f"{visible(k, 40)}={_value(v)}" for k, v in value.items())
            return Shown(" ".join(pairs))
        case True | False:
            return Shown(str(value).lower())
        case None:
            return Shown("null")
        case _:
            return visible(value, _WIDE)


def _plain(value: object) -> object:
    """Return *value* as JSON has it; an id that is not known yet by its address."""
    if value is MISSING:
        return None
    match value:
        case Unknown(address):
            return {"id_of": address}
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case _:
            return value
