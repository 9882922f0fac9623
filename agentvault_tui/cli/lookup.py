"""Finds an agent by its id or unique name, and the names that a shell completes."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import click

from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import AgentVaultError, NotFoundError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.requests import AgentQuery
from agentvault_tui.operator_api.shapes import AgentInfo, AgentPage

_CLOSE: Final = 0.8
"""The least ratio of a mistyped name (`difflib.SequenceMatcher`)."""
_MOST: Final = 3
"""Names that are suggested."""


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

    An id wins over a name: an agent may choose another's identifier as its name.
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
    near = _near(word, _agents(client))
    raise NotFoundError(
        f"there is no agent '{word}'",
        f"did you mean {', '.join(near)}"
        if near
        else "`agentvault agents list` names them",
    )


def _near(word: str, agents: Iterable[AgentInfo]) -> list[str]:
    """Find the ids and names that begin like *word*, else those almost like it.

    In upper or lower case; none where more than three begin like it.
    """
    folded = {
        name.casefold(): name for agent in agents for name in (agent.id, agent.name)
    }
    word = word.casefold()
    near = [name for name in folded if name.startswith(word)]
    near = near or difflib.get_close_matches(word, folded, cutoff=_CLOSE)
    return [folded[name] for name in near] if len(near) <= _MOST else []


_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@/+-]*")
"""Names that a shell may complete: it inserts them without quotes, and runs their
content. A name that begins with ``-`` would be an option."""


def _completing(
    find: Callable[[OperatorClient], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a function by which the shell completes names that *find* returns."""

    def complete(
        ctx: click.Context,
        _: click.Parameter,
        incomplete: str,
    ) -> list[str]:
        """Return matching names; none if the broker does not answer."""
        # A key press is answered with no names where no broker answers.
        with contextlib.suppress(AgentVaultError, OSError):
            client = ctx.ensure_object(CliSession).client
            return [
                name
                for name in find(client)
                if name.startswith(incomplete) and _PLAIN.fullmatch(name)
            ]
        return []

    return complete


def _agents(client: OperatorClient) -> Iterator[AgentInfo]:
    return (agent for page in agent_pages(client, tokens=True) for agent in page.agents)


agent_names = _completing(lambda client: [agent.name for agent in _agents(client)])
agent_option = click.option(
    "--agent",
    "ref",
    metavar="ID",
    required=True,
    help="The agent: id or name.",
    shell_complete=agent_names,
)
"""The option of a command that acts for one agent."""
token_ids = _completing(
    lambda client: [one.id for agent in _agents(client) for one in agent.listed_tokens]
)
stepup_ids = _completing(
    lambda client: [one.id for one in client.call(calls.STEPUPS).stepups]
)
change_ids = _completing(
    lambda client: [one.id for one in client.call(calls.CHANGES).changes]
)
service_names = _completing(
    lambda client: [one.name for one in client.call(calls.SERVICES).services]
)
scope_names = _completing(lambda client: client.call(calls.POLICY).catalogue)
