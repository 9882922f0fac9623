"""Reads agents page by page, and finds the one a person means by id or name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from agentvault_tui.cli.operator_client import OperatorClient
from agentvault_tui.errors import NotFoundError


def agent_pages(
    client: OperatorClient, *, tokens: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the pages of all agents, oldest first."""
    query: dict[str, object] = {"tokens": str(tokens).lower()}
    while True:
        page = client.get("/api/agents", **query)
        yield page
        if not page.get("next"):
            return
        query["after"] = page["next"]


def find_agent(client: OperatorClient, word: str) -> dict[str, Any]:
    """Return the agent whose id or unique name is *word*.

    An id wins over a name: an agent may call itself what another is identified by.

    Raises:
        NotFoundError: there is none, or the name is not unique.
    """
    for query in ({"ids": word}, {"name": word}):
        named = client.get("/api/agents", tokens="true", **query)["agents"]
        if len(named) == 1:
            return dict(named[0])
        if named:
            ids = ", ".join(agent["id"] for agent in named)
            raise NotFoundError(
                f"{len(named)} agents are called '{word}'",
                f"give one of their ids: {ids}",
            )
    names = [agent["name"] for page in agent_pages(client) for agent in page["agents"]]
    near = difflib.get_close_matches(word, names, n=3)
    raise NotFoundError(
        f"there is no agent '{word}'",
        f"did you mean {', '.join(near)}"
        if near
        else "`agentvault agents list` names them",
    )
