"""No tool call that a hook asks about holds the event loop, whatever its arguments."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from support.gateway_stand import Stand
from support.short_turns import short_turns

from agentvault_tui.gateway.hooks import HookCaller, HookDecider
from agentvault_tui.operator_api.access import HookRequest

RULE = """scope = "send:email"
parameters.recipients = "count:/to"
parameters.destinations = "domains:/to"
parameters.amount = "/amount"
parameters.currency = "/currency"
parameters.count = "/count"
"""
SERVER = 'command = ["true"]\n[tools.send]\n'
TEXTS = ["["] * 15_000
"""Each may be JSON to a server."""


@pytest.mark.parametrize("place", ["hosts/claude-code.toml", "mcp/mail.toml"])
async def test_many_arguments_are_read_in_short_turns(stand: Stand, place: str) -> None:
    """In a worker process, as those of a call of the gateway."""
    server = place.startswith("mcp")
    file = stand.bench.home.config / place
    file.parent.mkdir(exist_ok=True)
    file.write_text((SERVER if server else "[tools.send]\n") + RULE)
    gateway = stand.gateway
    await gateway.look()
    agent = await stand.agent("send:email")
    decider = HookDecider(
        *(stand.bench.broker, gateway.tools, gateway.mcp_servers, gateway.calls)
    )
    call = HookRequest(
        agent=agent.id,
        tool="send",
        arguments={"to": "a@acme.test", "more": TEXTS},
        mcp_server="mail" if server else "",
        mcp_tool="send" if server else "",
    )
    gone = asyncio.get_running_loop().create_future()
    by = HookCaller("test")
    decide = decider.decide
    brief = replace(call, arguments={"to": ["a@acme.test"], "more": "x" * 5_000})
    await decide("claude-code", agent, brief, by, gone)  # starts the worker process
    async with short_turns():
        several = (decide("claude-code", agent, call, by, gone) for _ in range(4))
        infos = await asyncio.gather(*several)
    assert {info.outcome for info in infos} <= {"allowed", "escalated"}
