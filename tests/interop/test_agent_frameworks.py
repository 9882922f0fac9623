"""Agents in the frameworks people build with, Auth0's wrappers round their tools."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.bench import OPERATOR, Bench
from support.peers import with_node, with_python
from support.rogue_tenant import rogue_tenant
from support.sdk_agents import sdk_agent, until_refused
from support.tls_front import trusted
from support.token_vault import recorded, vaulted

from agentvault_tui.broker.usecases.revoke import revoke_agent

LEASE = 1
FRAMEWORKS = [
    pytest.param("langchain", marks=with_python("auth0_ai_langchain")),
    pytest.param("llamaindex", marks=with_python("auth0_ai_llamaindex")),
    pytest.param("vercel", marks=with_node("@auth0/ai-vercel")),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_tools_until_the_agent_is_cut_off(bench: Bench, framework: str) -> None:
    """A provider's token, a person's yes, and within the lease of a cut neither."""
    settings = bench.broker.settings
    tokens = replace(settings.tokens, lease=LEASE)
    bench.broker.settings = replace(settings, tokens=tokens)
    tls, trust, _ = trusted(bench.home) if framework == "vercel" else (None, None, {})
    async with rogue_tenant() as tenant, vaulted(bench, tenant, tls, trust) as vault:
        vault.answers(recorded("ok"))
        caller = await vault.connected()
        async with sdk_agent(framework, vault, caller) as agent:
            given = {"result": "ya29.provider-token"}
            assert await agent.told("calendar") == given
            asking = asyncio.create_task(agent.told("pay"))
            opened = vault.broker.stepups.open
            await bench.until(lambda: bool(opened(caller.agent.id)))
            (stepup,) = opened(caller.agent.id)
            assert (stepup.action, stepup.reason) == ("send:payment", "Pay #1")
            waits = framework == "llamaindex"
            if not waits:
                assert (await asking)["code"].endswith("AUTHORIZATION_PENDING")
            await vault.approve(stepup.id)
            paid = await (asking if waits else agent.told("pay"))
            assert paid["result"].startswith("av_e_")
            await revoke_agent(vault.broker, caller.agent.id, "", OPERATOR)
            refused = await until_refused(agent, "calendar")
            assert refused["code"] == "TOKEN_VAULT_ERROR"
            introspected = await caller.introspect(paid["result"])
            assert introspected == {"active": False}
