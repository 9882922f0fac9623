"""At the socket a factor is asked for once the uid is no person's alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from auth0_double.running import TenantThread
from support.bench import Bench
from support.connecting import Office
from support.gateway_stand import operators_http
from support.manual_clock import ManualClock
from support.scripted_tenant import ALICE
from support.tenant_admin import Admin

from agentvault_tui.broker import authority
from agentvault_tui.broker.authority import Sessions
from agentvault_tui.broker.operators_api import operators_app
from agentvault_tui.broker.socket_factor import asks_factor, note_shared_user
from agentvault_tui.home import Home
from agentvault_tui.model import Actor, ActorKind, AgentId
from agentvault_tui.settings import ChangeSettings, Settings, StepUpSettings
from agentvault_tui.web import Receive, Scope, Send
from agentvault_tui.web.sockets import Peer

SELF = Actor(ActorKind.OPERATOR, f"uid:{os.getuid()}", "me")
NEW = {"name": "new", "owner": "o", "scopes": ["read:calendar"]}


@asynccontextmanager
async def opened(
    short: Path, clock: ManualClock, socket: Any, *approvers: str
) -> AsyncIterator[tuple[Bench, httpx.AsyncClient]]:
    settings = Settings(
        changes=ChangeSettings(socket=socket),
        stepup=StepUpSettings(approvers=approvers),
    )
    bench = await Bench.open(Home.locate(short / "h"), clock, "", settings)
    app = operators_app(bench.broker, bench.feed, Sessions(bench.broker))

    async def seated(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"peer": Peer(os.getuid(), None)}
        await app(scope, receive, send)

    transport = httpx.ASGITransport(seated)
    async with httpx.AsyncClient(transport=transport, base_url="http://b/api") as http:
        yield bench, http
    await bench.close()


@pytest.mark.parametrize(
    ("socket", "there", "asked"),
    [
        ("uid", {"shared", "approver"}, False),
        ("factor", {"approver"}, True),
        ("factor", set(), True),
        ("auto", {"shared", "approver"}, True),
        ("auto", {"approver"}, False),
        ("auto", {"shared"}, True),
        ("auto", set(), False),
        ("uid", {"shared"}, False),
    ],
)
async def test_who_shares_the_user_decides(
    short: Path, clock: ManualClock, socket: str, there: set[str], asked: bool
) -> None:
    """A tenant that cannot be asked may have an approver at any time."""
    names = (ALICE["sub"],) if "approver" in there else ()
    async with opened(short, clock, socket, *names) as (bench, _):
        if "shared" in there:
            await note_shared_user(bench.broker, SELF)
        assert await asks_factor(bench.broker) is asked
    async with opened(short, clock, socket, *names) as (bench, _):
        assert await asks_factor(bench.broker) is asked  # a restart forgets nothing


@pytest.fixture
async def office(short: Path) -> AsyncIterator[Office]:
    """A broker with the embedded tenant, in which there is nobody yet."""
    tenant = TenantThread(Home.locate(short / "tenant"))
    office = await Office.open(Admin(tenant), Home.locate(short / "h"))
    yield office
    await office.close()
    tenant.close()


async def test_before_its_tenant_has_an_approver_the_uid_is_enough(
    office: Office,
) -> None:
    """A tenant that answers says whether there is one; without its word there may be.

    What was not known is not recorded as known.
    """
    broker, given = office.broker, office.broker.reaching.access.given
    broker.settings = replace(broker.settings, changes=ChangeSettings(socket="factor"))
    assert not await asks_factor(broker)
    broker.reaching.access.given = None
    assert await asks_factor(broker)
    broker.reaching.access.given = given
    assert not await asks_factor(broker)
    office.tenant.users.add("alice@acme.test", approver=True)
    assert await asks_factor(broker)


async def test_without_its_last_approver_a_factor_is_asked_for_still(
    short: Path, clock: ManualClock
) -> None:
    """Removing that person needs no factor, and must not open what needs one."""
    async with opened(short, clock, "factor", ALICE["sub"]) as (bench, _):
        assert await asks_factor(bench.broker)
    async with opened(short, clock, "factor") as (bench, http):
        assert (await http.post("/agents", json=NEW)).status_code == 202
    async with opened(short, clock, "uid") as (bench, http):
        assert (await http.post("/agents", json=NEW)).status_code == 201


async def test_another_user_of_the_socket_is_no_agent_of_ours(
    short: Path, clock: ManualClock
) -> None:
    """Only a run of the broker's own user tells."""
    async with opened(short, clock, "auto", ALICE["sub"]) as (bench, _):
        other = Actor(ActorKind.OPERATOR, f"uid:{os.getuid() + 1}", "other")
        await note_shared_user(bench.broker, other)
        assert not await asks_factor(bench.broker)


async def test_with_factor_a_loosening_at_the_socket_waits(
    short: Path, clock: ManualClock
) -> None:
    """What tightens, and a token for an agent's command, need the uid alone."""
    async with opened(short, clock, "factor", ALICE["sub"]) as (bench, http):
        agent = await bench.agent("payer", "read:calendar", "send:payment")
        held = await http.post("/agents", json=NEW)
        assert (held.status_code, held.json()["status"]) == (202, "pending")
        assert held.json()["requested_by"]["sub"] == SELF.id
        asked = {"agent_id": agent.id, "scope": "read:calendar"}
        assert (await http.post("/agents/token", json=asked)).status_code == 200
        gone = {"agent_id": agent.id, "ungrant": ["send:payment"]}
        assert (await http.post("/agents/scopes", json=gone)).status_code == 200
        cut = {"agent_id": agent.id, "reason": "r"}
        assert (await http.post("/agents/revoke", json=cut)).status_code == 200
        back = await http.post("/agents/restore", json={"agent_id": agent.id})
        assert back.status_code == 202
        change = held.json()
        body = {"id": change["id"], "decision": "approve", "digest": change["digest"]}
        assert (await http.post("/changes", json=body)).status_code == 202
        bench.tenant.approve()
        known = bench.broker.stepups
        await bench.until(lambda: known.get(change["id"]).status != "authorizing")
        done = (await http.get(f"/changes/{change['id']}")).json()
        assert done["status"] == "applied"
        assert done["client_secret"].startswith("av_s_")


async def test_without_factor_a_loosening_is_one_event_that_says_so(
    short: Path, clock: ManualClock
) -> None:
    """At once, with the uid for its proof; a revocation is no loosening."""
    async with opened(short, clock, "uid") as (bench, http):
        made = await http.post("/agents", json=NEW)
        assert made.status_code == 201
        agent_id = made.json()["id"]
        cut = {"agent_id": agent_id, "reason": "r"}
        await http.post("/agents/revoke", json=cut)
        await http.post("/agents/restore", json={"agent_id": agent_id})
        loosened = [e for e in await bench.events() if "loosened" in e.detail]
        kinds = [event.type.value for event in loosened]
        assert kinds == ["agent.registered", "agent.restored"]
        told = loosened[0].detail["loosened"]
        assert (told["kinds"], told["proof"]) == (["agents"], "uid")
        assert told["by"] == [{"sub": SELF.id, "name": loosened[0].actor.name}]


async def test_rights_are_taken_from_a_person_without_a_factor(office: Office) -> None:
    """All of them or some; if the tenant does not say what they have, it is needed."""
    broker, users = office.broker, office.tenant.users
    broker.reaching.kind = "embedded"
    broker.settings = replace(broker.settings, changes=ChangeSettings(socket="factor"))
    users.add("ann@acme.test", approver=True)
    bob = users.add("bob@acme.test", roles=("operator",)).user
    async with operators_http(office.bench) as http:

        async def answered(person: Any, change: str, *roles: str) -> int:
            body = {"change": change, "user": person.name, "sub": person.sub}
            reply = await http.post("/api/tenant/people", json=body | {"roles": roles})
            return reply.status_code

        assert await answered(bob, "role", "approver") == 202
        assert await answered(bob, "role", "operator") == 200
        office.fault(status=503)
        assert await answered(bob, "role", "viewer") == 202
        office.fault()
        assert await answered(bob, "role", "viewer") == 200
        assert await answered(bob, "role") == 200
        assert await answered(bob, "passkey") == 202
        assert await answered(bob, "passkey_removed") == 200
    changed = await office.bench.events("tenant.user_changed")
    assert len(changed) == 4
    assert not [one for one in changed if "loosened" in one.detail]


@pytest.mark.parametrize("first", [False, True])
async def test_a_request_is_judged_by_one_reading_of_the_need(
    short: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """It waits as it was described, or is done, whatever the next reading says."""
    async with opened(short, clock, "uid") as (bench, http):
        agent, other = await bench.agent("one"), await bench.agent("two")
        await http.post("/agents/revoke", json={"agent_id": other.id, "reason": "r"})
        readings = list[bool]()

        async def reading(_: object) -> bool:
            readings.append(first is not bool(readings))
            return readings[-1]

        monkeypatch.setattr(authority, "asks_factor", reading)
        both = {"grant": ["read:calendar"], "ungrant": ["send:payment"]}
        passed = {"to": other.id, "scopes": ["write:calendar"]}
        for path, body in (
            ("agents", NEW),
            ("agents/scopes", {"agent_id": agent.id, **both}),
            ("agents/delegates", {"agent_id": agent.id, **passed}),
            ("agents/restore", {"agent_id": other.id}),
        ):
            readings.clear()
            reply = await http.post(f"/{path}", json=body)
            assert (reply.status_code == 202) is first, path
            assert len(readings) == 1, path
        assert "send:payment" not in bench.broker.registry.agent(agent.id).scopes
        waiting = bench.broker.stepups.open(AgentId(""))
        assert all(one.change and one.change.summary for one in waiting)


@pytest.mark.parametrize("change", ["removed", "role"])
async def test_the_first_request_may_end_the_last_approver(
    office: Office, change: str
) -> None:
    """What needed a factor before that needs one after it."""
    broker, users = office.broker, office.tenant.users
    broker.reaching.kind = "embedded"
    broker.settings = replace(broker.settings, changes=ChangeSettings(socket="factor"))
    ann = users.add("ann@acme.test", approver=True).user
    async with operators_http(office.bench) as http:
        body = {"change": change, "user": ann.name, "sub": ann.sub, "roles": []}
        reply = await http.post("/api/tenant/people", json=body)
        assert reply.status_code == 200
        users.remove(ann.name)
        broker.reaching.people.has_approver = False
        assert (await http.post("/api/agents", json=NEW)).status_code == 202
