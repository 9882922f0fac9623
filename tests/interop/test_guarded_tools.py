"""Tools under `guard`, in the frameworks people build with: examples/guard_*.py."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.agents_http import live_broker
from support.bench import OPERATOR, Bench
from support.peers import TOOLS, peer, with_python

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup import begin_approval

ROOT = Path(__file__).parents[2]
FRAMEWORKS = [
    pytest.param(name, marks=with_python(module, TOOLS))
    for name, module in (
        ("langgraph", "langgraph"),
        ("openai_agents", "agents"),
        ("pydantic_ai", "pydantic_ai"),
        ("adk", "google/adk"),
    )
]
READ = json.dumps({"tool": "read", "arguments": {"path": "/srv/a"}})
PAY = json.dumps(
    {"tool": "pay", "arguments": {"to": "acct", "amount": 4200, "currency": "USD"}}
)


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_tools_run_after_a_yes_alone(
    bench: Bench, framework: str, tmp_path: Path
) -> None:
    """Allowed by policy, approved by a person, and refused once the agent is cut."""
    async with live_broker(bench) as live:
        caller = await live.caller("clerk", "read:files", "send:payment")
        secret = tmp_path / "secret"
        secret.write_text(caller.secret)
        env = {
            "PYTHONPATH": str(ROOT),
            "AGENTVAULT_URL": live.url,
            "AGENTVAULT_CLIENT_ID": caller.agent.client_id,
            "AGENTVAULT_CLIENT_SECRET_FILE": str(secret),
            "HOME": str(tmp_path),
        }
        async with peer(
            "agent_guarded.py", python=TOOLS, argument=framework, **env
        ) as agent:
            assert await agent.says() == {"ready": framework}
            assert await agent.told(READ) == {"result": "contents of /srv/a"}
            asking = asyncio.create_task(agent.told(PAY))
            stepups = bench.broker.stepups
            await bench.until(lambda: bool(stepups.open()))
            (stepup,) = stepups.open()
            assert (stepup.action, stepup.resource) == ("send:payment", "stripe:acct")
            assert stepup.parameters["amount"] == 4200
            await begin_approval(bench.broker, stepup.id, stepup.digest, OPERATOR)
            bench.tenant.approve()
            assert await asking == {"result": "paid 4200 USD to acct"}
            await revoke_agent(bench.broker, caller.agent.id, "", OPERATOR)
            refused = await agent.told(READ)
            assert "revoked" in refused["result"]
