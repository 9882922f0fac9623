"""Calls of tools, resources and prompts are decided as any call of the gateway."""

from __future__ import annotations

from support.bench import OPERATOR
from support.mcp_stand import McpStand

from agentvault_tui.broker.usecases.rate import change_rate


async def test_beyond_its_rate_an_agent_waits_a_second(mcp: McpStand) -> None:
    """429 as at the gateway, with a second to wait, and no record of it."""
    client = await mcp.client("modern")
    bench = mcp.stand.bench
    await change_rate(bench.broker, client.agent.id, 1, OPERATOR)
    call = {"name": "read_file", "arguments": {"path": "/srv/a"}}
    answers = [await client.send("tools/call", call) for _ in range(10)]
    assert {one.status_code for one in answers} == {200}
    before = len(await bench.events("gateway.refused"))
    refused = await client.send("tools/call", call)
    assert refused.status_code == 429, refused.text
    assert refused.json()["error"] == "slow_down"
    assert refused.headers["retry-after"] == "1"
    assert len(await bench.events("gateway.refused")) == before
