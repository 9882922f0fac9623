"""auth0-python 6, unmodified, against the embedded tenant: reads, changes, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from auth0_double.running import TenantThread
from support.peers import MANAGEMENT, answer, with_python
from support.tenant_admin import Admin, Agent
from support.tls_front import tls_front, trusted

from agentvault_tui.home import Home

pytestmark = with_python("auth0", MANAGEMENT)

Said = dict[str, Any]


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TenantThread]:
    """One tenant for all tests here."""
    running = TenantThread(Home.locate(tmp_path_factory.mktemp("managed") / "home"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def agent(tenant: TenantThread) -> Agent:
    """An agent whose vault user has a connected account."""
    made = Agent(Admin(tenant), "calendar-bot")
    made.connect(made.me_token(made.tokens()["refresh_token"]))
    return made


@pytest.fixture(scope="module")
def said(tenant: TenantThread, agent: Agent) -> Said:
    """What the SDK got for each of its calls, all made by one process."""
    given = {
        "management_id": tenant.run.management_id,
        "management_secret": tenant.run.management_secret,
        "audience": f"{tenant.issuer}api/v2/",
        "user_id": agent.user["user_id"],
        "refresh_token": agent.tokens()["refresh_token"],
        **agent.auth,
    }
    return asyncio.run(administer(tenant, given))


async def administer(tenant: TenantThread, given: dict[str, str]) -> Said:
    # GetToken has requests, and the Management client httpx: each its own variable.
    _, _, env = trusted(tenant.home)
    async with tls_front(tenant.home, tenant.issuer) as domain:
        given = {**given, "domain": domain}
        return await answer("administrator.py", given, python=MANAGEMENT, **env)


def test_tokens_by_client_credentials_and_refresh(said: Said) -> None:
    """Both grants bring the SDK what it hands on, with the lifetime and the scope."""
    machine = said["client credentials"]
    assert machine["token_type"] == "Bearer"
    assert "read:clients" in machine["scope"].split()
    refreshed = said["refreshed"]
    assert refreshed["expires_in"] > 0
    assert "offline_access" in refreshed["scope"].split()
    assert refreshed["id_token"].count(".") == 2


def test_refusals_have_the_code_and_status_of_auth0(said: Said) -> None:
    """401 for a client that is none, 403 for a grant that is none, by its code."""
    wrong, unknown = said["wrong secret"], said["no such token"]
    assert (wrong["raised"], wrong["status"]) == ("invalid_client", 401)
    assert (unknown["raised"], unknown["status"]) == ("invalid_grant", 403)


def test_clients_are_listed_over_pages_read_and_changed(
    said: Said, agent: Agent
) -> None:
    """Pages of one bring all; no list has a secret; a change is what is read back."""
    mine = agent.client["client_id"]
    names = {one["client_id"]: one["name"] for one in said["clients"]}
    assert len(names) == len(said["clients"]) >= 3
    assert names[mine] == "Agent: calendar-bot"
    assert said["client"]["refresh_token"]["rotation_type"] == "non-rotating"
    assert said["renamed"] == {**said["client"], "name": "Agent: renamed"}


def test_a_rotated_secret_takes_the_place_of_the_one_before(
    said: Said, agent: Agent
) -> None:
    """The answer has the new one; the old one opens nothing from then on."""
    secret = said["rotated"]["client_secret"]
    assert secret != agent.client["client_secret"]
    assert said["with the secret before"]["raised"] == "invalid_client"
    assert said["with the new secret"]["raised"] == "invalid_grant"


def test_management_refusals_are_the_sdk_s_own_errors(said: Said) -> None:
    """The status alone makes the class that a program catches."""
    raised = {
        name: said[name]["raised"]
        for name in ("no client", "nameless", "a wrong token")
    }
    assert raised == {
        "no client": "NotFoundError",
        "nameless": "BadRequestError",
        "a wrong token": "UnauthorizedError",
    }


def test_a_user_and_what_is_connected(said: Said, agent: Agent) -> None:
    """The vault user is read, and the account connected for it."""
    assert said["user"]["user_id"] == agent.user["user_id"]
    assert said["user"]["identities"][0]["isSocial"] is False
    (account,) = said["accounts"]
    assert (account["connection"], account["access_type"]) == ("workspace", "offline")
    assert account["scopes"] == ["calendar.read", "calendar.write"]


def test_refresh_tokens_are_listed_read_and_deleted(said: Said, agent: Agent) -> None:
    """One deleted is gone from the list, and no other."""
    ids = [one["id"] for one in said["refresh tokens"]]
    assert len(ids) == 2
    assert said["refresh token"]["id"] == ids[0]
    assert said["refresh token"]["client_id"] == agent.client["client_id"]
    assert [one["id"] for one in said["refresh tokens but one"]] == ids[1:]


def test_logs_come_newest_first_over_pages(said: Said) -> None:
    """All rows once, over pages of five; the SDK's own change is among them."""
    ids = [row["log_id"] for row in said["logs"]]
    assert len(ids) > 5
    assert ids == sorted(set(ids), reverse=True)
    changed = [row for row in said["logs"] if row["description"] == "Update a Client"]
    assert {row["type"] for row in changed} == {"sapi", "fapi"}
