"""The shipped policy, and short words for asking it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agentvault_tui.model import Action, Agent, Outcome
from agentvault_tui.policy import (
    Environment,
    Policy,
    shipped_catalogue,
    shipped_policy,
)

CATALOGUE = shipped_catalogue()
SHIPPED = Policy(shipped_policy(), CATALOGUE)
ENVIRONMENT = Environment.at(
    datetime(2026, 11, 27, 14, 30, tzinfo=UTC), UTC, source="127.0.0.1"
)
"""A Friday afternoon, on this machine."""
NAMES = [scope.name for scope in CATALOGUE]


def action(*scopes: str, resource: Any = None, **parameters: Any) -> Action:
    return Action(scopes, scopes[0], resource, parameters)


def outcome(agent: Agent, *scopes: str, **parameters: Any) -> Outcome:
    return SHIPPED.decide(agent, action(*scopes, **parameters), ENVIRONMENT).outcome
