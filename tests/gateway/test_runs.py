"""Runs: a key for the proxy, a token that is renewed, an end that ends both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from support.bench import OPERATOR
from support.gateway_stand import Stand, operators_http
from support.patience import PATIENT

from agentvault_tui.broker.audience import audience_claim
from agentvault_tui.broker.usecases.redeem import introspect, revoke_token
from agentvault_tui.broker.usecases.revoke import panic, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.gateway import runs as module
from agentvault_tui.model import Agent
from agentvault_tui.settings import OperatorSettings

SERVICE = """
[[routes]]
method = "GET"
path = "/{rest*}"
scope = "read:calendar"
[[routes]]
method = "DELETE"
path = "/{rest*}"
scope = "send:payment"
"""


@pytest.fixture
async def operators(stand: Stand) -> AsyncIterator[httpx.AsyncClient]:
    """The operators' HTTP of a broker whose proxy listens only for runs."""
    broker = stand.bench.broker
    gateway = replace(broker.settings.gateway, proxy="")
    broker.settings = replace(broker.settings, gateway=gateway)
    line = await stand.gateway.listen(stand.server, stand.listener)
    assert line == {"proxy_url": None, "ca_file": None}
    await stand.service(SERVICE)
    async with operators_http(stand.bench) as client:
        yield client


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    return await stand.agent("read:calendar", "send:payment")


async def started(http: httpx.AsyncClient, agent: Agent, **more: Any) -> dict[str, Any]:
    reply = await http.post("/api/runs", json={"agent_id": agent.id, **more})
    assert reply.status_code == 201, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def get(stand: Stand, run: dict[str, Any], method: str = "GET") -> int:
    """Ask the service by the proxy, as a tool of the run; return the status."""
    proxy = run["proxy_url"].replace("//", f"//agent:{run['key']}@")
    url = f"http://127.0.0.1:{stand.upstream.port}/x"
    async with httpx.AsyncClient(proxy=proxy, timeout=PATIENT) as client:
        headers = {"Prefer": "respond-async"}
        return (await client.request(method, url, headers=headers)).status_code


async def news(http: httpx.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await http.post(f"/api/runs/{run['id']}/news")).json()
    return found


async def end(http: httpx.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await http.post(f"/api/runs/{run['id']}/end")).json()
    return found


async def test_a_run_has_a_key_for_the_proxy_and_says_at_its_end_what_it_did(
    stand: Stand, operators: httpx.AsyncClient, agent: Agent
) -> None:
    """Calls, held and refused are counted; afterwards key, token and proxy are gone."""
    run = await started(operators, agent)
    assert run["services"] == {"api": f"{stand.bench.broker.admitting.url}/gw/api"}
    assert await get(stand, run) == 200
    assert await get(stand, run, "DELETE") == 403
    assert await get(stand, run, "PUT") == 403
    token = {"Authorization": f"Bearer {run['access_token']}"}
    assert (await stand.client.get("/gw/api/x", headers=token)).status_code == 200
    told = await end(operators, run)
    assert (told["calls"], told["held"], told["refused"]) == (2, 1, 1), told
    assert told["ended"] == "done"
    assert (await stand.client.get("/gw/api/x", headers=token)).status_code == 401
    await stand.gateway.look()
    with pytest.raises(httpx.ConnectError):
        await get(stand, run)
    issued = (await stand.bench.events("token.decision"))[0]
    assert issued.actor.name == "olga" or issued.actor.id == "uid:1000"


async def test_a_token_of_a_run_for_services_is_good_for_those_alone(
    stand: Stand, operators: httpx.AsyncClient, agent: Agent
) -> None:
    """At ``/gw/``, ``/mcp/``, the proxy and for resource servers, renewed ones too."""
    for name in ("two", "three"):
        await stand.service(SERVICE, name=name)
    run = await started(operators, agent, services=["two", "api"])
    assert run["services"].keys() == {"api", "two"}
    server = await stand.bench.agent("server", resource_server=True)
    for _ in range(2):
        token = run["access_token"]
        shown = {"Authorization": f"Bearer {token}"}
        for name, status in (("api", 200), ("two", 200), ("three", 401)):
            reply = await stand.client.get(f"/gw/{name}/x", headers=shown)
            assert reply.status_code == status, reply.text
        seen = await introspect(stand.bench.broker, server, token)
        assert seen.token is None
        mine = await introspect(stand.bench.broker, agent, token)
        assert mine.token is not None
        assert audience_claim(mine.token.resource or "") == [
            f"{stand.bench.broker.admitting.url}/gw/{name}" for name in ("api", "two")
        ]
        stand.bench.clock.advance(run["expires_in"] * 0.8)
        run |= {"access_token": (await news(operators, run))["access_token"]}
    every = await started(operators, agent)
    shown = {"Authorization": f"Bearer {every['access_token']}"}
    assert (await stand.client.get("/gw/three/x", headers=shown)).status_code == 200


async def test_a_bound_token_is_no_password_for_another_service_at_the_proxy(
    stand: Stand, operators: httpx.AsyncClient, agent: Agent
) -> None:
    """The token in place of the run's key opens at the proxy what it is bound to."""
    await stand.service(SERVICE, name="other", origin="http://127.0.0.1:9")
    for names, status in ((["api"], 200), (["other"], 401)):
        run = await started(operators, agent, services=names)
        by_token = run | {"key": run["access_token"]}
        assert await get(stand, by_token) == status


async def test_each_key_is_its_own_runs_agent_and_no_token(
    stand: Stand, operators: httpx.AsyncClient, agent: Agent
) -> None:
    """A key of another run acts as that run's agent; at ``/gw/`` it is nothing."""
    other = await stand.agent("write:calendar", "send:payment", name="other")
    mine, theirs = await started(operators, agent), await started(operators, other)
    assert await get(stand, mine) == 200
    assert await get(stand, theirs) == 403
    await end(operators, theirs)
    assert await get(stand, theirs) == 407
    assert await get(stand, mine) == 200
    key = {"Authorization": f"Bearer {mine['key']}"}
    assert (await stand.client.get("/gw/api/x", headers=key)).status_code == 401


async def test_a_token_is_renewed_in_time_and_the_key_goes_on(
    stand: Stand, operators: httpx.AsyncClient, agent: Agent
) -> None:
    """The command line is given the new one; the environment's key stays as it is."""
    run = await started(operators, agent)
    stand.bench.clock.advance(run["expires_in"] * 0.8)
    told = await news(operators, run)
    assert told["access_token"] not in {None, run["access_token"]}
    stand.bench.clock.advance(run["expires_in"] * 0.3)
    assert await get(stand, run) == 200


@pytest.mark.parametrize("everyone", [False, True])
async def test_a_revocation_ends_a_run_in_the_same_turn(
    stand: Stand, operators: httpx.AsyncClient, agent: Agent, everyone: bool
) -> None:
    """Whoever waits for news is told why; the key opens nothing, also afterwards."""
    run = await started(operators, agent)
    waiting = asyncio.create_task(news(operators, run))
    await asyncio.sleep(0)
    broker = stand.bench.broker
    if everyone:
        await panic(broker, "test", OPERATOR)
    else:
        await revoke_agent(broker, agent.id, "test", OPERATOR)
    told = await waiting
    assert told["ended"] == ("panic" if everyone else "agent_revoked")
    assert await get(stand, run) == 407
    if not everyone:
        await stand.restore(agent)
        assert await get(stand, run) == 407


async def test_scopes_that_change_give_a_run_a_token_anew(
    stand: Stand, operators: httpx.AsyncClient, agent: Agent
) -> None:
    """Taking a scope ends tokens with it; the run gets one for what is left."""
    run = await started(operators, agent)
    more = frozenset({"write:calendar"})
    await change_scopes(stand.bench.broker, agent.id, more, frozenset(), OPERATOR)
    less = frozenset({"read:calendar"})
    await change_scopes(stand.bench.broker, agent.id, frozenset(), less, OPERATOR)
    told = await news(operators, run)
    assert told["ended"] is None
    assert told["access_token"], "there is no new token"
    assert await get(stand, run) == 403


async def test_a_run_nobody_asks_about_ends(
    stand: Stand,
    operators: httpx.AsyncClient,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command line that was killed leaves no key behind."""
    monkeypatch.setattr(module, "LEASE", 0.0)
    run = await started(operators, agent)
    await stand.gateway.look()
    assert (await operators.post(f"/api/runs/{run['id']}/news")).status_code == 404
    token = {"Authorization": f"Bearer {run['access_token']}"}
    assert (await stand.client.get("/gw/api/x", headers=token)).status_code == 401


async def test_a_run_ends_where_policy_gives_its_agent_nothing(
    stand: Stand, operators: httpx.AsyncClient, agent: Agent
) -> None:
    """A renewal that is refused is the end, and says why; where a person decides each
    call the run goes on, with a token that has no scope."""
    run = await started(operators, agent)
    less = frozenset({"read:calendar"})
    await change_scopes(stand.bench.broker, agent.id, frozenset(), less, OPERATOR)
    told = await news(operators, run)
    assert (told["ended"], bool(told["access_token"])) == (None, True)
    assert await get(stand, run, "DELETE") == 403  # held for a person
    rest = frozenset({"send:payment"})
    await change_scopes(stand.bench.broker, agent.id, frozenset(), rest, OPERATOR)
    await revoke_token(stand.bench.broker, agent, told["access_token"])
    told = await news(operators, run)
    assert told["ended"] == "refused"
    assert "scope_not_granted" in told["why"]


async def test_who_may_not_give_may_not_run(stand: Stand, agent: Agent) -> None:
    """A run gives a token: it needs the role for that, and a refusal is recorded."""
    broker = stand.bench.broker
    broker.settings = replace(broker.settings, operators=OperatorSettings("claim"))
    async with operators_http(stand.bench) as client:
        reply = await client.post("/api/runs", json={"agent_id": agent.id})
    assert reply.status_code == 403
    (refused,) = await stand.bench.events("operator.refused")
    assert refused.resource == f"run as {agent.id}"


async def test_what_a_run_names_has_to_be_there(
    operators: httpx.AsyncClient, agent: Agent
) -> None:
    """An unknown agent or service, or a pattern that names no host, starts nothing."""
    for status, asked in (
        (404, {"agent_id": "agt_none"}),
        (404, {"agent_id": agent.id, "services": ["nosuch"]}),
        (400, {"agent_id": agent.id, "pass_through": ["*"]}),
        (400, {"agent_id": agent.id, "passthrough": []}),
    ):
        reply = await operators.post("/api/runs", json=asked)
        assert reply.status_code == status, (asked, reply.text)


async def test_a_run_that_cannot_be_recorded_does_not_begin(
    stand: Stand,
    operators: httpx.AsyncClient,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No record, no token and no key."""

    async def fail(*_: object, **__: object) -> None:
        raise LedgerUnwritableError("full")

    monkeypatch.setattr(stand.bench.broker, "record", fail)
    reply = await operators.post("/api/runs", json={"agent_id": agent.id})
    assert reply.status_code == 503
    assert not list(stand.gateway.proxy.runs)
