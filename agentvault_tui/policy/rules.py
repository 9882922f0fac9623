"""Reads a Cedar policy: its rules, their annotations, and the line of a fault."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import cedarpy
from cedarpy import pst

from agentvault_tui.errors import PolicyError
from agentvault_tui.policy.reads import nodes, read_by
from agentvault_tui.text import visible

MAX_RULE: Final = 8_000
MAX_RULES: Final = 500
_MAX_DEPTH: Final = 32
"""Cedar's parser follows brackets on the C stack; about 600 of them end the process."""
_MAX_OPERATORS: Final = 1_000
"""Characters of operators a rule may hold: its syntax tree is built by recursion."""
_OPERATORS: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|([-+*.!&|])', re.DOTALL)
_MAX_COMMAS: Final = 1_000
"""Commas a rule may hold: Cedar parses a set of 2,000 in one step of 30 ms."""
_MAX_MARKS: Final = 10_000
"""Commas and operators of a whole policy: Cedar validates it in one step, which no
other request can interrupt."""
_MAX_WHY: Final = 300
_ID: Final = re.compile(r"(?:advice:)?[a-z0-9]+(?:[_-][a-z0-9]+)*")
_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|[()\[\]{};,+*.!&|-]', re.DOTALL)
_UNFINISHED: Final = "unexpected end of input"

ANNOTATIONS: Final = frozenset({"id", "why", "obligation", "optional"})
DEFAULT_DENY: Final = "default-deny"
POLICY_ERROR: Final = "policy-error"
UNREAD_DETAILS: Final = "unread-details"
RESERVED: Final = frozenset({DEFAULT_DENY, POLICY_ERROR, UNREAD_DETAILS})
"""Rule ids the broker itself answers with."""


class Obligation(StrEnum):
    """The answer if a rule matches."""

    ALLOW = "allow"
    STEP_UP = "step_up"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One Cedar policy, as its author wrote it."""

    id: str
    why: str
    obligation: Obligation
    line: int
    source: str
    parsed: pst.Template
    optional: frozenset[str]
    """The facts it reads that a request need not state (``@optional``)."""


@dataclass(frozen=True, slots=True)
class _Piece:
    line: int
    text: str


def read_rules(
    text: str, source: str, schema: cedarpy.Schema, limits: frozenset[str]
) -> tuple[cedarpy.PolicySet, tuple[PolicyRule, ...]]:
    """Parse and validate a policy; *source* names it in errors.

    *limits* are the names of the limits that rules may read.

    Raises:
        PolicyError: with the line, the fault and its remedy.
    """
    pieces = list(_split(text, source))
    if not pieces:
        raise PolicyError(
            f"{source} holds no rules",
            "write at least one permit, or remove the file to use the shipped policy",
        )
    if len(pieces) > MAX_RULES:
        raise PolicyError(f"{source} holds more than {MAX_RULES} rules")
    rules = tuple(_rule(piece, source) for piece in pieces)
    seen: dict[str, int] = {}
    for rule in rules:
        if rule.id in seen:
            raise PolicyError(
                f"{source} line {rule.line}: a second rule has the id {rule.id}, as on"
                f" line {seen[rule.id]}",
                "give each rule its own @id",
            )
        seen[rule.id] = rule.line
    policies = cedarpy.PolicySet.from_str(text)
    if len(policies) != len(rules):
        # Positions name the rules in Cedar's answers, so they must agree.
        raise PolicyError(f"{source} cannot be divided into its rules")
    for rule in rules:
        _check_limits(rule, source, limits)
    _validate(text, source, schema, rules)
    return policies, rules


@lru_cache(maxsize=8)
def parse_schema(text: str) -> cedarpy.Schema:
    """Parse a schema (5 ms), which all policies over one catalogue share."""
    return cedarpy.Schema.from_str(text)


def position(policy_id: str) -> int:
    """Return which rule Cedar's positional ``policy7`` is."""
    return int(policy_id.removeprefix("policy"))


def _split(text: str, source: str) -> Iterator[_Piece]:
    """Cut *text* at the semicolons that end its policies, and bound each piece."""
    start = depth = commas = marks = 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth -= 1
        elif mark in ",+*.!&|-":
            commas, marks = commas + (mark == ","), marks + 1
        if excess := _excess(depth, commas, marks):
            line = text.count("\n", 0, token.start()) + 1
            raise PolicyError(f"{source} line {line}: {excess}", "divide the rule")
        if mark == ";":
            yield _piece(text, start, token.end(), source)
            start, depth, commas = token.end(), 0, 0
    if re.sub(r"//[^\n]*", "", text[start:]).strip():
        yield _piece(text, start, len(text), source)


def _excess(depth: int, commas: int, marks: int) -> str:
    """Return the bound that a rule or the policy exceeds; empty if there is none."""
    if depth > _MAX_DEPTH:
        return f"brackets nest more than {_MAX_DEPTH} deep"
    if commas > _MAX_COMMAS:
        return f"a rule has more than {_MAX_COMMAS} commas"
    if marks > _MAX_MARKS:
        return f"the policy has more than {_MAX_MARKS} commas and operators"
    return ""


def _piece(text: str, start: int, end: int, source: str) -> _Piece:
    """Strip space and comments before the rule."""
    begin = start
    while skip := re.compile(r"\s+|//[^\n]*").match(text, begin, end):
        begin = skip.end()
    line = text.count("\n", 0, begin) + 1
    if end - begin > MAX_RULE:
        raise PolicyError(
            f"{source} line {line}: a rule is longer than {MAX_RULE} characters",
            "divide it",
        )
    return _Piece(line, text[begin:end])


def _rule(piece: _Piece, source: str) -> PolicyRule:
    """Parse one rule and its annotations."""

    def fault(what: str, remedy: str = "") -> PolicyError:
        return PolicyError(f"{source} line {piece.line}: {what}", remedy)

    error = _syntax_error(piece.text)
    if error is not None:
        line = piece.line + _failing_line(piece.text)
        raise PolicyError(
            f"{source} line {line}: {visible(error)}",
            "correct the rule; `agentvault policy check` tries it out",
        )
    parsed = _syntax_tree(piece.text)
    if parsed is None:
        raise fault(
            "the rule nests too deep to be analysed",
            'divide it, or write ["a", "b"].contains(…) for a chain of ||',
        )
    if parsed.templates or len(parsed.static_policies) != 1:
        raise fault("templates are not supported", "name a principal or a resource")
    (policy,) = parsed.static_policies.values()
    notes = dict(policy.annotations)
    rule_id = notes.get("id")
    if not rule_id:
        raise fault("the rule has no @id", '@id("payments-need-step-up"), for example')
    if len(rule_id) > 64 or not _ID.fullmatch(rule_id) or rule_id in RESERVED:
        raise fault(
            f"the @id {visible(rule_id, 80)} cannot be used",
            "lower-case words joined by - or _, at most 64 characters, not "
            + " or ".join(sorted(RESERVED)),
        )
    why = notes.get("why")
    if not why or not why.strip():
        raise fault(f"the rule {rule_id} has no @why", "say what the approver reads")
    if len(why) > _MAX_WHY or visible(why, _MAX_WHY * 2) != why:
        raise fault(
            f"the @why of {rule_id} is too long or holds hidden characters",
            f"write one line of at most {_MAX_WHY} characters",
        )
    obligation = _obligation(policy.effect, notes.get("obligation"), rule_id, fault)
    optional = _optional(policy, notes.get("optional"), obligation, fault)
    source = piece.text.strip()
    return PolicyRule(rule_id, why, obligation, piece.line, source, policy, optional)


def _syntax_tree(text: str) -> pst.PolicySet | None:
    """Return the syntax tree; None when the rule nests too deep."""
    if sum(map(bool, _OPERATORS.findall(text))) > _MAX_OPERATORS:
        return None
    try:
        return cedarpy.policies_to_pst(text)
    except ValueError:
        return None


def _optional(
    policy: pst.Template, noted: str | None, obligation: Obligation, fault: Any
) -> frozenset[str]:
    """Read ``@optional``: the facts that a request need not state."""
    if noted is None:
        return frozenset()
    if obligation is Obligation.ALLOW:
        raise fault(
            "@optional on a rule that allows",
            "only a step_up or forbid may leave a parameter open: it makes stricter",
        )
    names = frozenset(name.strip() for name in noted.split(","))
    if unknown := names - read_by(policy):
        raise fault(
            f"@optional names {visible(', '.join(sorted(unknown)), 80)}, which the"
            " rule does not read",
            '@optional("count"), for example',
        )
    return names


def _obligation(effect: str, noted: str | None, rule_id: str, fault: Any) -> Obligation:
    """Read ``@obligation``; a forbid needs none, because it can only deny."""
    if effect == "forbid":
        if noted in {None, Obligation.DENY}:
            return Obligation.DENY
        raise fault(
            f"the forbid rule {rule_id} has the @obligation {visible(noted, 60)}",
            "a forbid denies: leave the annotation out",
        )
    if noted is None:
        raise fault(
            f"the rule {rule_id} has no @obligation",
            '@obligation("allow") or @obligation("step_up")',
        )
    if noted not in {Obligation.ALLOW, Obligation.STEP_UP}:
        raise fault(
            f"the rule {rule_id} has the unknown @obligation {visible(noted, 60)}",
            "it may be allow or step_up; to deny, write forbid",
        )
    return Obligation(noted)


def _syntax_error(text: str) -> str | None:
    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        return str(error)
    return None


def _failing_line(text: str) -> int:
    """Return the offset of the first line that cannot be completed."""
    lines = text.splitlines(keepends=True)
    for number in range(1, len(lines)):
        if _syntax_error("".join(lines[:number])) not in {_UNFINISHED, None}:
            return number - 1
    return max(len(lines) - 1, 0)


def _check_limits(rule: PolicyRule, source: str, limits: frozenset[str]) -> None:
    """Refuse a rule that names a limit there is not."""
    for node in (one for clause in rule.parsed.clauses for one in nodes(clause.expr)):
        match node:
            case pst.GetAttr(pst.GetAttr(pst.Var("context"), "limits"), name) if (
                name not in limits
            ):
                near = difflib.get_close_matches(name, limits, n=1)
                raise PolicyError(
                    f"{source} line {rule.line}: the rule {rule.id} names the limit"
                    f" {visible(name, 60)}, which limits.toml lacks"
                    + (f": {near[0]}?" if near else ""),
                    "a limit's id is written with _ for - in a rule",
                )


def _validate(
    text: str, source: str, schema: cedarpy.Schema, rules: tuple[PolicyRule, ...]
) -> None:
    """Validate against the schema: a misspelt name would never match."""
    result = cedarpy.validate_policies(text, schema)
    if result.validation_passed:
        return
    first = min(result.errors, key=lambda fault: position(fault.policy_id or "policy0"))
    rule = rules[position(first.policy_id or "policy0")]
    message = re.sub(r"^for policy `policy\d+`, ", "", first.error)
    raise PolicyError(
        f"{source} line {rule.line}: the rule {rule.id} does not fit the schema"
        f" ({visible(message)})",
        "`agentvault policy check` tries a file out before it is put in place",
    )
