"""Only a decision that was made begins the idle time of a session again."""

from __future__ import annotations

import pytest
from support.bench import Bench
from support.elsewhere import Stand

from agentvault_tui.broker.operators_api.idle import IdleRenewal
from agentvault_tui.model import Actor, ActorKind
from agentvault_tui.web.reply import Message, Receive, Scope, Send, problem


async def renewed(method: str, path: str, status: int) -> bool:
    """Tell whether the session is renewed after such a request and answer."""
    used: list[str] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await problem(status, "said").send(send)

    async def send(_: Message) -> None:
        return

    async def receive() -> Message:
        return {}

    operator = Actor(ActorKind.OPERATOR, "key:a", "192.0.2.1")
    state = {"operator": operator}
    scope = {"type": "http", "method": method, "path": path, "state": state}
    await IdleRenewal(app, used.append)(scope, receive, send)
    return used == ["key:a"]


@pytest.mark.parametrize("status", [200, 202, 400, 403, 409, 500, 503])
@pytest.mark.parametrize(
    "path",
    [
        *("/api/agents/stepup", "/api/agents/revoke", "/api/agents/restore"),
        *("/api/agents/scopes", "/api/policy/apply", "/api/files", "/api/changes"),
        "/api/advice/adv_1/apply",
    ],
)
async def test_a_decision_renews_where_it_was_made(path: str, status: int) -> None:
    """Approve, deny, revoke, restore, grant and apply; not one that was refused."""
    assert await renewed("POST", path, status) is (status < 300)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/api/agents/stepup", "/api/files", "/api/me")),
        *(("POST", path) for path in ("/api/presence", "/api/policy/plan")),
        *(("POST", path) for path in ("/api/hooks/x", "/api/runs", "/api/secrets")),
    ],
)
async def test_what_programs_send_renews_nothing(method: str, path: str) -> None:
    """Polling, reading, looking and planning."""
    assert not await renewed(method, path, 200)


async def test_a_plan_of_files_renews_nothing(bench: Bench) -> None:
    """Nor does applying what is so already: programs compare files often."""
    async with Stand.open(bench) as stand:
        operator = stand.operator()
        await operator.sign_in("operator")

        async def idle_at() -> str:
            me = (await operator.get("/api/auth/me")).json()
            return str(me["user"]["idle_at"])

        before = await idle_at()
        bench.clock.advance(60)
        for body in ({"plan": True}, {}):
            answer = await operator.post("/api/files", agents={}, **body)
            assert answer.status_code == 200
            assert await idle_at() == before
        agent = await bench.agent("payer")
        await operator.post("/api/agents/revoke", agent_id=agent.id, reason="r")
        assert await idle_at() > before
