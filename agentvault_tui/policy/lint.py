"""Finds rules that Cedar accepts although they can never match, or not as they read.

Cedar's validator calls these warnings and cedarpy does not pass warnings on, so a
misspelt ``has``, scope or currency would be a rule that silently never matches.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import cedarpy
from cedarpy import pst

from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.destinations import is_destination
from agentvault_tui.policy.facts import CURRENCY, LARGEST, PARAMETERS
from agentvault_tui.policy.inputs import ENVIRONMENT
from agentvault_tui.policy.reads import RuleReads, children, nodes
from agentvault_tui.policy.resources import canonical
from agentvault_tui.policy.rules import ANNOTATIONS, Obligation, PolicyRule
from agentvault_tui.text import visible

_ATTRIBUTES: Final = {
    "context": PARAMETERS | ENVIRONMENT | {"scopes", "performs", "unclear"},
    "principal": frozenset({"name", "owner", "scopes", "age_days"}),
    "resource": frozenset(),
    "action": frozenset(),
}
_RANGES: Final = {
    "amount": (0, LARGEST),
    "count": (0, LARGEST),
    "recipients": (1, LARGEST),
    "weekday": (1, 7),
    "hour": (0, 23),
    "minute": (0, 59),
    "depth": (0, LARGEST),
    "age_days": (0, LARGEST),
}
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "not_eq": operator.ne,
    "less": operator.lt,
    "less_eq": operator.le,
    "greater": operator.gt,
    "greater_eq": operator.ge,
    "contains": operator.contains,
}
_MIRRORED: Final = {
    "less": "greater",
    "less_eq": "greater_eq",
    "greater": "less",
    "greater_eq": "less_eq",
}
_CODES: Final[Mapping[object, tuple[re.Pattern[str], int, str]]] = {
    "currency": (CURRENCY, 3, "three capital letters, such as USD"),
    "country": (re.compile("[A-Z]{2}"), 2, "two capital letters, such as DE"),
}
_STRICTNESS: Final = (Obligation.ALLOW, Obligation.STEP_UP, Obligation.DENY)
_CONTRADICT: Final = "its conditions contradict each other, so the rule never matches"
_NEVER_DECIDES: Final = {
    Obligation.ALLOW: "{} never decides: {} allows everything it matches",
    Obligation.STEP_UP: (
        "{} never decides: {} asks a person for everything it matches"
    ),
}


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """A fault of one rule, and where the rule starts."""

    line: int
    rule: str
    what: str
    is_error: bool
    """Whether the rule can never match, or names something that does not exist.

    All others are warnings: the rule works, and says more than it does.
    """

    def __str__(self) -> str:
        """Return the fault as a sentence, with its place."""
        severity = "" if self.is_error else "warning: "
        named = self.what.startswith(f"{self.rule} ")
        rule = "" if named else f"the rule {self.rule}: "
        return f"line {self.line}: {severity}{rule}{self.what}"


def problems(
    rules: Sequence[PolicyRule],
    readers: Sequence[RuleReads],
    catalogue: Catalogue,
    agents: Collection[str] | None = None,
) -> list[PolicyProblem]:
    """List the faults of *rules*, in the order of the file.

    Args:
        rules: the rules of one policy.
        readers: the reads of each rule, in the same order.
        catalogue: the scopes that there are.
        agents: the ids of the registered agents, if they are known.

    Returns:
        errors (misspelt names, rules that can never match, agents that are not
        registered) and warnings (constant parts, rules that never decide).
    """
    results: list[PolicyProblem] = []
    for index, rule in enumerate(rules):
        errors, warnings = [*_misspelt(rule.parsed, catalogue)], list[str]()
        constant = [*_constant(rule.parsed)]
        if not _can_match(rule.parsed):
            errors += constant or [_CONTRADICT]
        else:
            warnings += constant or _impossible(rule.parsed)
        if agents is not None:
            errors += [
                f"no agent {visible(name, 60)} is registered"
                for name in sorted(_agents_named(rule.parsed) - {*agents})
                if name.startswith("agt_")
            ]
        if hider := _hidden_by(index, rules, readers):
            warnings.append(_NEVER_DECIDES[hider.obligation].format(rule.id, hider.id))
        results += [PolicyProblem(rule.line, rule.id, what, True) for what in errors]
        results += [PolicyProblem(rule.line, rule.id, what, False) for what in warnings]
    return results


def first_misspelt(
    rules: Sequence[PolicyRule], catalogue: Catalogue
) -> PolicyProblem | None:
    """Return the first problem for which *rules* must be refused."""
    for rule in rules:
        for what in _misspelt(rule.parsed, catalogue):
            return PolicyProblem(rule.line, rule.id, what, is_error=True)
    return None


def _misspelt(rule: pst.Template, catalogue: Catalogue) -> Iterator[str]:
    """Yield names that the broker never sends."""
    for note in sorted(rule.annotations.keys() - ANNOTATIONS):
        if near := difflib.get_close_matches(note, ANNOTATIONS, n=1):
            yield f"the annotation @{visible(note, 40)} is unknown: @{near[0]}?"
    for name in _agents_named(rule):
        if not name.startswith("agt_"):
            yield (
                f'no agent is called Agent::"{visible(name, 60)}": agents go by their'
                " id, agt_…; principal.name has the name"
            )
    for uid in pst.entity_uids(rule):
        if str(uid.type) == "Action" and uid.id == "nothing":
            yield 'Action::"nothing" is never asked for'
        if str(uid.type) == "Resource" and (what := _not_canonical(uid.id)):
            yield what
    for clause in rule.clauses:
        for node in nodes(clause.expr):
            yield from _misspelt_node(node, catalogue)


def _misspelt_node(node: object, catalogue: Catalogue) -> Iterator[str]:
    match node:
        case pst.HasAttr(pst.Var(name), (attr, *_)):
            attribute = _ATTRIBUTES[name]
            if attr not in attribute:
                yield f"{name} never has {visible(attr, 60)}{_near(attr, attribute)}"
        case pst.Like(base, pattern):
            if (vocabulary := _vocabulary(base, catalogue)) is not None:
                yield from _misspelt_pattern(vocabulary, pattern)
        case pst.BinaryOp(_, left, right):
            for side, other in ((left, right), (right, left)):
                vocabulary = _vocabulary(side, catalogue)
                for text in _texts(other) if vocabulary is not None else ():
                    if what := _not_in(vocabulary or "", text):
                        yield what


_Vocabulary = str | frozenset[str]


def _vocabulary(node: object, catalogue: Catalogue) -> _Vocabulary | None:
    """Return the words that *node* can be, or the name of their kind."""
    match node:
        case pst.GetAttr(pst.Var("context"), "performs" | "scopes") | pst.GetAttr(
            pst.Var("principal"), "scopes"
        ):
            return frozenset(scope.name for scope in catalogue)
        case pst.GetAttr(pst.Var("context"), "unclear"):
            return PARAMETERS
        case pst.GetAttr(
            pst.Var("context"),
            "currency" | "country" | "destinations" | "resource" as name,
        ):
            return name
        case pst.Set(elements):
            kinds = [_vocabulary(element, catalogue) for element in elements]
            return next((words for words in kinds if words is not None), None)
        case _:
            return None


def _texts(node: object) -> Iterator[str]:
    match node:
        case pst.StringLit(value):
            yield value
        case pst.Set(elements):
            for element in elements:
                yield from _texts(element)


def _not_in(vocabulary: _Vocabulary, text: str) -> str | None:
    """Say why *text* is never sent there; None if it is."""
    shown = visible(text, 60)
    if vocabulary == "resource":
        return _not_canonical(text)
    if vocabulary == "destinations":
        valid = is_destination(text)
        return None if valid else f'"{shown}" is no host or mail domain in lower case'
    if vocabulary in _CODES:
        form, _, wording = _CODES[vocabulary]
        return (
            None if form.fullmatch(text) else f'"{shown}" is no {vocabulary}: {wording}'
        )
    if text in vocabulary:
        return None
    return f'"{shown}" is never sent there{_near(text, vocabulary)}'


def _not_canonical(text: str) -> str | None:
    form = canonical(text)
    if form == text:
        return None
    better = f': it is "{visible(form, 60)}"' if form else ""
    return f'no resource is ever spelt "{visible(text, 60)}"{better}'


def _misspelt_pattern(
    vocabulary: _Vocabulary, pattern: Sequence[object]
) -> Iterator[str]:
    shown = "".join(
        element.value if isinstance(element, pst.Char) else "*" for element in pattern
    )
    if vocabulary == "resource":
        # What a wildcard stands for cannot make up for the rest.
        ways = ("x", "1", "https://x/x")
        plain = [shown.replace("*", stands) for stands in ways]
        if all(canonical(text) != text for text in plain):
            yield f'no resource is ever like "{visible(shown, 60)}"'
    elif vocabulary in _CODES:
        _, most, wording = _CODES[vocabulary]
        letters = shown.replace("*", "")
        if len(letters) > most or not re.fullmatch("[A-Z]*", letters):
            yield f'no {vocabulary} is like "{visible(shown, 60)}": {wording}'
    elif not any(_like(pattern, word) for word in vocabulary):
        yield f'nothing that is sent there is like "{visible(shown, 60)}"'


def _like(pattern: Sequence[Any], text: str) -> bool:
    expression = pst.Like(pst.StringLit(text), tuple(pattern))
    return _evaluated(expression) is True


def _out_of_range(node: object) -> Iterator[str]:
    """Yield comparisons that every possible number answers alike."""
    if not isinstance(node, pst.BinaryOp):
        return
    op: str = node.op
    left, right = node.left, node.right
    match left, right:
        case pst.LongLit(), pst.GetAttr(pst.Var("context" | "principal")):
            left, right, op = right, left, _MIRRORED.get(op, op)
        case _:
            pass
    match left, right:
        case pst.GetAttr(pst.Var("context" | "principal" as of), name), pst.LongLit(
            bound
        ):
            if name in _RANGES and op in _COMPARISONS:
                (least, most), compare = _RANGES[name], _COMPARISONS[op]
                answers = {compare(least, bound), compare(most, bound)}
                outside = op in {"eq", "not_eq"} and not least <= bound <= most
                if outside or (op in {*_MIRRORED} and len(answers) == 1):
                    says = compare(least, bound)
                    yield (
                        f"the comparison of {of}.{name} with {bound} is always"
                        f" {str(says).lower()}: it is {least} to {most}"
                    )


def _can_match(rule: pst.Template) -> bool:
    """Check whether any request can match *rule*."""
    answers = [
        (_evaluated(one.expr), isinstance(one, pst.When)) for one in rule.clauses
    ]
    constant = any(answer is not None and answer is not w for answer, w in answers)
    return not constant and _can_hold(_condition(rule))


def _condition(rule: pst.Template) -> Any:
    """Return the one condition under which the clauses of *rule* hold."""
    joined: Any = pst.BoolLit(True)
    for clause in rule.clauses:
        when = isinstance(clause, pst.When)
        held = clause.expr if when else pst.UnaryOp("not", clause.expr)
        joined = pst.BinaryOp("and", joined, held)
    return joined


def _constant(rule: pst.Template) -> Iterator[str]:
    """Yield conditions that no request can change."""
    for clause in rule.clauses:
        for node in nodes(clause.expr):
            yield from _out_of_range(node)
        word = "when" if isinstance(clause, pst.When) else "unless"
        answer = _evaluated(clause.expr)
        if answer is None:
            for node in _constant_parts(clause.expr):
                yield f"a part of {word} is always {str(_evaluated(node)).lower()}"
        elif answer is isinstance(clause, pst.When):
            yield f"{word} is always {str(answer).lower()}, so it makes no difference"
        else:
            yield f"{word} is always {str(answer).lower()}, so the rule never matches"


def _impossible(rule: pst.Template) -> list[str]:
    """List the parts of conditions that can never hold."""
    return [
        f"a part of {'when' if isinstance(clause, pst.When) else 'unless'} contradicts"
        " itself, so it is always false"
        for clause in rule.clauses
        for _ in _impossible_parts(clause.expr)
    ]


def _constant_parts(node: object) -> Iterator[object]:
    """Yield the largest parts without a variable that are operands of a condition."""
    for child in children(node):
        logical = isinstance(node, pst.BinaryOp) and node.op in {"and", "or"}
        if isinstance(child, pst.BoolLit) and not logical:
            continue
        if _evaluated(child) is None:
            yield from _constant_parts(child)
        else:
            yield child


def _evaluated(node: object) -> bool | None:
    """Evaluate a condition without variables; None for others."""
    if isinstance(node, pst.BoolLit):
        return node.value
    if not isinstance(node, pst.BinaryOp | pst.UnaryOp | pst.Like | pst.IfThenElse):
        return None
    if any(isinstance(inner, pst.Var) for inner in nodes(node)):
        return None
    anything = pst.ScopeAny()
    template = pst.Template(
        "p", "permit", anything, anything, anything, (pst.When(node),), {}
    )
    policies = cedarpy.PolicySet.from_pst(pst.PolicySet({}, {"p": template}, ()))
    request = {"principal": 'A::"a"', "action": 'Action::"a"', "resource": 'A::"a"'}
    result = cedarpy.is_authorized(request, policies, [])
    if result.diagnostics.errors:
        return None
    return result.decision is cedarpy.Decision.Allow


_MOST_TRIED: Final = 4_000
"""Combinations of values that are tried for one condition."""
_ABSENT: Final = object()
_OTHER: Final = object()
"""A value that is equal to none of the constants."""
_VARIABLE: Final = (pst.Var, pst.GetAttr)


def _impossible_parts(node: object) -> Iterator[object]:
    """Yield the largest conditions in *node* that can never hold."""
    if isinstance(node, pst.BinaryOp | pst.UnaryOp) and not _can_hold(node):
        yield node
    else:
        for child in children(node):
            yield from _impossible_parts(child)


def _can_hold(condition: object) -> bool:
    """Check whether any request can meet *condition*, by trying the relevant values.

    A value that is compared with constants takes each of them, the numbers next to
    them, the ends of its range, another value, and none. Of all else anything is
    possible.
    """
    tried = _values_to_try(condition)
    if math.prod(map(len, tried.values())) > _MOST_TRIED:
        return True
    return any(
        _truth(condition, dict(zip(tried, values, strict=True))) is not False
        for values in product(*tried.values())
    )


def _values_to_try(condition: Any) -> dict[Any, set[Any]]:
    """Return the values to try for each attribute of *condition*."""
    tried: dict[Any, set[Any]] = {}
    for node in nodes(condition):
        match node:
            case pst.HasAttr(pst.Var() as base, (attr,)):
                tried.setdefault(pst.GetAttr(base, attr), {_OTHER}).add(_ABSENT)
            case pst.BinaryOp(op, left, right) if op in _COMPARISONS:
                sides = ((left, right), (right, left))
                for side, other in sides[op == "contains" :]:
                    if isinstance(side, _VARIABLE):
                        tried_values = tried.setdefault(side, {_OTHER})
                        tried_values |= _constants(other, spread=op == "contains")
    for side, values in tried.items():
        numbers = {value for value in values if isinstance(value, int)}
        if numbers and (ends := _RANGES.get(getattr(side, "attr", ""))):
            beside = {number + step for number in numbers for step in (-1, 0, 1)}
            possible = {n for n in beside if ends[0] <= n <= ends[1]}
            values.symmetric_difference_update({_OTHER} | numbers)
            values.update({*ends} | possible)
    return tried


def _constants(node: object, *, spread: bool) -> set[object]:
    match node:
        case pst.LongLit(value) | pst.StringLit(value) | pst.EntityLit(value):
            return {value}
        case pst.Set(elements) if spread:
            return set().union(*(_constants(one, spread=False) for one in elements))
        case _:
            return set()


def _truth(node: object, given: Mapping[object, object]) -> bool | None:
    """Evaluate a condition for *given* values; None if it depends on others."""
    match node:
        case pst.BoolLit(value):
            return bool(value)
        case pst.UnaryOp("not", inner):
            outcome = _truth(inner, given)
            return None if outcome is None else not outcome
        case pst.BinaryOp("and" | "or" as op, left, right):
            both = {_truth(left, given), _truth(right, given)}
            decides = op == "or"
            return decides if decides in both else None if None in both else not decides
        case pst.IfThenElse(condition, then, otherwise):
            outcome = _truth(condition, given)
            answers = {_truth(then, given), _truth(otherwise, given)}
            if outcome is not None:
                return _truth(then if outcome else otherwise, given)
            return answers.pop() if len(answers) == 1 else None
        case pst.HasAttr(pst.Var() as base, (attr,)):
            return given[pst.GetAttr(base, attr)] is not _ABSENT
        case pst.BinaryOp(op, left, right) if op in _COMPARISONS:
            one, other = _value_of(left, given), _value_of(right, given)
            if op == "contains":
                comparable = isinstance(one, frozenset)
            else:
                ordered = isinstance(one, int) and isinstance(other, int)
                comparable = ordered or op in {"eq", "not_eq"}
            between = isinstance(left, _VARIABLE) and isinstance(right, _VARIABLE)
            if one is None or other is None or between or not comparable:
                return None
            return _COMPARISONS[op](one, other)
        case _:
            return None


def _value_of(node: object, given: Mapping[object, object]) -> object:
    """Return the value of an operand; None if it is unknown."""
    match node:
        case pst.LongLit(value) | pst.StringLit(value) | pst.EntityLit(value):
            return value
        case pst.Set(elements):
            values = frozenset(_value_of(element, given) for element in elements)
            return None if None in values else values
        case pst.Var() | pst.GetAttr():
            truth = given.get(node)
            return None if truth is _ABSENT else truth
        case _:
            return None


def _agents_named(rule: pst.Template) -> set[str]:
    return {uid.id for uid in pst.entity_uids(rule) if str(uid.type) == "Agent"}


def _hidden_by(
    index: int, rules: Sequence[PolicyRule], readers: Sequence[RuleReads]
) -> PolicyRule | None:
    """Find a rule that decides wherever this one matches.

    A forbid is never that rule: an emergency forbid above other rules is not their
    fault. One that allows hides no rule that reads a parameter, because such a rule
    holds requests that are unclear.
    """
    mine, reader = rules[index], readers[index]
    if not reader.actions:
        return None
    for place, other in enumerate(rules):
        theirs = readers[place]
        stricter = _STRICTNESS.index(other.obligation) - _STRICTNESS.index(
            mine.obligation
        )
        clear = reader.resources is not None or not reader.reads
        if (
            place != index
            and other.obligation in _NEVER_DECIDES
            and (stricter > 0 or (stricter == 0 and place < index))
            and (other.obligation is Obligation.STEP_UP or clear)
            and reader.actions <= theirs.actions
            and _covers(theirs.principals, reader.principals)
            and _covers(theirs.resources, reader.resources)
            and _implies(mine.parsed, other.parsed)
        ):
            return other
    return None


def _implies(narrow: pst.Template, wide: pst.Template) -> bool:
    """Check whether the conditions of *wide* hold wherever those of *narrow* do."""
    if not wide.clauses:
        return True
    wider, narrower = _condition(wide), _condition(narrow)
    # A cheap test first: a policy has thousands of pairs of rules.
    if not _values_to_try(wider).keys() <= _values_to_try(narrower).keys():
        return False
    return not _can_hold(pst.BinaryOp("and", narrower, pst.UnaryOp("not", wider)))


def _covers(wide: frozenset[str] | None, narrow: frozenset[str] | None) -> bool:
    return wide is None or (narrow is not None and narrow <= wide)


def _near(word: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(word, names, n=1)
    return f": {near[0]}?" if near else ""
