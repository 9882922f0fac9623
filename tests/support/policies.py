"""The shipped policy, and short words for asking it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from agentvault_tui.model import Action, Agent, Outcome
from agentvault_tui.policy import Environment, Policy, shipped_catalogue, shipped_policy

CATALOGUE = shipped_catalogue()
SHIPPED = Policy(shipped_policy(), CATALOGUE)
ENVIRONMENT = Environment.at(
    datetime(2026, 11, 27, 14, 30, tzinfo=UTC), UTC, source="127.0.0.1"
)
"""A Friday afternoon, on this machine."""
NAMES = [scope.name for scope in CATALOGUE]
ALLOW_ALL = """
@id("all") @why("Anything goes.") @obligation("allow")
permit (principal, action, resource);
"""
NARROW = (
    shipped_policy()
    + '\n@id("no") @why("None.")\nforbid (\
principal, action == Action::"write:calendar", resource);\n'
)
"""The shipped policy, without any writing to a calendar."""
CALENDAR = Action(("write:calendar",), "write:calendar", "calendar:me")
THREE_AN_HOUR = """[[limits]]
id = "three"
scopes = ["write:calendar"]
within = "1h"
count = 3
over = "deny"
"""


def action(*scopes: str, resource: Any = None, **parameters: Any) -> Action:
    return Action(scopes, scopes[0], resource, parameters)


def conditions(atoms: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    """Return conditions of Cedar that have at most so many of the *atoms*."""
    return st.recursive(
        atoms,
        lambda inner: (
            st.builds("({} && {})".format, inner, inner)
            | st.builds("({} || {})".format, inner, inner)
            | st.builds("!({})".format, inner)
            | st.builds("(if {} then {} else {})".format, inner, inner, inner)
        ),
        max_leaves=most,
    )


def outcome(agent: Agent, *scopes: str, **parameters: Any) -> Outcome:
    return SHIPPED.decide(agent, action(*scopes, **parameters), ENVIRONMENT).outcome
