"""Scopes, the actions that agents request under them, and policy's answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from agentvault_tui.model.money import Money

DETAIL_TYPE: Final = "agentvault:action"
"""The type of ``authorization_details`` (RFC 9396) that policy reads."""


class Risk(StrEnum):
    """How much damage one use can do."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """Order risks: 0 is the lowest."""
        return ("low", "medium", "high").index(self.value)


@dataclass(frozen=True, slots=True)
class Scope:
    """One action-level permission, such as ``send:payment``."""

    name: str
    """``verb:noun``, as on the wire."""
    description: str
    """The permission in plain words."""
    risk: Risk
    revoking: str
    """The effect of taking it away, and the part that stays."""


class Outcome(StrEnum):
    """The three answers there are."""

    ALLOWED = "allowed"
    DENIED = "denied"
    ESCALATED = "escalated"

    @property
    def strictness(self) -> int:
        """Order answers: of several scopes in one request the strictest counts."""
        return ("allowed", "escalated", "denied").index(self.value)


@dataclass(frozen=True, slots=True)
class Action:
    """The action that the agent wants; every text in it is untrusted."""

    scopes: tuple[str, ...]
    """Requested scopes, in the order asked."""
    action: str
    """The scope the action is performed under; the first one when none was named."""
    resource: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    """The agent's own words: never evidence, always shown last."""
    named: bool = True
    """Whether the request said which scope the action is performed under."""
    money: Money | None = None
    """How its amount is written; only a service's file says so, never an agent."""


def other_details(
    details: Iterable[Mapping[str, object]] | None,
) -> tuple[Mapping[str, object], ...]:
    """Return the ``authorization_details`` of types that policy does not read.

    Args:
        details: ``authorization_details``, if any were sent.

    Returns:
        those of foreign types.
    """
    return tuple([one for one in details or () if one.get("type") != DETAIL_TYPE])


def limits_nothing(
    resource: str | None,
    parameters: Mapping[str, object],
    others: Iterable[Mapping[str, object]],
    connection: str | None,
) -> bool:
    """Check whether only its scope limits the use of an action's token.

    An object of another type that says nothing but its type is no limit.

    Args:
        resource: the action's resource.
        parameters: its parameters.
        others: details of types that policy does not read.
        connection: the account it goes through.

    Returns:
        True when all of them are empty.
    """
    matched = any(len(one) > 1 for one in others)
    return not (resource or parameters or matched or connection)


def detail_members(details: Iterable[Mapping[str, object]]) -> list[tuple[str, object]]:
    """Return the members of *details*, one a row, for a person to read.

    Each name begins with its object's type, numbered where there are several objects.

    Args:
        details: ``authorization_details`` (RFC 9396 section 2).

    Returns:
        pairs of name and value.
    """
    objects = list(details)
    rows: list[tuple[str, object]] = []
    for number, one in enumerate(objects, start=1):
        mark = f"{one.get('type')}" + (f" #{number}" if len(objects) > 1 else "")
        members = [(n, value) for n, value in one.items() if n != "type"]
        rows += [(f"{mark}: {name}", value) for name, value in members]
        rows += [] if members else [(mark, {})]
    return rows


_NOTHING: Final[Mapping[str, Any]] = {}


class Verdict(NamedTuple):
    """Policy's answer to one request."""

    outcome: Outcome
    reason: str
    """A stable code, such as ``granted``, ``scope_not_granted``, ``policy_forbids``,
    ``stepup_required``."""
    rule: str
    """The ``@id`` of the deciding rule; ``default-deny`` when none matched."""
    why: str
    """The rule's ``@why``: the sentence the approver reads."""
    risk: Risk
    """The highest risk among the requested scopes."""
    message: str
    """``error_description``, for the agent's developer."""
    policy_version: str
    """Short hash of policy and catalogue."""
    escalating: tuple[str, ...] = ()
    """The requested scopes that need a person, each by itself."""
    counted: Mapping[str, Any] = _NOTHING
    """Its uses of limits once it is allowed, in the ledger's form."""
    retry_after: int | None = None
    """In how many seconds the same request would fit in the limits that stop it."""
    hooks: tuple[Mapping[str, object], ...] = ()
    """The webhooks' answers, in the ledger's form."""
    before: tuple[Outcome, str, str] | None = None
    """Outcome, reason and rule before a call-out made it stricter."""
    facts: Mapping[str, Any] = _NOTHING
    """All that it was made from, as the ledger keeps it; empty where nothing is
    recorded about it."""
