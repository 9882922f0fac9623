"""Explains an answer by deciding variations of the request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from agentvault_tui.model import Action, Agent, Verdict
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.facts import ADDRESSED, LARGEST, Facts, derive, plain_name
from agentvault_tui.policy.ruling import UNCLEAR
from agentvault_tui.text import visible

Decide = Callable[[Agent, Action], Verdict]

_NUMBERS: Final = ("recipients", "amount", "count")
_VALID: Final = {"currency": "USD", "destinations": ["acme.test"]}
"""A valid value of parameters that are no numbers."""
_NOTHING: Final = (
    "Nothing in the request or the grant changes this: only the policy does, or the"
    " scope's risk or effect in the catalogue."
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict, its place in the policy, and the changes that would alter it."""

    verdict: Verdict
    source: str
    """The deciding rule as its author wrote it; empty when no rule decided."""
    line: int | None
    """Where that rule starts in the policy's file."""
    would_change: tuple[str, ...]
    """Whole sentences; each was tried."""


def would_change(
    decide: Decide, catalogue: Catalogue, agent: Agent, action: Action
) -> tuple[str, ...]:
    """Return sentences that each name one change and its answer."""
    verdict = decide(agent, action)
    sentences: list[str] = []
    for change, other in _variations(decide, catalogue, agent, action, verdict):
        if _answer(other) != _answer(verdict):
            sentence = f"{change}, the answer would be {_outcome(other)}."
            if sentence not in sentences:
                sentences.append(sentence)
    return tuple(sentences) or (_NOTHING,)


def _variations(
    decide: Decide, catalogue: Catalogue, agent: Agent, action: Action, now: Verdict
) -> Iterator[tuple[str, Verdict]]:
    missing = [
        name
        for name in dict.fromkeys((action.action, *action.scopes))
        if name not in agent.scopes and name in catalogue
    ]
    if missing:
        granted = replace(agent, scopes=tuple(sorted({*agent.scopes, *missing})))
        yield f"With {', '.join(missing)} granted", decide(granted, action)
    facts = derive(action)
    given = facts.context()
    for name in _NUMBERS:

        def answer(value: int, name: str = name) -> Verdict:
            return decide(agent, _with(action, name, value))

        yield from _numbers(answer, name, given.get(name), now)
    if facts.unclear:
        names = ", ".join(facts.unclear)
        mended = _mended(action, facts)
        yield f"With {names} given so that it can be read", decide(agent, mended)
    if now.reason == UNCLEAR:
        # Which of its words a rule would let pass is not known: one is tried.
        if facts.currency is None:
            named = _with(action, "currency", "USD")
            yield "With currency given, such as USD", decide(agent, named)
        named = _on(action, "another:resource")
        yield (
            "With another resource named, such as another:resource",
            decide(agent, named),
        )
    others = list(dict.fromkeys((action.action, *action.scopes)))
    for name in others if len(others) > 1 else ():
        rest = tuple(other for other in others if other != name)
        fewer = replace(action, scopes=rest, action=rest[0])
        yield f"Without {visible(name, 80)} in the request", decide(agent, fewer)
    if action.resource is not None:
        yield "Without a resource", decide(agent, replace(action, resource=None))


def _numbers(
    answer: Callable[[int], Verdict], name: str, given: int | None, now: Verdict
) -> Iterator[tuple[str, Verdict]]:
    """Vary one number, and find where the answer changes."""
    least = answer(1)
    if _answer(least) != _answer(now):
        if given is None:
            bound = _turn(answer, 1, LARGEST)
            reach = "" if bound is None else f" of at most {bound}"
            looser = least.outcome.strictness < now.outcome.strictness
            if looser:
                yield f"With {name} given as a whole number{reach}", least
        elif given > 1:
            yield f"With {name} of at most {_turn(answer, 1, given)}", least
    start = given or 1
    if given is not None or _answer(least) == _answer(now):
        bound = _turn(answer, start, LARGEST)
        if bound is not None:
            yield f"With {name} of {bound + 1} or more", answer(bound + 1)


def _turn(answer: Callable[[int], Verdict], low: int, high: int) -> int | None:
    """Return the last number from *low* on that is answered as *low* is.

    Rules compare numbers with a bound, so halving finds it; nothing if there is none.
    """
    as_low = _answer(answer(low))
    if _answer(answer(high)) == as_low:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _answer(answer(middle)) == as_low:
            low = middle
        else:
            high = middle
    return low


def _with(action: Action, name: str, value: object) -> Action:
    """Return *action* with one parameter set and no contradiction."""
    others = {
        key: old
        for key, old in action.parameters.items()
        if (plain := plain_name(key)) != name.replace("_", "")
        and not (name == "recipients" and plain in ADDRESSED)
    }
    return replace(action, parameters={**others, name: value})


def _on(action: Action, resource: str | None) -> Action:
    """Return *action* on another resource, without contradiction."""
    others = {k: v for k, v in action.parameters.items() if plain_name(k) != "resource"}
    return replace(action, resource=resource, parameters=others)


def _mended(action: Action, facts: Facts) -> Action:
    """Return *action* with a valid value for each unclear parameter."""
    for name in facts.unclear:
        if name == "resource":
            action = _on(action, None)
        else:
            action = _with(action, name, _VALID.get(name, 1))
    if "amount_major" in action.parameters:  # which no request states
        del action.parameters["amount_major"]
    # What an unreadable amount hid: it has no currency either.
    return _with(action, "currency", "USD") if derive(action).unclear else action


def _answer(verdict: Verdict) -> tuple[str, str]:
    return verdict.outcome, verdict.reason


def _outcome(verdict: Verdict) -> str:
    return f"{verdict.outcome} (rule {verdict.rule})"
