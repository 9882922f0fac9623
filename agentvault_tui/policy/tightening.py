"""Separates changes of policy or limits that only refuse more from all others.

The parsed rules decide this: a plan over the history is no proof, because the next
request may differ from the ones before.
"""

from __future__ import annotations

from dataclasses import replace

from cedarpy import pst

from agentvault_tui.policy.engine import Policy
from agentvault_tui.policy.limits import Limit, LimitSet
from agentvault_tui.policy.reads import nodes
from agentvault_tui.policy.rules import Obligation, PolicyRule


def only_tightens(before: Policy, after: Policy) -> bool:
    """Check whether *after* refuses or escalates at least all that *before* does.

    It may add a forbid, remove a permit that allows and reads nothing of the request,
    turn one that allows into one that steps up, and add a limit or lower its number.
    Comments, order and layout are no change. Everything else counts as a loosening:
    also a new or removed step-up permit, and any change of the catalogue. If a removed
    permit read a parameter, a request that does not state it clearly was escalated,
    and another permit might allow it from then on.

    Args:
        before: the active policy.
        after: the one to be put in its place.

    Returns:
        whether all that changes is one of these.
    """
    return (
        before.catalogue.version == after.catalogue.version
        and _rules_tighten(before, after)
        and _limits_tighten(before.limits, after.limits, after.rules)
    )


def differences(before: Policy, after: Policy) -> dict[str, list[str]]:
    """Return the differences between two policies, for the person who approves it.

    Args:
        before: the active policy.
        after: the one to be put in its place.

    Returns:
        ids of rules and limits, by how they differ; without the empty ones.
    """
    pairs: tuple[tuple[str, dict[str, object], dict[str, object]], ...] = (
        ("rules", _rules_by_id(before), _rules_by_id(after)),
        ("limits", {**before.limits.by_id}, {**after.limits.by_id}),
    )
    agents_of: dict[str, list[str]] = {}
    for noun, old, new in pairs:
        both = old.keys() & new.keys()
        agents_of[f"{noun} added"] = sorted(new.keys() - old.keys())
        agents_of[f"{noun} removed"] = sorted(old.keys() - new.keys())
        agents_of[f"{noun} changed"] = sorted(
            one for one in both if old[one] != new[one]
        )
    if before.catalogue.version != after.catalogue.version:
        agents_of["catalogue"] = ["changed"]
    return {name: ids for name, ids in agents_of.items() if ids}


def _rules_by_id(policy: Policy) -> dict[str, object]:
    return {one.id: one.parsed for one in policy.rules}


def _rules_tighten(before: Policy, after: Policy) -> bool:
    old, new = ({one.id: one for one in rules} for rules in (before.rules, after.rules))
    reading = before.ids_of_readers()
    removed = (old[name] for name in old.keys() - new.keys())
    added = (new[name] for name in new.keys() - old.keys())
    return (
        all(
            one.obligation is Obligation.ALLOW and one.id not in reading
            for one in removed
        )
        and all(one.obligation is Obligation.DENY for one in added)
        and all(
            _rule_tightens(old[name], new[name]) for name in old.keys() & new.keys()
        )
    )


def _rule_tightens(old: PolicyRule, new: PolicyRule) -> bool:
    """Check whether *new* is *old*, or asks a person where that allowed."""
    was, now = dict(old.parsed.annotations), dict(new.parsed.annotations)
    asks = old.obligation is Obligation.ALLOW and new.obligation is Obligation.STEP_UP
    if old.obligation is not new.obligation and not asks:
        return False
    # A forbid denies with or without its annotation.
    was.pop("obligation", None)
    now.pop("obligation", None)
    same = replace(old.parsed, annotations={}) == replace(new.parsed, annotations={})
    return same and was == now


def _limits_tighten(
    before: LimitSet, after: LimitSet, rules: tuple[PolicyRule, ...]
) -> bool:
    old, new = before.by_id, after.by_id
    lowered = {
        one.attribute for name, one in old.items() if new.get(name, one).most < one.most
    }
    added = {new[name].attribute for name in new.keys() - old.keys()}
    # A rule that reads what is left of a limit may forbid less where less is left, and
    # one that asks whether there is a limit where there is one more.
    if any(_reads(rule, lowered | added, added) for rule in rules):
        return False
    return (
        {one.id: one for one in before.hooks} == {one.id: one for one in after.hooks}
        and old.keys() <= new.keys()
        and all(_limit_tightens(one, new[name]) for name, one in old.items())
    )


def _reads(rule: PolicyRule, touched: set[str], added: set[str]) -> bool:
    """Check whether *rule* reads more of limits *touched* than their counts.

    Or whether there is one, where limits were *added*.
    """
    read = counted = 0
    for clause in rule.parsed.clauses:
        for node in nodes(clause.expr):
            match node:
                case pst.HasAttr(_, attrs) if added and {*attrs} & {"limits", *added}:
                    return True
                case pst.GetAttr(pst.GetAttr(_, name), "count") if name in touched:
                    counted += 1
                case pst.GetAttr(_, name) if name in touched:
                    read += 1
    return read > counted


def _limit_tightens(old: Limit, new: Limit) -> bool:
    return new.most <= old.most and replace(new, most=old.most) == old
