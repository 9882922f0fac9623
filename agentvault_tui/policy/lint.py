"""Finds what Cedar accepts although it can never match, or not as it reads.

Cedar's validator calls these warnings and cedarpy does not pass warnings on, so a
misspelt ``has``, scope or currency would be a rule that silently never matches.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cedarpy
from cedarpy import pst

from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.facts import CURRENCY, LARGEST, PARAMETERS
from agentvault_tui.policy.reads import Reader, children, nodes
from agentvault_tui.policy.resources import canonical
from agentvault_tui.policy.rules import ANNOTATIONS, Obligation, Rule
from agentvault_tui.text import visible

_ATTRIBUTES: Final = {
    "context": PARAMETERS | {"scopes", "performs", "unclear"},
    "principal": frozenset({"name", "owner", "scopes"}),
    "resource": frozenset(),
    "action": frozenset(),
}
_LEAST: Final = {"amount": 0, "count": 0, "recipients": 1}
_MIRRORED: Final = {
    "less": "greater",
    "less_eq": "greater_eq",
    "greater": "less",
    "greater_eq": "less_eq",
}
_SETS: Final = frozenset({"contains", "contains_all", "contains_any"})
_STRICTNESS: Final = (Obligation.ALLOW, Obligation.STEP_UP, Obligation.DENY)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one rule, and where it starts."""

    line: int
    rule: str
    what: str
    misspelt: bool
    """It cannot mean what it says, so no policy with it is put in force."""


def problems(
    rules: Sequence[Rule],
    readers: Sequence[Reader],
    catalogue: Catalogue,
    agents: Collection[str] | None = None,
) -> list[Problem]:
    """Look through *rules*, in the order of the file.

    Args:
        rules: the rules.
        readers: what each applies to and reads.
        catalogue: the scopes there are.
        agents: ids of the registered agents, if they are known.

    Returns:
        What is misspelt, and what is constant, hidden by another rule or about an
        agent that is not registered.
    """
    found: list[Problem] = []
    for index, rule in enumerate(rules):

        def say(what: str, *, misspelt: bool = False, rule: Rule = rule) -> None:
            found.append(Problem(rule.line, rule.id, what, misspelt))

        for what in _misspelt(rule.parsed, catalogue):
            say(what, misspelt=True)
        for what in _constant(rule.parsed):
            say(what)
        for name in _agents_named(rule.parsed) - set(agents or ()):
            if agents is not None and name.startswith("agt_"):
                say(f"no agent {visible(name, 60)} is registered")
        if hider := _hidden_by(index, rules, readers):
            say(
                f"it never decides: the rule {hider.id} on line {hider.line} covers"
                " all of it without a condition"
            )
    return found


def _misspelt(rule: pst.Template, catalogue: Catalogue) -> Iterator[str]:
    """Yield what names something the broker never sends."""
    for note in rule.annotations:
        near = difflib.get_close_matches(note, ANNOTATIONS, n=1)
        if note not in ANNOTATIONS and near:
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


def _misspelt_node(node: Any, catalogue: Catalogue) -> Iterator[str]:
    match node:
        case pst.HasAttr(pst.Var(name), (attr, *_)):
            known = _ATTRIBUTES[name]
            if attr not in known:
                yield f"{name} never has {visible(attr, 60)}{_near(attr, known)}"
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


def _vocabulary(node: Any, catalogue: Catalogue) -> _Vocabulary | None:
    """Return the words *node* can stand for, or the name of what they must be."""
    match node:
        case pst.GetAttr(pst.Var("context"), "performs" | "scopes") | pst.GetAttr(
            pst.Var("principal"), "scopes"
        ):
            return frozenset(scope.name for scope in catalogue)
        case pst.GetAttr(pst.Var("context"), "unclear"):
            return PARAMETERS
        case pst.GetAttr(pst.Var("context"), "currency" | "resource" as name):
            return name
        case pst.Set(elements):
            found = [_vocabulary(element, catalogue) for element in elements]
            return next((words for words in found if words is not None), None)
        case _:
            return None


def _texts(node: Any) -> Iterator[str]:
    match node:
        case pst.StringLit(value):
            yield value
        case pst.Set(elements):
            for element in elements:
                yield from _texts(element)


def _not_in(vocabulary: _Vocabulary, text: str) -> str | None:
    """Say why the broker never sends *text* there, if it does not."""
    shown = visible(text, 60)
    if vocabulary == "resource":
        return _not_canonical(text)
    if vocabulary == "currency":
        if CURRENCY.fullmatch(text):
            return None
        return f'"{shown}" is no currency: three capital letters, such as USD'
    if text in vocabulary:
        return None
    return f'"{shown}" is never sent there{_near(text, vocabulary)}'


def _not_canonical(text: str) -> str | None:
    form = canonical(text)
    if form == text:
        return None
    better = f': it is "{visible(form, 60)}"' if form else ""
    return f'no resource is ever spelt "{visible(text, 60)}"{better}'


def _misspelt_pattern(vocabulary: _Vocabulary, pattern: Sequence[Any]) -> Iterator[str]:
    shown = "".join(
        element.value if isinstance(element, pst.Char) else "*" for element in pattern
    )
    if vocabulary == "resource":
        # What a wildcard stands for cannot make up for the rest.
        plain = [shown.replace("*", stands) for stands in ("x", "1")]
        if all(canonical(text) != text for text in plain):
            yield f'no resource is ever like "{visible(shown, 60)}"'
    elif vocabulary == "currency":
        letters = shown.replace("*", "")
        if len(letters) > 3 or not (letters.isascii() and letters.upper() == letters):
            yield f'no currency is like "{visible(shown, 60)}": three capital letters'
    elif not any(_like(pattern, word) for word in vocabulary):
        yield f'nothing that is sent there is like "{visible(shown, 60)}"'


def _like(pattern: Sequence[Any], text: str) -> bool:
    expression = pst.Like(pst.StringLit(text), tuple(pattern))
    return _evaluated(expression) is True


def _out_of_range(node: Any) -> Iterator[str]:
    """Yield comparisons of a parameter that every number it can be answers alike."""
    if not isinstance(node, pst.BinaryOp):
        return
    op: str = node.op
    left, right = node.left, node.right
    match left, right:
        case pst.LongLit(), pst.GetAttr(pst.Var("context")):
            left, right, op = right, left, _MIRRORED.get(op, op)
        case _:
            pass
    match left, right:
        case pst.GetAttr(pst.Var("context"), name), pst.LongLit(bound):
            if name in _LEAST:
                least, most = _LEAST[name], LARGEST
                answers = {_compare(op, least, bound), _compare(op, most, bound)}
                outside = op in {"eq", "not_eq"} and not least <= bound <= most
                if outside or (op in {*_MIRRORED} and len(answers) == 1):
                    says = _compare(op, least, bound)
                    yield (
                        f"the comparison of context.{name} with {bound} is always"
                        f" {str(says).lower()}: it is {least} to {most}"
                    )


def _compare(op: str, value: int, bound: int) -> bool | None:
    match op:
        case "less":
            return value < bound
        case "less_eq":
            return value <= bound
        case "greater":
            return value > bound
        case "greater_eq":
            return value >= bound
        case "eq":
            return value == bound
        case "not_eq":
            return value != bound
    return None


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


def _constant_parts(node: Any) -> Iterator[Any]:
    """Yield the largest parts without a variable that are operands of a condition."""
    for child in children(node):
        logical = isinstance(node, pst.BinaryOp) and node.op in {"and", "or"}
        if isinstance(child, pst.BoolLit) and not logical:
            continue
        if _evaluated(child) is None:
            yield from _constant_parts(child)
        else:
            yield child


def _evaluated(node: Any) -> bool | None:
    """Return what Cedar makes of a condition without variables; nothing for others."""
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


def _agents_named(rule: pst.Template) -> set[str]:
    return {uid.id for uid in pst.entity_uids(rule) if str(uid.type) == "Agent"}


def _hidden_by(
    index: int, rules: Sequence[Rule], readers: Sequence[Reader]
) -> Rule | None:
    """Return a rule without conditions that decides wherever this one matches.

    A rule that reads a parameter is never hidden: it holds requests that are unclear.
    """
    mine, reader = rules[index], readers[index]
    if not reader.actions or (reader.reads and reader.resources is None):
        return None
    for place, other in enumerate(rules):
        theirs = readers[place]
        stricter = _STRICTNESS.index(other.obligation) - _STRICTNESS.index(
            mine.obligation
        )
        if (
            place != index
            and not other.parsed.clauses
            and (stricter > 0 or (stricter == 0 and place < index))
            and reader.actions <= theirs.actions
            and _covers(theirs.principals, reader.principals)
            and _covers(theirs.resources, reader.resources)
        ):
            return other
    return None


def _covers(wide: frozenset[str] | None, narrow: frozenset[str] | None) -> bool:
    return wide is None or (narrow is not None and narrow <= wide)


def _near(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f": {near[0]}?" if near else ""
