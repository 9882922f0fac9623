"""Messages that are no calls are counted and recorded, once a minute."""

from __future__ import annotations

from typing import Any

from support.mcp_stand import McpStand, messages

from agentvault_tui.gateway.mcp.counts import EVERY_S


async def counted(mcp: McpStand) -> list[tuple[str | None, str, int]]:
    """Return agent, method and count of each record."""
    found = await mcp.stand.bench.events("mcp.message")
    return [
        (one.agent_id, one.detail["method"], one.detail["count"])
        for one in found
        if one.detail["server"] == "files" and one.resource == "mcp/files"
    ]


async def test_each_message_that_reaches_a_server_is_in_a_record(mcp: McpStand) -> None:
    """A list by agent and method, once a minute; the gateway's own without an agent;
    a call has its own records."""
    assert EVERY_S == 60
    one, two = [await mcp.client("modern", name=name) for name in ("a", "b")]
    for client in (one, one, one, two):
        await client.send("tools/list")
    await one.call("read_file", path="/a")
    await mcp.stand.gateway.look()
    first = [
        (None, "server/discover", 1),
        (None, "tools/list", 1),
        (one.agent.id, "tools/list", 3),
        (two.agent.id, "tools/list", 1),
    ]
    assert sorted(await counted(mcp), key=str) == sorted(first, key=str)
    methods = [one["method"] for one in mcp.received(None)]
    assert len(methods) == 1 + sum(number for _, _, number in first)
    for _ in range(5):
        await one.send("tools/list")
    mcp.stand.bench.clock.advance(EVERY_S - 1)
    await mcp.stand.gateway.look()
    assert len(await counted(mcp)) == len(first)
    mcp.stand.bench.clock.advance(1)
    await mcp.stand.gateway.look()
    assert (await counted(mcp))[len(first) :] == [(one.agent.id, "tools/list", 5)]


async def test_what_is_counted_is_recorded_when_the_broker_stops(mcp: McpStand) -> None:
    """Also within the minute, and what ends with it."""
    client = await mcp.client("legacy")
    assert "result" in messages(await client.send("tools/list"))[-1]
    await mcp.stand.gateway.look()
    await client.send("tools/list")
    await mcp.stand.gateway.aclose()
    listed = [one for one in await counted(mcp) if one[1] == "tools/list"]
    assert listed == [(client.agent.id, "tools/list", 1)] * 2
    own = {method for agent, method, _ in await counted(mcp) if agent is None}
    assert own == {"initialize", "notifications/initialized"}


async def test_answers_and_cancellations_are_counted_too(
    mcp: McpStand, client: Any
) -> None:
    """The gateway's answer to a request of the server counts as a message."""
    await client.call("ask")
    await mcp.stand.gateway.look()
    assert (None, "response", 1) in await counted(mcp)
    refused = [one for one in mcp.received(None) if "error" in one]
    assert len(refused) == 1
