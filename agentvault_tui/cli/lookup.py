"""Finds the agent a person means: by id, or by a name only one agent has."""

from __future__ import annotations

import difflib
from typing import Any

from agentvault_tui.cli.operator_client import OperatorClient
from agentvault_tui.errors import NotFoundError


def find_agent(client: OperatorClient, word: str) -> dict[str, Any]:
    """Return the agent whose id or unique name is *word*.

    An id wins over a name: an agent may call itself what another is identified by.

    Raises:
        NotFoundError: there is none, or the name is not unique.
    """
    agents: list[dict[str, Any]] = client.get("/api/agents")["agents"]
    for agent in agents:
        if word in {agent["id"], agent["client_id"]}:
            return agent
    named = [agent for agent in agents if agent["name"] == word]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(agent["id"] for agent in named)
        raise NotFoundError(
            f"{len(named)} agents are called '{word}'", f"give one of their ids: {ids}"
        )
    near = difflib.get_close_matches(word, [agent["name"] for agent in agents], n=3)
    raise NotFoundError(
        f"there is no agent '{word}'",
        f"did you mean {', '.join(near)}"
        if near
        else "`agentvault agents list` names them",
    )
