"""Only a decision that was made begins the idle time of a session again."""

from __future__ import annotations

import pytest
from support.bench import Bench
from support.elsewhere import Elsewhere, Stand

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
    """A decision that was refused, or that waits for a person (202), renews nothing."""
    assert await renewed("POST", path, status) is (status == 200)


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


async def idle_at(person: Elsewhere) -> str:
    """Return when the person's session has been idle for too long."""
    me = (await person.get("/api/auth/me")).json()
    return str(me["user"]["idle_at"])


@pytest.mark.parametrize("sub", ["auth0|vera", "auth0|other"])
async def test_a_session_is_renewed_once_its_person_has_approved(
    bench: Bench, sub: str
) -> None:
    """To ask for a change, and to begin its approval, renews nothing."""
    agent = await bench.agent("payer")
    async with Stand.open(bench) as stand:
        approver = stand.operator()
        await approver.sign_in("approver")
        before = await idle_at(approver)
        bench.clock.advance(60)
        body = {"agent_id": agent.id, "grant": ["read:calendar"]}
        change = (await approver.post("/api/agents/scopes", **body)).json()
        asked = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
        assert (await approver.post("/api/changes", **asked)).status_code == 202
        assert await idle_at(approver) == before
        who = {"sub": sub, "roles": ("approver",), "amr": ("mfa", "otp")}
        bench.tenant.approve(who=who)
        known = bench.broker.stepups
        await bench.until(lambda: not known.get(change["id"]).status.open)
        await bench.until(lambda: change["id"] not in known.flows)
        assert (await idle_at(approver) > before) is (sub == "auth0|vera")


@pytest.mark.parametrize("number", range(4))
async def test_a_call_that_changes_nothing_renews_nothing(
    bench: Bench, number: int
) -> None:
    """The first time each of these decides; the second time programs could send it."""
    agent = await bench.agent("payer", "send:payment", "read:calendar")
    requests: list[tuple[str, dict[str, object]]] = [
        ("/api/agents/revoke", {"agent_id": agent.id, "reason": "r"}),
        ("/api/agents/revoke", {"all": True, "reason": "r"}),
        ("/api/agents/scopes", {"agent_id": agent.id, "ungrant": ["send:payment"]}),
        ("/api/agents/restore", {"agent_id": agent.id}),
    ]
    path, body = requests[number]
    async with Stand.open(bench) as stand:
        operator = stand.operator()
        await operator.sign_in("operator")
        if path == "/api/agents/restore":
            cut = {"agent_id": agent.id, "reason": "r"}
            await operator.post("/api/agents/revoke", **cut)
        times = [await idle_at(operator)]
        for _ in range(2):
            bench.clock.advance(60)
            answer = await operator.post(path, **body)
            assert answer.status_code in {200, 403}, answer.text
            times.append(await idle_at(operator))
        assert times[0] < times[1] == times[2]


async def test_a_plan_of_files_renews_nothing(bench: Bench) -> None:
    """Nor does applying what is so already: programs compare files often."""
    async with Stand.open(bench) as stand:
        operator = stand.operator()
        await operator.sign_in("operator")
        before = await idle_at(operator)
        bench.clock.advance(60)
        for body in ({"plan": True}, {}):
            answer = await operator.post("/api/files", agents={}, **body)
            assert answer.status_code == 200
            assert await idle_at(operator) == before
        agent = await bench.agent("payer")
        await operator.post("/api/agents/revoke", agent_id=agent.id, reason="r")
        assert await idle_at(operator) > before
