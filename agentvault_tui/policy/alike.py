"""Evaluate the rules a second time, on the fold of a resource.

A rule compares the literal resource, but a service may read ``REPO.git`` as ``repo``.
So the rules are evaluated again: each comparison with a resource then holds if it holds
for the literal or for the fold. The stricter of the two answers counts. The second
evaluation runs only if a comparison holds for the fold alone, which is rare.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

import cedarpy
from cedarpy import pst

from agentvault_tui.policy.inputs import Inputs, Principal
from agentvault_tui.policy.reads import matches, named_ids, part_names, pattern_parts
from agentvault_tui.policy.resources import fold_pattern, reads_like
from agentvault_tui.policy.rules import parse_schema

ALIKE: Final = "alike"
"""The context attribute with the comparisons that hold for the fold."""
_KEPT_SUFFIXES: Final = 16
"""Lists of suffixes for which the comparisons' own folds are cached."""
_OF_PRINCIPAL: Final = ("name", "owner")
_RESOURCE: Final = (pst.Var("resource"), pst.GetAttr(pst.Var("context"), "resource"))


class _Comparison(NamedTuple):
    """One comparison of a rule with a resource."""

    literals: frozenset[str] = frozenset()
    pattern: tuple[str, ...] = ()
    """The pattern of ``like``, split at the wildcards."""
    principal: str = ""
    """The attribute of the agent."""

    def holds(self, resource: str, who: Principal) -> bool:
        """Check whether it holds for the literal."""
        if self.pattern:
            return matches(self.pattern, resource)
        if self.principal:
            return resource == (who.name if self.principal == "name" else who.owner)
        return resource in self.literals

    def folded(self, same_as: tuple[str, ...]) -> _Comparison:
        """Return the comparison for the fold of a resource."""
        return self._replace(
            literals=frozenset(reads_like(one, same_as) for one in self.literals),
            pattern=fold_pattern(self.pattern, same_as),
        )

    def holds_folded(self, fold: str, who: Principal, same_as: tuple[str, ...]) -> bool:
        """Check whether a `folded` comparison holds for the fold of a resource."""
        if self.principal:
            named = who.name if self.principal == "name" else who.owner
            return fold == reads_like(named, same_as)
        return self.holds(fold, who)


class AlikeRules:
    """The rules of a policy, rewritten for the fold of a resource."""

    def __init__(
        self, rules: Iterable[tuple[pst.Template, Collection[str]]], schema: str
    ) -> None:
        """Rewrite the rules.

        Args:
            rules: each parsed rule, with the scopes that it applies to.
            schema: one in which requests have the attribute `ALIKE`.
        """
        self._comparisons: dict[_Comparison, str] = {}
        by_scope: dict[str, set[_Comparison]] = defaultdict(set)
        written = {}
        for number, (rule, scopes) in enumerate(rules):
            comparisons: set[_Comparison] = set()
            name = f"policy{number}"  # as Cedar numbers them; see `rules.position`
            written[name] = replace(self._rewritten(rule, comparisons), id=name)
            for scope in scopes:
                by_scope[scope] |= comparisons
        self._by_scope = {
            scope: tuple(sorted(comparisons, key=self._comparisons.__getitem__))
            for scope, comparisons in by_scope.items()
        }
        self._folded = lru_cache(maxsize=_KEPT_SUFFIXES)(self._fold)
        self._schema = parse_schema(schema)
        self._policies = cedarpy.PolicySet.from_pst(
            pst.PolicySet(templates={}, static_policies=written, template_links=())
        )

    def matching(self, inputs: Inputs, scopes: Sequence[str]) -> list[str]:
        """Return the comparisons that hold for the fold but not for the resource."""
        resource, who = inputs.facts.resource, inputs.who
        if resource is None or not self._comparisons:
            return []
        same_as, fold = inputs.facts.same_as, inputs.facts.fold or ""
        folded = self._folded(same_as)
        return sorted(
            {
                self._comparisons[one]
                for scope in scopes
                for one in self._by_scope.get(scope, ())
                if folded[one].holds_folded(fold, who, same_as)
                and not one.holds(resource, who)
            }
        )

    def ask(
        self,
        requests: Sequence[Mapping[str, Any]],
        rule_ids: list[str],
        entities: cedarpy.Entities,
    ) -> list[cedarpy.AuthzResult]:
        """Evaluate requests again, with the comparisons *found* holding too."""
        again = [
            {**one, "context": {**one["context"], ALIKE: rule_ids}} for one in requests
        ]
        return cedarpy.is_authorized_batch(
            again, self._policies, entities, self._schema
        )

    def _fold(self, same_as: tuple[str, ...]) -> dict[_Comparison, _Comparison]:
        return {one: one.folded(same_as) for one in self._comparisons}

    def _rewritten(
        self, rule: pst.Template, comparisons: set[_Comparison]
    ) -> pst.Template:
        clauses = tuple(
            replace(clause, expr=self._widened(clause.expr, comparisons))
            for clause in rule.clauses
        )
        if (ids := named_ids(rule.resource)) is not None:
            (literal,) = ids
            entity = pst.EntityUid(pst.EntityType("Resource", ()), literal)
            exact = pst.BinaryOp("eq", pst.Var("resource"), pst.EntityLit(entity))
            scope = pst.When(self._or_alike(exact, _Comparison(ids), comparisons))
            rule = replace(rule, resource=pst.ScopeAny())
            clauses = (scope, *clauses)
        return replace(rule, clauses=clauses)

    def _widened(self, node: Any, comparisons: set[_Comparison]) -> Any:
        """Return an expression in which each comparison may hold for the fold too.

        A comparison of another form is not rewritten; for these, `RuleReads` escalates.
        """
        match node:
            case pst.Like(base, pattern) if base in _RESOURCE:
                compared = _Comparison(pattern=pattern_parts(pattern))
                return self._or_alike(node, compared, comparisons)
            case pst.BinaryOp("not_eq", left, right):
                equal = pst.BinaryOp("eq", left, right)
                return pst.UnaryOp("not", self._widened(equal, comparisons))
            case pst.BinaryOp() if (comparison := _compared(node)) is not None:
                return self._or_alike(node, comparison, comparisons)
        return _rebuilt(node, lambda one: self._widened(one, comparisons))

    def _or_alike(
        self, node: object, compared: _Comparison, comparisons: set[_Comparison]
    ) -> pst.BinaryOp:
        comparisons.add(compared)
        name = self._comparisons.setdefault(compared, f"{len(self._comparisons):05}")
        holding = pst.GetAttr(pst.Var("context"), ALIKE)
        alike = pst.BinaryOp("contains", holding, pst.StringLit(name))
        return pst.BinaryOp("or", node, alike)  # type: ignore[arg-type]


def _compared(node: pst.BinaryOp) -> _Comparison | None:
    """Return the comparison with the resource in *node*, if it is nothing else."""
    if node.op not in {"eq", "in", "contains", "contains_all", "contains_any"}:
        return None
    for one, other in ((node.left, node.right), (node.right, node.left)):
        if one not in _RESOURCE and not (
            isinstance(one, pst.Set) and one.elements and set(one.elements) <= _ONES
        ):
            continue
        if isinstance(other, pst.GetAttr) and other.base == pst.Var("principal"):
            readable = other.attr in _OF_PRINCIPAL
            return _Comparison(principal=other.attr) if readable else None
        listed = other.elements if isinstance(other, pst.Set) else (other,)
        literals = [_literal(each) for each in listed]
        if literals and None not in literals:
            return _Comparison(frozenset(filter(None, literals)))
    return None


_ONES: Final = frozenset(_RESOURCE)


def _literal(node: object) -> str | None:
    match node:
        case pst.StringLit(value):
            return value
        case pst.EntityLit(entity):
            return entity.id
    return None


def _rebuilt(node: Any, change: Any) -> Any:
    """Return *node* with *change* made to each part of it."""
    if isinstance(node, tuple):
        return tuple(change(one) for one in node)
    if isinstance(node, pst.FrozenMap):
        return pst.FrozenMap({name: change(one) for name, one in node.items()})
    parts = {name: getattr(node, name) for name in part_names(type(node))}
    changed = {name: _rebuilt_part(part, change) for name, part in parts.items()}
    return node if changed == parts else replace(node, **changed)


def _rebuilt_part(part: Any, change: Any) -> Any:
    if isinstance(part, tuple | pst.FrozenMap):
        return _rebuilt(part, change)
    return change(part) if part_names(type(part)) else part
