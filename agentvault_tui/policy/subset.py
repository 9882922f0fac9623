"""Whether one action stays within another, compared as policy reads both."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from agentvault_tui.model import Action
from agentvault_tui.model.waiting import BOUNDED
from agentvault_tui.policy.facts import Facts, derive
from agentvault_tui.policy.resources import canonical


def wider(parent: Action, child: Action) -> str | None:
    """Name the first part of *child* that is not within *parent*.

    Names and values count character by character: a name that only reads like another,
    by case, by look-alike letters or below a path, is a different one. A parameter may
    be smaller where policy reads both, and a resource may be named where none was.

    Args:
        parent: the approved action; without parameters, an action with none.
        child: the requested action.

    Returns:
        ``scope``, ``action``, ``resource`` or the name of a parameter; None where all
        of it is within.
    """
    if not set(child.scopes) <= set(parent.scopes):
        return "scope"
    if parent.named and child.action != parent.action:
        return "action"
    if child.resource != parent.resource and (
        parent.resource is not None or canonical(child.resource or "") is None
    ):
        return "resource"
    return wider_parameter(parent, child)


def wider_parameter(parent: Action, child: Action) -> str | None:
    """Name the first parameter of *child* that is not within *parent*'s."""
    before, after = parent.parameters, child.parameters
    if unmatched := before.keys() ^ after.keys():
        return min(unmatched)
    differing = [n for n in before if not same(before[n], after[n])]
    if not differing:
        return None
    facts = derive(parent), derive(child)
    return next((n for n in differing if not _is_less(n, before, after, facts)), None)


def same(one: object, other: object) -> bool:
    """Check whether two JSON values are written alike: 1, 1.0 and true differ."""
    return _written(one) == _written(other)


def same_details(
    one: Iterable[Mapping[str, object]], other: Iterable[Mapping[str, object]]
) -> bool:
    """Check whether details that policy does not read are the same, in any order."""
    return Counter(map(_written, one)) == Counter(map(_written, other))


def _is_less(
    name: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    facts: tuple[Facts, Facts],
) -> bool:
    if name not in BOUNDED:
        return False
    most, wanted = (one.value(name) for one in facts)
    if not (isinstance(most, int) and isinstance(wanted, int) and wanted <= most):
        return False
    named = before[name]
    if not isinstance(named, list):
        return True
    # Whoever was named alone may be written to: fewer of them, and nobody else.
    chosen = after[name]
    return isinstance(chosen, list) and Counter(chosen) <= Counter(named)


def _written(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)
