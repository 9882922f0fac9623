"""The agent a person means by an id or a name."""

from __future__ import annotations

from typing import Any

import pytest

from agentvault_tui.cli.lookup import find_agent
from agentvault_tui.cli.operator_client import OperatorClient
from agentvault_tui.errors import NotFoundError


class Listing(OperatorClient):
    """Knows four agents: one is called as another is identified by, two are alike."""

    def __init__(self) -> None:
        """Connect to nothing."""

    def get(self, path: str, **query: object) -> Any:
        assert (path, query) == ("/api/agents", {})
        names = {"agt_1": "payer", "agt_2": "agt_1", "agt_3": "twin", "agt_4": "twin"}
        return {
            "agents": [
                {"id": one, "client_id": one, "name": name}
                for one, name in names.items()
            ]
        }


def test_an_id_wins_over_a_name() -> None:
    """An agent may call itself what another is identified by."""
    assert find_agent(Listing(), "agt_1")["name"] == "payer"
    assert find_agent(Listing(), "payer")["id"] == "agt_1"


def test_a_name_two_agents_have_is_not_guessed_at() -> None:
    """What is cut off must be what was meant: their ids are named instead."""
    with pytest.raises(NotFoundError) as caught:
        find_agent(Listing(), "twin")
    assert "agt_3, agt_4" in caught.value.diagnosis()


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    """And nothing is done to that one."""
    with pytest.raises(NotFoundError, match="there is no agent 'paier'") as caught:
        find_agent(Listing(), "paier")
    assert "payer" in caught.value.remedy
