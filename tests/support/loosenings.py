"""Every call that loosens, asked for by an approver elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from support.bench import OPERATOR, Bench
from support.elsewhere import Elsewhere, Stand
from support.scripted_tenant import ALICE

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.gateway import Gateway
from agentvault_tui.policy import shipped_policy

MILD = """
@id("all") @why("Everything.") @obligation("allow")
permit (principal, action, resource);
"""
FORBID = """
@id("no-mail") @why("No mail.")
forbid (principal, action == Action::"send:email", resource);
"""
STRICT = shipped_policy() + FORBID
SERVICE = """
origin = "https://evil.example"
[credential]
kind = "bearer"
secret = "stripe"
[[routes]]
method = "POST"
path = "/v1/x"
scope = "send:payment"
"""
HOOK = """
[[hooks]]
id = "ask"
url = "https://evil.example/"
scopes = ["send:payment"]
"""


@asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[Stand]:
    """Serve operators elsewhere, with a gateway, which has services and secrets."""
    bench.broker.extensions.gateway = gateway = Gateway(bench.broker)
    async with Stand.open(bench) as stand:
        yield stand
    await gateway.aclose()


async def signed_in(stand: Stand, role: str, name: str = "vera") -> Elsewhere:
    operator = stand.operator()
    await operator.sign_in(role, name=name)
    return operator


async def waits(answer: httpx.Response) -> dict[str, Any]:
    """Insist on a change that waits; return it."""
    assert answer.status_code == 202, answer.text
    change: dict[str, Any] = answer.json()
    assert change["id"].startswith("chg_")
    assert change["status"] == "pending"
    assert change["fingerprint"] == change["digest"][7:11].upper()
    assert (change["have"], change["need"], change["device"]) == (0, 1, None)
    return change


async def approve(
    stand: Stand, person: Elsewhere, change: dict[str, Any], who: dict[str, Any] = ALICE
) -> dict[str, Any]:
    """Approve as *who* proves it; return the change as it is then."""
    asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
    begun = await person.post("/api/changes", **asked)
    assert begun.status_code == 202, begun.text
    assert begun.json()["status"] == "authorizing"
    assert begun.json()["device"]["user_code"]
    stand.bench.tenant.approve(who=who)
    known = stand.bench.broker.stepups
    await stand.bench.until(lambda: known.get(change["id"]).status != "authorizing")
    return dict((await person.get(f"/api/changes/{change['id']}")).json())


async def loosenings(stand: Stand) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return a request for each call that loosens."""
    bench = stand.bench
    agent = await bench.agent("payer")
    other = await bench.agent("other")
    revoked = await bench.agent("gone")
    await revoke_agent(bench.broker, revoked.id, "r", OPERATOR)
    new = {"name": "new", "owner": "o", "scopes": ["read:calendar"]}
    template = await bench.agent("plan", template=True)
    return {
        "policy": ("/api/policy/apply", {"policy": MILD}),
        "limits": ("/api/policy/apply", {"policy": shipped_policy(), "limits": HOOK}),
        "register": ("/api/agents", new),
        "from": ("/api/agents", {"name": "new", "from": template.id}),
        "server": (
            "/api/agents",
            {"name": "api", "owner": "o", "resource_server": True},
        ),
        "restore": ("/api/agents/restore", {"agent_id": revoked.id}),
        "lift": ("/api/agents/restore", {"all": True}),
        "grant": (
            "/api/agents/scopes",
            {"agent_id": agent.id, "grant": ["send:email"]},
        ),
        "delegate": (
            "/api/agents/delegates",
            {"agent_id": agent.id, "to": other.id, "scopes": ["send:payment"]},
        ),
        "secret": (
            "/api/secrets",
            {"name": "stripe", "value": "sk_live_1", "for": ["https://api.test"]},
        ),
        "client secret": ("/api/agents/secret", {"agent_id": agent.id}),
        "token": ("/api/agents/token", {"agent_id": agent.id, "scope": "send:payment"}),
        "service": ("/api/files", {"services": {"stripe": SERVICE}}),
        "files": ("/api/files", {"agents": {"n": {"owner": "o"}}}),
        "connect": (
            "/api/connections",
            {
                "agent_id": agent.id,
                "connection": "google",
                "redirect_uri": "http://127.0.0.1:1/callback",
            },
        ),
    }
