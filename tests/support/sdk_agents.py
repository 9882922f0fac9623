"""Agents on Auth0's SDKs, unmodified, as processes told which of their tools to use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.agents_http import Caller, Live
from support.peers import Peer, peer, with_node, with_python

from agentvault_tui.web.local_ca import CaFiles

in_python = with_python("auth0_ai")
SDKS = [
    pytest.param("python", marks=in_python),
    pytest.param("node", marks=with_node("@auth0/ai")),
]
"""The one in JavaScript speaks https alone."""
_SCRIPTS = {
    "python": "agent.py",
    "node": "agent.cjs",
    "langchain": "agent_langchain.py",
    "llamaindex": "agent_llamaindex.py",
    "vercel": "agent_vercel.cjs",
}


@asynccontextmanager
async def sdk_agent(
    sdk: str, live: Live, caller: Caller, **more: str
) -> AsyncIterator[Peer]:
    """Run an agent that believes *live* to be its Auth0 tenant."""
    env = {
        "AUTH0_DOMAIN": live.url.partition("://")[2].rstrip("/"),
        "AUTH0_CLIENT_ID": caller.agent.client_id,
        "AUTH0_CLIENT_SECRET": caller.secret,
        "NODE_EXTRA_CA_CERTS": str(CaFiles.of(live.bench.home).ca),
    }
    async with peer(_SCRIPTS[sdk], **env, **more) as agent:
        yield agent


async def until_refused(agent: Peer, tool: str) -> dict[str, Any]:
    """Use the tool until it says something else; the SDK's own memory may serve it."""
    first = await agent.told(tool)
    said = first
    while said == first and "result" in said:
        said = await agent.told(tool)
    return said
