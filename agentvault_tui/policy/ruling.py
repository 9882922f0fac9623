"""The answer for one scope, and the message for the agent's developer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from agentvault_tui.model import Outcome, Verdict
from agentvault_tui.policy.facts import Facts
from agentvault_tui.text import visible

UNCLEAR: Final = "parameter_unclear"
"""The reason if a rule reads a fact that the request does not state clearly."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The answer for one scope of a request."""

    scope: str
    outcome: Outcome
    reason: str
    rule: str
    why: str
    unclear: tuple[str, ...] = ()
    """The facts that the rule reads and the request states unclearly, if they
    decided."""


_NEEDED = {
    "recipients": "a whole number from 1, or a list of plain addresses",
    "amount": "a whole number",
    "currency": "three capital letters such as USD",
    "count": "a whole number",
    "amount_major": "computed: the service's file states the unit, the currency is one"
    " of ISO 4217, and the request has no parameter of this name",
    "destinations": "a list of hosts in lower case, which all addresses are at",
    "resource": "named, and spelt as the policy's rules spell it",
    "source": "told to the broker, as a plain address",
    "country": "known to the broker",
}


def overruled(
    verdict: Verdict,
    outcome: Outcome,
    reason: str,
    why: str,
    *,
    rule: str,
    by: str,
    scopes: Iterable[str],
) -> Verdict:
    """Return *verdict* as a limit or a call-out, named by *rule*, makes it stricter."""
    denied = outcome is Outcome.DENIED
    then = "" if denied else " A person has to decide: poll with auth_req_id."
    return verdict._replace(
        outcome=outcome,
        reason=reason,
        rule=rule,
        why=why,
        message=f"{why} ({by}){then}",
        escalating=() if denied else tuple(scopes),
    )


def message(
    granted: Sequence[str],
    ruling: Ruling,
    rulings: Sequence[Ruling],
    facts: Facts,
) -> str:
    """Explain *ruling*, the strictest of *rulings*, to the agent's developer."""
    shown = visible(ruling.scope, 80)
    if ruling.reason == "scope_not_granted":
        return _not_granted(granted, rulings)
    if ruling.outcome is Outcome.DENIED:
        return f"{shown} is denied by the policy (rule {ruling.rule}): {ruling.why}"
    if ruling.outcome is Outcome.ESCALATED:
        unclear = dict.fromkeys((*ruling.unclear, *facts.unclear))
        hint = "".join(
            f" To be read, {name} must be {_NEEDED[name]}." for name in unclear
        )
        return f"{shown} needs a person's approval: {ruling.why}{hint}"
    return f"{shown} is granted."


def _not_granted(granted: Sequence[str], rulings: Sequence[Ruling]) -> str:
    missing = [
        str(visible(one.scope, 80))
        for one in rulings
        if one.reason == "scope_not_granted"
    ]
    has = visible(", ".join(granted) or "nothing", 400)
    return (
        f"Not granted to this agent: {visible(', '.join(missing), 400)}."
        f" Granted: {has}."
        " An operator has to decide whether to grant it."
    )
