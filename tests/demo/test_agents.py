"""An example agent takes every answer the way a decent client does."""

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
from agentvault_tui.demo.client import VAULT, OAuthClient
from agentvault_tui.demo.roles import (
    ROLES,
    booking,
    deletion,
    lookup,
    named_roles,
    payment,
)
from agentvault_tui.demo.workspace import (
    OwnersGuard,
    TokenGuard,
    WorkspaceStore,
    application,
    serving,
)

BRISK = Pauses(cut_off=0.2, cooling=0.1, again=0.1, slow_down=0.2)
ESCALATED = {
    "error": "insufficient_user_authentication",
    "auth_req_id": "sup_1",
    "interval": 0.02,
}
PENDING = {"error": "authorization_pending"}


def seeded(number: int) -> Random:
    return Random(number)  # noqa: S311 - no secret depends on it


def granted(number: int | str = "") -> dict[str, Any]:
    return {"access_token": f"t{number}", "expires_in": 3600}


def denied(reason: str) -> dict[str, Any]:
    return {"error": "access_denied", "reason": reason, "error_description": "no"}


@pytest.fixture
def store() -> WorkspaceStore:
    return WorkspaceStore()


@pytest.fixture
async def agent(
    scripted_url: str, store: WorkspaceStore, http: httpx.AsyncClient
) -> AsyncIterator[ExampleAgent]:
    guard = TokenGuard(scripted_url, "agt_ws", "secret", http)
    owners = OwnersGuard(f"{scripted_url}/provider", http)
    async with (
        serving(application(guard, owners, store)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENT) as desk,
        httpx.AsyncHTTPTransport() as transport,
    ):
        yield ExampleAgent(
            "payments-agent",
            ROLES[3],
            OAuthClient(scripted_url, "agt_1", "secret", transport),
            desk,
            random=seeded(1),
            stopping=asyncio.Event(),
            pauses=BRISK,
        )


async def test_an_allowed_action_is_carried_out(
    scripted: ScriptedBroker, store: WorkspaceStore, agent: ExampleAgent
) -> None:
    """A granted token is used for the action it was asked for, named exactly."""
    scripted.will(200, granted())
    action = booking(seeded(1))
    claims = {"active": True, "scope": "write:calendar"}
    scripted.claims["t"] = {**claims, "authorization_details": action.details()}
    await agent.run(action)
    assert agent.client.tally.allowed == agent.done == len(store.bookings) == 1
    (detail,) = json.loads(scripted.asked[0][1]["authorization_details"])
    assert detail["action"] == "write:calendar"
    assert detail["resource"] == "calendar:primary"
    assert detail["parameters"]["title"] == store.bookings[0]["title"]


async def test_tokens_are_handed_back(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """An agent keeps only its latest tokens and hands the oldest back (RFC 7009)."""
    for number in range(4):
        scripted.will(200, granted(number))
        await agent.run(booking(seeded(number)))
    assert scripted.handed_back == ["t0", "t1"]


async def test_a_provider_token_is_used_and_not_handed_back(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """Of its owner's account it asks Token Vault for a token, and uses it there."""
    scripted.provider["t"] = {"active": True, "sub": "bob", "scope": "contacts.read"}
    for _ in range(3):
        scripted.will(200, granted())
        await agent.run(lookup(seeded(1)))
    assert agent.done == agent.client.tally.allowed == 3
    asked = scripted.asked[0][1]
    assert (asked["grant_type"], asked["connection"]) == (VAULT, "workspace")
    assert "scope" not in asked
    assert scripted.handed_back == []


async def test_no_account_is_a_refusal(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """An account that nobody connected is counted as the denial that the ledger has."""
    error = "federated_connection_refresh_token_not_found"
    scripted.will(401, {"error": error, "error_description": "none"})
    await agent.run(lookup(seeded(1)))
    assert agent.client.tally.denied == 1
    assert agent.done == 0


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


async def test_an_escalated_action_is_polled_and_done_once(
    scripted: ScriptedBroker, store: WorkspaceStore, agent: ExampleAgent
) -> None:
    """After approval the elevated token is used once, for the very payment."""
    pay = payment(1881, 4200)
    claims = {"active": True, "scope": "send:payment", "elevated": True}
    claims["authorization_details"] = pay.details()
    scripted.claims["t-elevated"] = claims
    scripted.will(403, ESCALATED)
    scripted.will(400, PENDING)
    scripted.will(200, granted("-elevated"))
    await agent.run(pay)
    assert agent.waiting == 1
    await agent.finish()
    assert [entry["amount"] for entry in store.payments] == [4200]
    assert scripted.introspected == ["t-elevated"]
    assert agent.client.tally.escalated == 1
    assert agent.client.tally.allowed == 0


async def test_one_auth_req_id_is_polled_by_one_task(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """Two identical requests share one auth_req_id, and so one poll."""
    # Long enough that both requests are answered before the first poll.
    unhurried = {**ESCALATED, "interval": 1.0}
    scripted.will(403, unhurried)
    scripted.will(403, unhurried)
    scripted.will(400, {"error": "invalid_grant"})
    await agent.run(payment(1881, 4200))
    await agent.run(payment(1881, 4200))
    assert agent.waiting == 1
    await agent.finish()
    assert len(scripted.asked) == 3


async def test_slow_down_lengthens_the_polling_interval(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """``slow_down`` lengthens the polling interval from then on."""
    scripted.will(403, ESCALATED)
    scripted.will(400, {"error": "slow_down"})
    scripted.will(400, PENDING)
    scripted.will(400, {"error": "invalid_grant"})
    await agent.run(payment(1881, 4200))
    await agent.finish()
    assert scripted.gaps[0] < 0.2 <= min(scripted.gaps[1:])


async def test_an_agent_asks_again_after_expired_token(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """When nobody decided in time the agent waits a while and asks anew."""
    scripted.will(403, ESCALATED)
    scripted.will(400, {"error": "expired_token"})
    scripted.will(403, denied("policy_forbids"))
    await agent.run(payment(1881, 4200))
    await agent.finish()
    assert scripted.gaps[1] >= 0.1
    assert scripted.asked[2][1]["grant_type"] == "client_credentials"


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
    scripted.will(200, granted())
    await agent.run(deletion(1))
    assert not agent._not_before
    await agent.run(booking(seeded(1)))
    assert agent.client.tally.allowed == 1


async def test_an_agent_waits_for_retry_after_on_503(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """A 503 is no answer: it is not counted, and Retry-After is kept."""
    scripted.will(503, {"error": "temporarily_unavailable"}, {"retry-after": "1"})
    scripted.will(200, granted())
    await agent.run(booking(seeded(1)))
    await agent.run(booking(seeded(1)))
    assert scripted.gaps[0] >= 1.0
    assert agent.client.tally.allowed == 1


async def test_an_agent_stops_between_two_requests(
    scripted: ScriptedBroker, agent: ExampleAgent
) -> None:
    """Told to stop, an agent sends no further request and loses no answer."""
    for _ in range(20):
        scripted.will(403, denied("scope_not_granted"))
    life = asyncio.create_task(agent.live(rate=500))
    await scripted.idle.wait()
    agent._stopping.set()
    scripted.will(403, denied("scope_not_granted"))
    await life
    await agent.finish()
    assert agent.client.tally.denied == len(scripted.asked)


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
