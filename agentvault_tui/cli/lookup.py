"""Reads agents page by page, and finds one by its id or unique name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from agentvault_tui.errors import NotFoundError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.requests import AgentQuery
from agentvault_tui.operator_api.shapes import AgentInfo, AgentPage


def agent_pages(client: OperatorClient, *, tokens: bool = False) -> Iterator[AgentPage]:
    """Yield the pages of all agents, oldest first."""
    after: str | None = None
    while True:
        page = client.call(calls.AGENTS, AgentQuery(after=after, tokens=tokens))
        yield page
        after = page.next
        if not after:
            return


def find_agent(client: OperatorClient, word: str) -> AgentInfo:
    """Return the agent whose id or unique name is *word*.

    An id wins over a name: an agent may call itself what another is identified by.
    """
    for query in (
        AgentQuery(ids=word, tokens=True),
        AgentQuery(name=word, tokens=True),
    ):
        named = client.call(calls.AGENTS, query).agents
        if len(named) == 1:
            return named[0]
        if named:
            ids = ", ".join(agent.id for agent in named)
            raise NotFoundError(
                f"{len(named)} agents are called '{word}'",
                f"give one of their ids: {ids}",
            )
    names = [agent.name for page in agent_pages(client) for agent in page.agents]
    near = difflib.get_close_matches(word, names, n=3)
    raise NotFoundError(
        f"there is no agent '{word}'",
        f"did you mean {', '.join(near)}"
        if near
        else "`agentvault agents list` names them",
    )
