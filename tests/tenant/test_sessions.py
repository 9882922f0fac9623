"""Sessions at the Management API: none to list, and what revoking one ends."""

from __future__ import annotations

import pytest
from support.tenant_admin import Admin, Agent

from agentvault_tui.model import new_id


@pytest.fixture
def agent(admin: Admin) -> Agent:
    return Agent(admin, f"bot-{new_id('x')[2:]}")


@pytest.fixture
def token(agent: Agent) -> str:
    found: str = agent.tokens()["refresh_token"]
    return found


def refreshes(agent: Agent, token: str) -> bool:
    return agent.refresh(token).status_code == 200


def test_a_session_revoked_ends_what_came_of_it(
    admin: Admin, agent: Agent, token: str
) -> None:
    """202 {} for each, that one sign-in's token gone; there is no session to read."""
    path = f"users/{agent.user['user_id']}/refresh-tokens"
    session = admin.call("GET", path).json()["tokens"][0]["session_id"]
    other = agent.tokens()["refresh_token"]
    path = f"sessions/{session}"
    assert admin.call("GET", path).json()["errorCode"] == "inexistent_session"
    for method, where in (("DELETE", path), ("POST", f"{path}/revoke")):
        answer = admin.call(method, where)
        assert (answer.status_code, answer.json()) == (202, {})
        assert refreshes(agent, token) is (method == "DELETE")
    assert refreshes(agent, other)


def test_revoking_access_and_sessions(admin: Admin, agent: Agent, token: str) -> None:
    """202 {} for both; there are no sessions to list, since none outlives its page."""
    path = f"users/{agent.user['user_id']}"
    assert admin.call("GET", f"{path}/sessions").json() == {"sessions": []}
    gone = admin.call("DELETE", f"{path}/sessions")
    assert (gone.status_code, gone.json()) == (202, {})
    kept = {"preserve_refresh_tokens": True}
    assert admin.call("POST", f"{path}/revoke-access", kept).status_code == 202
    assert refreshes(agent, token)
    assert admin.call("POST", f"{path}/revoke-access", {}).status_code == 202
    assert not refreshes(agent, token)
    only = admin.machine_token(scope="delete:sessions").json()["access_token"]
    answer = admin.tenant.http.post(
        f"{admin.tenant.issuer}api/v2/{path}/revoke-access",
        headers={"authorization": f"Bearer {only}"},
    )
    assert "expected all of" in answer.json()["message"]
