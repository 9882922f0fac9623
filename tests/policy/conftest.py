"""What the policy tests ask from: the shipped policy, an agent, an action."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agentvault_tui.model import Action, Agent, AgentId
from agentvault_tui.policy import Policy, shipped_catalogue, shipped_policy

Ask = Callable[..., Action]


@pytest.fixture(scope="session")
def shipped() -> Policy:
    """The policy a fresh install has in force."""
    return Policy(shipped_policy(), shipped_catalogue())


@pytest.fixture(scope="session")
def agent() -> Agent:
    """An agent that was granted every scope there is."""
    return make_agent(*(scope.name for scope in shipped_catalogue()))


@pytest.fixture(scope="session")
def agent_with() -> Callable[..., Agent]:
    """Makes an agent with the scopes it is given."""
    return make_agent


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Makes an action: scopes, then parameters by name."""

    def make(*scopes: str, resource: str | None = None, **parameters: Any) -> Action:
        return Action(scopes, scopes[0], resource, parameters)

    return make


def make_agent(*scopes: str, owner: str = "alice@acme.test", name: str = "a") -> Agent:
    return Agent(
        id=AgentId("agt_1"),
        client_id="agt_1",
        name=name,
        owner=owner,
        purpose="",
        scopes=tuple(sorted(scopes)),
        created_at=datetime(2026, 11, 24, tzinfo=UTC),
    )
