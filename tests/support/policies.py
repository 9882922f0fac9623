"""The shipped policy, and short words for asking it."""

from __future__ import annotations

from typing import Any

from agentvault_tui.model import Action, Agent, Outcome
from agentvault_tui.policy import Policy, shipped_catalogue, shipped_policy

CATALOGUE = shipped_catalogue()
SHIPPED = Policy(shipped_policy(), CATALOGUE)
NAMES = [scope.name for scope in CATALOGUE]


def action(*scopes: str, resource: Any = None, **parameters: Any) -> Action:
    return Action(scopes, scopes[0], resource, parameters)


def outcome(agent: Agent, *scopes: str, **parameters: Any) -> Outcome:
    return SHIPPED.decide(agent, action(*scopes, **parameters)).outcome
