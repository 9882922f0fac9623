"""The requests that a rule applies to, and the facts that it reads, found at load.

A rule *reads* a parameter when one of its conditions mentions it: ``context.amount``,
``context has amount``, in ``when`` or ``unless``, on either side of ``||``. It reads
the resource also when its scope names one. If a request does not state a fact clearly,
a rule that reads the fact must not decide it; so `RuleReads.unclear` is asked in
addition to Cedar.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from cedarpy import pst

from agentvault_tui.policy.inputs import READABLE, Inputs, Principal
from agentvault_tui.policy.resources import fold_pattern, reads_like, shortened

_JOINS: Final = frozenset({"and", "or"})
_OF_PRINCIPAL: Final = frozenset({"name", "owner"})
_ROOTED: Final = re.compile(r"([^:/]+):/(?!/)")
"""The beginning of a resource that is an absolute path; a URL has two slashes."""


@dataclass(frozen=True, slots=True)
class RuleReads:
    """One rule, as far as it decides whether a request is clear enough for it."""

    id: str
    actions: frozenset[str]
    """The scopes its scope admits; groups are resolved."""
    principals: frozenset[str] | None
    """The ids of the agents its scope admits; nothing for all."""
    resources: frozenset[str] | None
    """The resources its scope admits; nothing for all."""
    reads: tuple[str, ...]
    """The parameters it reads, source and country among them, sorted."""
    optional: frozenset[str]
    """Those it reads that a request need not state."""
    literals: Mapping[str, frozenset[str]]
    """The resources it compares with, by how they read."""
    patterns: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    """Its ``like`` patterns, as written and as they read, cut at the wildcards."""
    by_principal: bool
    """It compares the resource with an attribute of the agent."""
    rooted: frozenset[str]
    """In lower case, the names ``NAME`` of resources ``NAME:/…`` that it compares."""

    @classmethod
    def of(
        cls,
        rule_id: str,
        optional: frozenset[str],
        rule: pst.Template,
        members: Mapping[str, frozenset[str]],
    ) -> RuleReads:
        """Analyse a parsed *rule*; *members* are the scopes of each action."""
        names, patterns, by_principal = _compared(rule)
        literals: dict[str, set[str]] = {}
        for name in names:
            literals.setdefault(reads_like(name), set()).add(name)
        beginnings = map(_ROOTED.match, (*names, *(one for one, *_ in patterns)))
        return cls(
            id=rule_id,
            actions=admitted_actions(rule, members),
            principals=named_ids(rule.principal),
            resources=named_ids(rule.resource),
            reads=tuple(sorted(read_by(rule))),
            optional=optional,
            literals={folded: frozenset(group) for folded, group in literals.items()},
            patterns=tuple((pattern, fold_pattern(pattern)) for pattern in patterns),
            by_principal=by_principal,
            rooted=frozenset(one[1].casefold() for one in beginnings if one),
        )

    @property
    def reads_request(self) -> bool:
        """Whether it depends on more than the agent and the action."""
        named = self.resources is not None or self.literals or self.patterns
        return bool(self.reads or named or self.by_principal)

    def unclear(self, inputs: Inputs) -> tuple[str, ...]:
        """Return the facts that this rule reads and the request does not state clearly.

        Nothing, when the rule's scope leaves the agent or the resource out.
        """
        who, facts = inputs.who, inputs.facts
        if self.principals is not None and who.id not in self.principals:
            return ()
        resource, hidden = facts.resource, facts.hidden
        names = [
            name
            for name in self.reads
            if name in facts.unclear
            or name in hidden
            or (name not in self.optional and inputs.value(name) is None)
        ]
        if resource is not None and "resource" in self.reads:
            if (
                self._is_evasive(resource, who)
                or self._names_part_of(resource)
                or self._is_relative(resource)
            ):
                names.append("resource")
            elif self.resources is not None and resource not in self.resources:
                return ()
        return tuple(names)

    def _is_evasive(self, resource: str, who: Principal) -> bool:
        """Check whether *resource* reads like one this rule names but is another."""
        if not (self.literals or self.patterns or self.by_principal):
            return False
        folded = reads_like(resource)
        named = self.literals.get(folded)
        if named is not None and resource not in named:
            return True
        short = shortened(resource)
        if short != resource and named is None:
            alike = reads_like(short)
            if alike in self.literals:
                return True
            alike += "/" * short.endswith("/")
            if any(
                not matches(exact, resource) and matches(pattern, alike)
                for exact, pattern in self.patterns
            ):
                return True
        if self.by_principal and any(
            resource != value and folded == reads_like(value)
            for value in (who.name, who.owner)
        ):
            return True
        if is_tree(resource):
            folded = _below(folded)
        return any(
            matches(exact, resource) != matches(alike, folded)
            for exact, alike in self.patterns
        )

    def _is_relative(self, resource: str) -> bool:
        """Check whether *resource* may be an absolute path that this rule compares.

        ``fs:secret/key`` or ``fs:~/key`` may be ``fs:/srv/secret/key``.
        """
        name, colon, path = resource.partition(":")
        return bool(colon) and path[:1] != "/" and name.casefold() in self.rooted

    def _names_part_of(self, resource: str) -> bool:
        """Check whether the rule may differ between resources below a folder.

        An answer for the folder is one for everything below it. A pattern differs
        unless it holds for all of that, or if it can hold for none: its literal
        beginning, and the folder, are no beginnings of each other.
        """
        if not is_tree(resource):
            return False
        prefix = _below(reads_like(resource))
        if any(_below(one).startswith(prefix) for one in self.literals):
            return True
        for exact, alike in self.patterns:
            if len(exact) == 1:
                varies = _below(alike[0]).startswith(prefix)
            else:
                near = prefix.startswith(alike[0]) or alike[0].startswith(prefix)
                varies = near and not (exact[-1] == "" and matches(exact, resource))
            if varies:
                return True
        return False


def is_tree(resource: str) -> bool:
    """Check whether a resource is a folder with everything below it: ``file:/a/``.

    A URL that ends with a slash is one resource.
    """
    return resource.endswith("/") and "://" not in resource


def _below(folder: str) -> str:
    """Return how the folds of resources below the fold of a *folder* begin."""
    return folder if folder.endswith(":") else f"{folder}/"


def action_members(groups: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    """Return the scopes of each action: of a scope itself, of a group its members."""
    members = {
        scope: frozenset({scope}) for group in groups.values() for scope in group
    }
    return {**members, **{name: frozenset(group) for name, group in groups.items()}}


def admitted_actions(
    rule: pst.Template, members: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    """Return the scopes that the scope of *rule* admits."""
    match rule.action:
        case pst.ActionEq(entity):
            return frozenset({entity.id}) & members.get(entity.id, frozenset())
        case pst.ActionIn(entities):
            return frozenset().union(
                *(members.get(entity.id, frozenset()) for entity in entities)
            )
        case _:
            return frozenset().union(*members.values())


def read_by(rule: pst.Template) -> frozenset[str]:
    """Return the parameters that *rule* reads."""
    attributes = frozenset().union(*(_reads(clause.expr) for clause in rule.clauses))
    return attributes if named_ids(rule.resource) is None else attributes | {"resource"}


def nodes(node: object) -> Iterator[object]:
    """Yield *node* and every node of the syntax tree below it."""
    yield node
    for child in children(node):
        yield from nodes(child)


def children(node: Any) -> Iterator[object]:
    """Yield the parts of a node of the syntax tree."""
    for name in part_names(type(node)):
        value = getattr(node, name)
        if isinstance(value, Mapping):
            value = tuple(value.values())
        yield from value if isinstance(value, tuple) else (value,)


def part_names(kind: type[Any]) -> tuple[str, ...]:
    """List the names of the parts that nodes of a *kind* have; others have none."""
    if (part_types := _PARTS.get(kind)) is None:
        names = tuple(one.name for one in fields(kind)) if is_dataclass(kind) else ()
        part_types = _PARTS[kind] = names
    return part_types


_PARTS: Final[dict[type[Any], tuple[str, ...]]] = {}
"""`dataclasses.fields` costs more than the rest of a walk."""


def _reads(node: object) -> frozenset[str]:
    match node:
        case pst.GetAttr(pst.Var("context"), attr):
            return READABLE & {attr}
        case pst.HasAttr(pst.Var("context"), attrs):
            return READABLE & {attrs[0]}
        case pst.Var("context"):
            return READABLE
        case pst.Var("resource"):
            return frozenset({"resource"})
        case _:
            return frozenset().union(*map(_reads, children(node)))


def named_ids(constraint: object) -> frozenset[str] | None:
    """Return the ids a scope names; our entities have no parents."""
    match constraint:
        case (
            pst.ScopeEq(pst.EntityUid(_, name))
            | pst.ScopeIn(pst.EntityUid(_, name))
            | pst.ScopeIsIn(_, pst.EntityUid(_, name))
        ):
            return frozenset({name})
        case _:
            return None


def _compared(rule: pst.Template) -> tuple[set[str], list[tuple[str, ...]], bool]:
    """Return the resources that *rule* compares: names, patterns, the agent's own."""
    names = set(named_ids(rule.resource) or ())
    patterns: list[tuple[str, ...]] = []
    by_principal = False
    for clause in rule.clauses:
        for node in nodes(clause.expr):
            if "resource" not in _reads(node):
                continue
            if isinstance(node, pst.Like):
                patterns.append(pattern_parts(node.pattern))
            elif isinstance(node, pst.Is) or (
                isinstance(node, pst.BinaryOp) and node.op not in _JOINS
            ):
                for inner in nodes(node):
                    match inner:
                        case pst.StringLit(value):
                            names.add(value)
                        case pst.EntityLit(entity):
                            names.add(entity.id)
                        case pst.GetAttr(pst.Var("principal"), attr):
                            by_principal |= attr in _OF_PRINCIPAL
    return names, patterns, by_principal


def pattern_parts(pattern: Collection[object]) -> tuple[str, ...]:
    """Cut a ``like`` pattern at its wildcards."""
    parts = [""]
    for element in pattern:
        if isinstance(element, pst.Char):
            parts[-1] += element.value
        else:
            parts.append("")
    return tuple(parts)


def matches(parts: tuple[str, ...], text: str) -> bool:
    """Match *text* against a pattern cut at its wildcards, in linear time."""
    first, *rest = parts
    if not rest:
        return text == first
    if not text.startswith(first):
        return False
    place, last = len(first), rest.pop()
    for part in rest:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return len(text) - place >= len(last) and text.endswith(last)
