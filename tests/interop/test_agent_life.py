"""auth0-python 6, unmodified, sets an agent up at the embedded tenant and ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from auth0_double.running import TenantThread
from support.peers import MANAGEMENT, peer, with_python
from support.tenant_admin import Admin, Agent
from support.tls_front import tls_front, trusted

from agentvault_tui.home import Home

pytestmark = with_python("auth0", MANAGEMENT)

Said = dict[str, Any]
BUILT = 60
"""Seconds after which the tenant has built an Action."""


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantThread]:
    """One tenant for all tests here."""
    running = TenantThread(Home.locate(tmp_path_factory.mktemp("life") / "home"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def agent(tenant: TenantThread) -> Agent:
    """An agent that is cut off in the end."""
    admin = Admin(tenant)
    admin.user("someone-else")
    return Agent(admin, "calendar-bot")


@pytest.fixture(scope="module")
def said(tenant: TenantThread, agent: Agent) -> Said:
    """What the SDK got for each of its calls, all made by one process."""
    given = {
        "management_id": tenant.run.management_id,
        "management_secret": tenant.run.management_secret,
        "audience": f"{tenant.issuer}api/v2/",
        "user_id": agent.user["user_id"],
        "connection_id": agent.admin.connection()["id"],
        "refresh_tokens": [agent.tokens()["refresh_token"] for _ in range(2)],
        **agent.auth,
    }

    async def live() -> Said:
        _, _, env = trusted(tenant.home)
        async with tls_front(tenant.home, tenant.issuer) as domain:
            known = {**given, "domain": domain}
            async with peer("agent_life.py", known, python=MANAGEMENT, **env) as sdk:
                made = await sdk.told("make")
                tenant.clock.advance(BUILT)
                return {**made, **await sdk.told("deploy"), **await sdk.told("cut off")}

    return asyncio.run(live())


def test_an_api_a_grant_and_a_factor_are_made(said: Said, agent: Agent) -> None:
    """Each is returned as it was asked for, and is in its list over pages of one."""
    mine = agent.client["client_id"]
    assert said["api"]["token_lifetime"] == 300
    assert said["apis"] == [said["api"]]
    assert (said["grant"]["client_id"], said["grant"]["subject_type"]) == (mine, "user")
    assert said["grant"] in said["grants"]
    assert len(said["grants"]) == 2
    assert {one["name"] for one in said["factors"] if one["enabled"]} == {"otp"}
    assert said["policies"] == []
    assert said["settings"]["customize_mfa_in_postlogin_action"] is True


def test_an_action_is_deployed_and_bound(said: Said) -> None:
    """Built after a while, as at Auth0; then it is deployed, and the flow has it."""
    assert said["action"]["status"] == "pending"
    # The version it made: recorded as not deployed yet at that moment.
    assert (said["deployed"]["number"], said["deployed"]["status"]) == (1, "built")
    (bound,) = said["bindings"]
    assert bound["action"]["id"] == said["action"]["id"]
    assert bound["display_name"] == "stamp"


def test_users_and_connections_over_pages(said: Said, agent: Agent) -> None:
    """The agent's user is among them, and its client among a connection's."""
    users = {one["user_id"] for one in said["users"]}
    assert agent.user["user_id"] in users
    assert len(users) == len(said["users"]) == 2
    connections = {one["id"] for one in said["connections"]}
    assert agent.admin.connection()["id"] in connections
    assert len(connections) == len(said["connections"]) == 2
    assert said["linked"] == [{"client_id": agent.client["client_id"]}]


def test_a_refresh_token_handed_back_is_that_one_alone(said: Said) -> None:
    """RevokeToken gets 200 each time; the token is dead, and another one lives."""
    assert said["before"]["token_type"] == "Bearer"
    assert said["handed back"] == said["handed back again"] == ""
    assert said["one after"]["raised"] == "invalid_grant"
    assert said["other after"]["token_type"] == "Bearer"
    assert len(said["held"]) == len(said["devices"]) == 1


def test_the_kill_order_cuts_all_of_it(said: Said, agent: Agent) -> None:
    """Grant, link, tokens in bulk, access, client: each is true when it is read back.

    Where Auth0 answers nothing the SDK returns nothing, and raises no error.
    """
    assert said["narrowed"]["grant_types"] == ["refresh_token"]
    assert said["links"] == []
    assert said["other revoked"]["raised"] == "invalid_grant"
    assert said["held after"] == []
    silent = ("unlinked", "revoked", "deleted")
    assert [said[name] for name in silent] == [None] * 3
    assert said["gone"] == {"raised": "NotFoundError", "status": 404}
    assert said["own end"]["raised"] == "invalid_client"


def test_the_user_s_log_tells_it_over_pages(said: Said, agent: Agent) -> None:
    """Rows of that user alone, once each, with the exchanges and the revocation."""
    rows = said["user logs"]
    ids = [row["log_id"] for row in rows]
    assert len(ids) == len(set(ids)) > 2
    assert {row["user_id"] for row in rows} == {agent.user["user_id"]}
    assert {"sertft", "fertft"} & {row["type"] for row in rows}
