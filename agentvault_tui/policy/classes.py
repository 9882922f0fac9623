"""Classes of requests that every rule answers alike, so that answers can be cached.

If rules only compare an amount with 1000, they answer 7 and 12 alike. So the key of a
cached answer has each attribute only as exactly as these rules compare it, and no
attribute that they do not read. If rules read an attribute in another way, the key has
its value; if they read the time like that, the answer is not cached, because the time
never comes again.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from cedarpy import pst

from agentvault_tui.clock import parse_iso
from agentvault_tui.policy.facts import PARAMETERS, Facts
from agentvault_tui.policy.inputs import ENVIRONMENT, Inputs
from agentvault_tui.policy.reads import children

_EQUALITY: Final = frozenset({"eq", "not_eq"})
_ORDER: Final = frozenset({"less", "less_eq", "greater", "greater_eq"})
_DECIMAL_ORDER: Final = frozenset(f"decimal_{name}" for name in _ORDER)
Distinguish = Callable[[Any], Hashable]


_READ: Final = PARAMETERS | ENVIRONMENT
_SOURCES: Final = 4096
"""The number of source addresses whose networks are cached."""


@dataclass(slots=True)
class _Use:
    """How rules use one attribute of a request."""

    literals: set[Any] = field(default_factory=set)
    """The constants that it is compared with."""
    otherwise: bool = False
    """It is used in some other way than in a comparison with a literal."""

    def distinguish(self) -> Distinguish:
        """Return a function that maps values to one if every rule treats them alike."""
        kinds = {type(literal) for literal in self.literals}
        if kinds and kinds <= _NETWORKS and not self.otherwise:
            return _in_networks(frozenset(self.literals))
        if self.otherwise or len(kinds) > 1:
            return lambda value: value
        if kinds == {str}:
            words = frozenset(self.literals)
            return lambda value: value if value in words else value is None
        bounds = sorted(self.literals)
        return lambda value: None if value is None else _interval(bounds, value)


@dataclass(frozen=True, slots=True)
class RequestClasses:
    """The differences that rules can see between requests for one scope."""

    by_principal: bool
    """Some rule names or reads the agent."""
    by_moment: bool
    """Some rule reads the time in a way that no two requests share."""
    attributes: tuple[tuple[str, Distinguish], ...]

    @classmethod
    def of(cls, rules: Iterable[pst.Template]) -> RequestClasses:
        """Analyse the parsed *rules* that apply to a scope."""
        uses: dict[str, _Use] = defaultdict(_Use)
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
            "now" in read and uses["now"].otherwise,
            tuple((name, uses[name].distinguish()) for name in sorted(read)),
        )

    def hidden(self, facts: Facts) -> tuple[str, ...]:
        """Return the names in `Facts.hidden` that rules read."""
        hidden = facts.hidden
        return hidden and tuple(n for n, _ in self.attributes if n in hidden)

    def key(self, inputs: Inputs) -> Hashable:
        """Return the same for two requests only if all rules answer them alike."""
        return (
            inputs.who if self.by_principal else None,
            inputs.facts.unclear,
            self.hidden(inputs.facts),
            *[distinguish(inputs.value(name)) for name, distinguish in self.attributes],
        )


def _note(node: object, uses: dict[str, _Use]) -> frozenset[str] | None:
    """Enter the uses of attributes in *node* into *uses*.

    Returns:
        the attributes it reads; None, when only nodes below it may read any.
    """
    match node:
        case pst.BinaryOp(op, left, right) if compared := (
            _compared(op, left, right) or _compared(op, right, left)
        ):
            attribute, literal = compared
            uses[attribute].literals.add(literal)
            return frozenset({attribute})
        case pst.HasAttr(pst.Var("context"), (name,)):
            return _READ & {name}
        case pst.GetAttr() if (context_name := attribute_of(node)) is not None:
            parameters = frozenset({context_name})
        case pst.GetAttr(pst.Var("context")):
            return frozenset()
        case pst.Var("context"):
            parameters = _READ
        case pst.Var("resource"):
            parameters = frozenset({"resource"})
        case _:
            return None
    for name in parameters:
        uses[name].otherwise = True
    return parameters


def attribute_of(node: object) -> str | None:
    """Return which attribute of the context *node* reads; limits' with their path."""
    match node:
        case pst.GetAttr(pst.Var("context"), name):
            return name if name in _READ else None
        case pst.GetAttr(pst.GetAttr(limits, limit), "count" | "left" as member):
            from_limits = attribute_of(limits) == "limits"
            return f"limits.{limit}.{member}" if from_limits else None
        case _:
            return None


def _compared(op: str, read: object, other: object) -> tuple[str, Any] | None:
    """Return the attribute *read* and the literal *other*, if *op* compares them."""
    ordered, name = op in _EQUALITY | _ORDER, attribute_of(read)
    literal: Any = None
    match other:
        case pst.LongLit(value) if ordered:
            literal = value
        case pst.StringLit(value) if op in _EQUALITY:
            literal = value
        case pst.UnaryOp("datetime", pst.StringLit(text)) if ordered:
            literal = _parsed(parse_iso, text)
        case pst.UnaryOp("decimal", pst.StringLit(text)) if (
            op in _EQUALITY | _DECIMAL_ORDER
        ):
            literal = Decimal(text)
        case pst.UnaryOp("ip", pst.StringLit(text)) if op == "is_in_range":
            literal = _parsed(lambda one: ipaddress.ip_network(one, strict=False), text)
    return None if name is None or literal is None else (name, literal)


def _parsed(reader: Callable[[str], Any], text: str) -> Any:
    try:
        return reader(text)
    except ValueError:
        return None


_NETWORKS: Final = {ipaddress.IPv4Network, ipaddress.IPv6Network}


def _in_networks(networks: frozenset[Any]) -> Distinguish:
    """Return a function that finds the networks of an address among *networks*."""

    @lru_cache(maxsize=_SOURCES)
    def network_of(source: str | None) -> Hashable:
        if source is None:
            return None
        address = ipaddress.ip_address(source)
        return frozenset(one for one in networks if address in one)

    return network_of


def _interval(bounds: list[Any], value: Any) -> tuple[int, int]:
    """Return between or on which of the sorted *bounds* the value lies."""
    return bisect_left(bounds, value), bisect_right(bounds, value)
