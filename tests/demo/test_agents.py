"""An example agent acts through the gateway, and takes every answer decently."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import httpx
import pytest
from support.patience import PATIENT
from support.scripted_broker import ScriptedBroker

from agentvault_tui.demo.agents import ExampleAgent, Pauses
from agentvault_tui.demo.client import OAuthClient
from agentvault_tui.demo.roles import ROLES, booking, deletion, named_roles, payment

BRISK = Pauses(cut_off=0.2, cooling=0.1, again=0.1)
DONE = {"number": 1}


def seeded(number: int) -> Random:
    return Random(number)  # noqa: S311 - no secret depends on it


def denied(reason: str, error: str = "access_denied") -> dict[str, Any]:
    return {"error": error, "reason": reason, "error_description": "no"}


@pytest.fixture
async def agent(scripted_url: str) -> AsyncIterator[ExampleAgent]:
    async with httpx.AsyncHTTPTransport() as transport:
        made = ExampleAgent(
            "payments-agent",
            ROLES[3],
            OAuthClient(scripted_url, "agt_1", "secret", transport),
            random=seeded(1),
            stopping=asyncio.Event(),
            pauses=BRISK,
        )
        yield made
        await made.finish()


async def test_an_action_goes_through_the_gateway_with_the_agents_own_token(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """One token to read serves all calls; the request itself says what is done."""
    for number in (1, 2):
        scripted.will(201, DONE, {"agentvault-decision": f"dec_{number}"})
        await agent.run(payment(1881, 4200))
    assert scripted.scopes == ["read:contacts read:payments"]
    assert {asked.bearer for asked in scripted.asked} == {"t1"}
    first = scripted.asked[0]
    assert (first.method, first.path) == ("POST", "workspace/accounts/acct_42")
    assert json.loads(first.body)["amount"] == 4200
    assert agent.done == 2
    assert agent.client.decided == {"dec_1": True, "dec_2": True}


async def test_an_agent_goes_on_while_a_call_is_held(
    scripted: ScriptedBroker, agent: ExampleAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held call keeps its connection; what a person allows is done then, once."""
    monkeypatch.setattr("agentvault_tui.demo.agents._ON_ITS_WAY", 0.05)
    scripted.held = asyncio.Event()
    scripted.will(201, DONE)
    await agent.run(payment(1881, 4200))
    async with asyncio.timeout(PATIENT):
        while not scripted.asked:  # noqa: ASYNC110 - the server's own task
            await asyncio.sleep(0.01)
    assert (agent.waiting, agent.done) == (1, 0)
    assert scripted.asked[0].prefer == "wait=600"
    scripted.held.set()
    async with asyncio.timeout(PATIENT):
        while agent.waiting:  # noqa: ASYNC110 - a task of the agent's own ends it
            await asyncio.sleep(0.01)
    assert (agent.done, len(scripted.asked)) == (1, 1)


async def test_a_held_call_is_left_when_the_demo_stops(
    scripted: ScriptedBroker, agent: ExampleAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it any more, so that it is not sent."""
    monkeypatch.setattr("agentvault_tui.demo.agents._ON_ITS_WAY", 0.05)
    scripted.held = asyncio.Event()
    scripted.will(201, DONE)
    await agent.run(payment(1881, 4200))
    await agent.finish()
    assert (agent.waiting, agent.done) == (0, 0)
    scripted.held.set()


async def test_a_token_that_ended_is_replaced(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """401 `invalid_token` has the agent ask for another before its next call."""
    scripted.will(401, denied("invalid_token", "invalid_token"))
    scripted.will(200, DONE)
    await agent.run(booking(seeded(1)))
    await agent.run(booking(seeded(1)))
    assert [asked.bearer for asked in scripted.asked] == ["t1", "t2"]


async def test_a_token_that_is_refused_is_asked_for_later(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """A revoked agent asks again now and then, and calls nothing meanwhile."""
    scripted.tokens.append((403, denied("agent_revoked")))
    scripted.will(200, DONE)
    await agent.run(booking(seeded(1)))
    assert scripted.asked == []
    await agent.run(booking(seeded(1)))
    assert len(scripted.scopes) == 2
    assert agent.done == 1


async def test_an_agent_waits_for_its_account_until_the_demo_stops(
    agent: ExampleAgent,
) -> None:
    """Connected, it goes on; when all is over first, it does not."""
    agent.account.set()
    assert await agent.connected()
    agent.account.clear()
    waiting = asyncio.create_task(agent.connected())
    agent._stopping.set()
    assert not await waiting


async def test_an_agent_asks_again_when_nobody_decided(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """When the step-up has expired the agent waits a while and asks anew."""
    scripted.will(403, denied("stepup_expired"))
    scripted.will(403, denied("policy_forbids"))
    await agent.run(payment(1881, 4200))
    assert scripted.gaps[0] >= 0.1


@pytest.mark.parametrize(
    ("reason", "pause"),
    [("agent_revoked", 0.2), ("panic", 0.2), ("too_many_pending", 0.1)],
)
async def test_an_agent_pauses_after_a_denial(
    scripted: ScriptedBroker, agent: ExampleAgent, reason: str, pause: float
) -> None:
    """Revoked, stopped or over its limit, an agent keeps still before it asks again."""
    scripted.will(403, denied(reason))
    scripted.will(403, denied(reason))
    await agent.run(deletion(1))
    await agent.run(deletion(1))
    assert scripted.gaps[0] >= pause


async def test_an_agent_doubles_its_pause_while_cooling_down(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """Each refusal by a person doubles how long the agent keeps still."""
    for _ in range(3):
        scripted.will(403, denied("cooling_down"))
        await agent.run(deletion(1))
    assert scripted.gaps[0] >= 0.1
    assert scripted.gaps[1] >= 0.2


async def test_an_agent_does_not_retry_a_scope_it_was_not_granted(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """``scope_not_granted`` costs no time: the agent goes on with other things."""
    scripted.will(403, denied("scope_not_granted"))
    scripted.will(200, DONE)
    await agent.run(deletion(1))
    assert not agent._not_before
    await agent.run(booking(seeded(1)))
    assert (agent.done, len(scripted.asked)) == (1, 2)


async def test_an_agent_waits_for_retry_after(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """A 503 names no decision, and its Retry-After is kept."""
    body = denied("temporarily_unavailable", "temporarily_unavailable")
    scripted.will(503, body, {"retry-after": "1"})
    scripted.will(200, DONE)
    await agent.run(booking(seeded(1)))
    await agent.run(booking(seeded(1)))
    assert scripted.gaps[0] >= 1.0
    assert agent.client.decided == {}


async def test_an_agent_stops_between_two_requests(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """Told to stop, an agent sends no further request and loses no answer."""
    for number in range(20):
        decision = {"agentvault-decision": f"dec_{number}"}
        scripted.will(403, denied("scope_not_granted"), decision)
    life = asyncio.create_task(agent.live(rate=500))
    await scripted.idle.wait()
    agent._stopping.set()
    scripted.will(200, DONE, {"agentvault-decision": "dec_last"})
    await life
    assert len(agent.client.decided) == len(scripted.asked)


def test_more_than_six_agents_get_numbered_names() -> None:
    """More agents than roles get the same names with numbers."""
    names = [name for name, _ in named_roles(8)]
    assert names[:6] == [role.name for role in ROLES]
    assert names[6:] == ["calendar-agent-2", "email-agent-2"]


def test_authlib_prints_no_warning_on_the_demos_screen() -> None:
    """Its notice about httpx2 stays silent, also where warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", "import agentvault_tui.demo.client"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
