"""A plan as a person reads it, and as a program does; every text made displayable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agentvault_tui.text import Shown, visible
from agentvault_tui.vault.provision.plan import PlanItem, PlanStep, ProvisioningPlan
from agentvault_tui.vault.provision.rules import MISSING, FieldChange, Unknown

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
_KEPT: Final = {"kept": "secret", "worker_key": "worker's key"}
_CALLED: Final = {**_KEPT, "known": "application", "deployed_code": "deployed"}
"""Members that are ours and not the tenant's, as a person calls them."""
_WIDE: Final = 120
_LISTED: Final = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line: how far in, its mark, and the rest."""

    indent: int
    mark: str
    text: Shown


def lines(plan: ProvisioningPlan) -> Iterator[Line]:
    """Yield the plan like a diff; what is as it should be is only counted."""
    for item in plan.items:
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


def summary(plan: ProvisioningPlan) -> str:
    """Return the last line: how much of what."""
    told = [f"{count} {_WORDS[step]}" for step, count in plan.counts.items() if count]
    return f"Plan: {', '.join(told)}."


def shape(plan: ProvisioningPlan) -> dict[str, object]:
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
            for item in plan.items
        ],
        "counts": {step.value: count for step, count in plan.counts.items()},
    }


def _name(change: FieldChange) -> str:
    return _CALLED.get(change.path, change.path)


def _becomes(item: PlanItem, change: FieldChange) -> Shown:
    if change.path in _KEPT:
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
        told = [f"{sign} {_value(some)}" for sign, some in signs if some]
        # Neither: the same, in another order.
        return Shown(" ".join(told) or f"-> {_value(after)}")
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
