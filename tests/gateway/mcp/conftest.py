"""A stand whose gateway has an MCP server, and clients of each era."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.gateway_stand import standing
from support.mcp_stand import SCOPES, Client, McpStand


@pytest.fixture
async def mcp(short: Path) -> AsyncIterator[McpStand]:
    async with standing(short) as stand:
        mcp = McpStand(stand, short / "received")
        await mcp.write()
        yield mcp


@pytest.fixture(params=["modern", "2025-11-25"])
async def client(request: pytest.FixtureRequest, mcp: McpStand) -> Client:
    """A client of each era; 2025-06-18 differs in how a scope is missed alone."""
    era = request.param
    agent = await mcp.stand.agent(*SCOPES)
    token = await mcp.stand.token(agent, "read:files")
    client = Client(mcp.stand, agent, token, era == "modern")
    client.version = era
    await client.begin()
    return client
