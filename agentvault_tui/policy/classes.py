"""Classes of requests that every rule answers alike, so that answers can be kept.

Of an amount that rules only compare with 1000, no rule can tell 7 from 12. So the key
of a kept answer holds of each attribute what the rules in question can tell apart, and
nothing of one they do not read. What they read in any other way is in the key as it is.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from cedarpy import pst

from agentvault_tui.policy.facts import PARAMETERS, Facts
from agentvault_tui.policy.reads import children
from agentvault_tui.policy.ruling import Principal

_EQUALITY: Final = frozenset({"eq", "not_eq"})
_ORDER: Final = frozenset({"less", "less_eq", "greater", "greater_eq"})
_Distinguish = Callable[[Any], Hashable]


@dataclass(slots=True)
class _Use:
    """How rules use one attribute of a request."""

    literals: set[Any] = field(default_factory=set)
    """What it is compared with."""
    otherwise: bool = False
    """It is used in some other way than in a comparison with a literal."""

    def distinguish(self) -> _Distinguish:
        """Return a function that maps values no rule can tell apart to one."""
        kinds = {type(literal) for literal in self.literals}
        if self.otherwise or len(kinds) > 1:
            return lambda value: value
        if kinds == {str}:
            words = frozenset(self.literals)
            return lambda value: value if value in words else value is None
        bounds = sorted(self.literals)
        return lambda value: None if value is None else _interval(bounds, value)


@dataclass(frozen=True, slots=True)
class RequestClasses:
    """What rules can tell apart of a request for one scope."""

    by_principal: bool
    """Some rule names or reads the agent."""
    attributes: tuple[tuple[str, _Distinguish], ...]

    @classmethod
    def of(cls, rules: Iterable[pst.Template]) -> RequestClasses:
        """Analyse the parsed *rules* that apply to a scope."""
        uses = {name: _Use() for name in PARAMETERS}
        # Rules that compare a resource also ask whether it only reads like theirs.
        uses["resource"].otherwise = True
        read: set[str] = set()
        by_principal = False
        for rule in rules:
            by_principal |= not isinstance(rule.principal, pst.ScopeAny)
            if not isinstance(rule.resource, pst.ScopeAny):
                read.add("resource")
            waiting: list[object] = [clause.expr for clause in rule.clauses]
            while waiting:
                node = waiting.pop()
                by_principal |= node == pst.Var("principal")
                names = _note(node, uses)
                if names is None:
                    waiting += children(node)
                else:
                    read |= names
        return cls(
            by_principal,
            tuple((name, uses[name].distinguish()) for name in sorted(read)),
        )

    def key(self, who: Principal, facts: Facts) -> Hashable:
        """Return the same for two requests only if all rules answer them alike."""
        return (
            who if self.by_principal else None,
            facts.unclear,
            *[distinguish(facts.value(name)) for name, distinguish in self.attributes],
        )


def _note(node: object, uses: dict[str, _Use]) -> frozenset[str] | None:
    """Enter what *node* does with attributes in *uses*.

    Returns:
        the attributes it reads; None, when only nodes below it may read any.
    """
    match node:
        case pst.BinaryOp(
            op, pst.GetAttr(pst.Var("context"), name), literal
        ) | pst.BinaryOp(op, literal, pst.GetAttr(pst.Var("context"), name)) if (
            name in PARAMETERS and _compares(literal, op)
        ):
            uses[name].literals.add(literal.value)
            return frozenset({name})
        case pst.HasAttr(pst.Var("context"), (name,)):
            return PARAMETERS & {name}
        case pst.GetAttr(pst.Var("context"), name):
            found = PARAMETERS & {name}
        case pst.Var("context"):
            found = PARAMETERS
        case pst.Var("resource"):
            found = frozenset({"resource"})
        case _:
            return None
    for name in found:
        uses[name].otherwise = True
    return found


def _compares(other: object, op: str) -> TypeGuard[pst.LongLit | pst.StringLit]:
    """Tell whether *op* compares by equality or order, and *other* is a literal."""
    if isinstance(other, pst.LongLit):
        return op in _EQUALITY | _ORDER
    return isinstance(other, pst.StringLit) and op in _EQUALITY


def _interval(bounds: list[int], value: int) -> tuple[int, int]:
    """Return between or on which of the sorted *bounds* the value lies."""
    return bisect_left(bounds, value), bisect_right(bounds, value)
