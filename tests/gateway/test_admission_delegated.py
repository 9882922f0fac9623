"""What the holder of a token that was passed on may do through the gateway."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.bench import OPERATOR
from support.call_kit import BEARER, OCTETS, ROUTES, bearer
from support.gateway_stand import Received, Stand, endless, operators_http
from support.patience import PATIENT
from support.stepups import details_of

from agentvault_tui.broker.answers import Denied, Escalated, Granted
from agentvault_tui.broker.floods import BURST
from agentvault_tui.broker.usecases.delegate import change_delegates, pass_on
from agentvault_tui.broker.usecases.issue_for import issue_for
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.model import Action, Agent
from agentvault_tui.policy.texts import shipped_policy

READ = Action(("read:calendar",), "read:calendar")


class Pair:
    """An agent with a token, and the one that it passes some of it on to."""

    def __init__(self, stand: Stand, first: Agent, second: Agent) -> None:
        self.stand, self.first, self.second = stand, first, second

    async def token(self, resource: str | None = None) -> str:
        broker, scopes = self.stand.bench.broker, ("read:calendar", "write:calendar")
        mine = await issue_for(broker, self.first, scopes, None, OPERATOR)
        action = Action(READ.scopes, READ.action, resource)
        given = await pass_on(
            broker, self.first, mine.token, self.second, action, resource=resource,
            details=None,
        )  # fmt: skip
        assert isinstance(given, Granted)
        return given.access_token


@pytest.fixture
async def pair(stand: Stand) -> Pair:
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    first = await stand.agent("read:calendar", "write:calendar")
    second = await stand.bench.agent("second", "write:calendar")
    scopes = frozenset({"read:calendar"})
    await change_delegates(stand.bench.broker, first.id, second.id, scopes, OPERATOR)
    return Pair(stand, first, second)


async def test_the_scopes_of_the_token_count_and_no_grant_of_its_holder(
    stand: Stand, pair: Pair
) -> None:
    """It may what was passed on, which it was not granted, and nothing it was."""
    shown = bearer(await pair.token())
    reply = await stand.client.get("/gw/api/events/e1", headers=shown)
    assert reply.status_code == 200
    kind = {"Content-Type": "application/octet-stream"}
    url = "/gw/api/upload/e1"
    refused = await stand.client.put(url, headers=shown | kind, content=b"x")
    assert refused.status_code == 403
    assert refused.json()["reason"] == "scope_not_granted"
    assert len(stand.upstream.received) == 1
    attempt = (await stand.bench.events("gateway.attempt"))[-1]
    assert attempt.agent_id == pair.second.id
    assert attempt.detail["facts"]["delegated"] is True
    assert attempt.detail["facts"]["depth"] == 1


async def test_a_call_is_within_the_resource_that_was_passed_on(
    stand: Stand, pair: Pair
) -> None:
    """Another resource than the token's is refused before anything is sent."""
    shown = bearer(await pair.token("calendar:e1"))
    assert (await stand.client.get("/gw/api/events/e1", headers=shown)).is_success
    other = await stand.client.get("/gw/api/events/e2", headers=shown)
    assert other.status_code in {401, 403}
    assert len(stand.upstream.received) == 1


def answer_endlessly(stand: Stand) -> asyncio.Event:
    """Let the service send until it is cut off; return what is set then."""
    stopped = asyncio.Event()

    async def slow(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        await endless(writer, b"x" * 1000)
        stopped.set()

    stand.upstream.answer = slow
    return stopped


async def test_revoking_who_passed_it_on_cuts_the_holders_calls(
    stand: Stand, pair: Pair
) -> None:
    """No byte of them moves once the first agent is revoked, and none starts."""
    stopped = answer_endlessly(stand)
    shown = bearer(await pair.token())
    url = "/gw/api/events/e1"
    async with stand.client.stream("GET", url, headers=shown) as reply:
        assert reply.status_code == 200
        cut = await revoke_agent(stand.bench.broker, pair.first.id, "", OPERATOR)
    await asyncio.wait_for(stopped.wait(), 10)
    assert (cut.calls.cut, cut.delegated) == (1, 1)
    again = await stand.client.get(url, headers=shown)
    assert again.status_code == 401


async def test_ending_the_delegation_cuts_the_holders_calls(
    stand: Stand, pair: Pair
) -> None:
    """Both agents are served on: the token and its calls are over, and counted."""
    stopped = answer_endlessly(stand)
    shown = bearer(await pair.token())
    url = "/gw/api/events/e1"
    none = {"agent_id": pair.first.id, "to": pair.second.id, "scopes": []}
    async with (
        operators_http(stand.bench) as operator,
        stand.client.stream("GET", url, headers=shown),
    ):
        told = await operator.post("/api/agents/delegates", json=none)
    await asyncio.wait_for(stopped.wait(), PATIENT)
    said = told.json()
    assert (said["calls_cut"], said["calls_sent"], said["delegated_revoked"]) == (
        *(1, 1), 1,
    )  # fmt: skip
    assert (await stand.client.get(url, headers=shown)).status_code == 401


async def test_refusals_of_a_passed_on_token_are_its_chains(
    stand: Stand, pair: Pair
) -> None:
    """Floods with a token that was passed on leave the holder's own token usable."""
    shown = bearer(await pair.token())
    mine = bearer(await stand.token(pair.second, "write:calendar"))
    kind = {"Content-Type": "application/octet-stream"}
    path = "/gw/api/upload/e1"
    refused = await stand.client.put(path, headers=shown | kind, content=b"x")
    assert refused.status_code == 403
    floods = stand.bench.broker.admitting.floods
    assert list(floods._agents) == [f"{pair.first.id}>{pair.second.id}"]
    for _ in range(BURST):
        floods.refused(f"{pair.first.id}>{pair.second.id}")
    url = "/gw/api/events/e1"
    assert (await stand.client.get(url, headers=shown)).status_code == 429
    for own in (mine, bearer(await stand.token(pair.first, "read:calendar"))):
        assert (await stand.client.get(url, headers=own)).status_code != 429


ASK = """
@id("ask") @why("A person decides.") @obligation("step_up") @optional("resource")
permit (principal, action in [Action::"read:calendar", Action::"write:calendar"],
        resource)
when { context has resource && context.resource like "calendar:*" };
"""


async def test_step_ups_and_cool_downs_of_a_passed_on_token_are_its_chains(
    stand: Stand, pair: Pair
) -> None:
    """Its pending step-ups and denials do not count for the holder's own requests."""
    broker = stand.bench.broker
    limited = replace(broker.settings.stepup, max_pending=1)
    broker.settings = replace(broker.settings, stepup=limited)
    stand.bench.home.policy_file.write_text(shipped_policy() + ASK)
    await reload_policy(broker)
    shown = bearer(await pair.token(), Prefer="respond-async")

    async def call(name: str) -> str:
        reply = await stand.client.get(f"/gw/api/events/{name}", headers=shown)
        return str(reply.json()["reason"])

    async def own(name: str) -> Escalated | Denied:
        action = Action(("write:calendar",), "write:calendar", f"calendar:{name}")
        details = details_of(action)
        answer = await request_token(
            broker, pair.second, action, resource=None, details=details
        )
        assert isinstance(answer, Escalated | Denied)
        return answer

    assert await call("e1") == "stepup_required"
    assert await call("e2") == "too_many_pending"
    held = await own("e1")
    assert isinstance(held, Escalated)
    assert isinstance(await own("e2"), Denied)
    (stepup,) = [one for one in broker.stepups.open() if one.chain]
    assert stepup.chain == (pair.first.id,)
    await stand.deny(stepup.id, "no")
    assert await call("e1") == "cooling_down"
    cooling = f"{pair.first.id}>{pair.second.id}"
    async with stand.bench.restarted() as after:
        cooldowns = after.broker.stepups.cooldowns
        assert cooldowns.remaining(cooling) > 0
        assert cooldowns.remaining(pair.second.id) == 0
        (waits,) = after.broker.stepups.open()
        assert (waits.id, waits.chain) == (held.stepup.id, ())


async def test_a_passed_on_token_spends_no_approval_of_its_holder(
    stand: Stand, pair: Pair
) -> None:
    """The delegator has that token too, and does not ask as its holder."""
    broker = stand.bench.broker
    stand.bench.home.policy_file.write_text(
        shipped_policy() + ASK.replace('&& context.resource like "calendar:*"', "")
    )
    await reload_policy(broker)
    own = bearer(await stand.token(pair.second, "write:calendar"))
    put = {"content": b"whole", "headers": own | OCTETS | {"Prefer": "respond-async"}}
    asked = await stand.client.put("/gw/api/upload/1", **put)
    stepup_id = asked.json()["auth_req_id"]
    await stand.approve(stepup_id)
    other = bearer(await pair.token(), **{"AgentVault-Request": stepup_id})
    reply = await stand.client.get("/gw/api/events/e1", headers=other)
    assert reply.json()["reason"] == "unknown_request"
    put["headers"]["AgentVault-Request"] = stepup_id
    reply = await stand.client.put("/gw/api/upload/1", **put)
    assert reply.status_code == 200
